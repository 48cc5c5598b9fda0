"""What each model is trained on: finite losses that fall, drop rates, mirroring, the GAN's rhythm."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy import assets
from dragstudy.flow import backward_warp, pixel_grid, sample_at
from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.models.flowdiffusion import flow_conditions
from dragstudy.models.flowgen import PatchDiscriminator
from dragstudy.training.augment import (
    MIRRORED_LANDMARKS,
    augment_colours,
    mirror_pairs,
    random_crop,
    random_flip,
    zoom_out,
)
from dragstudy.training.autoencoder import AutoencoderTask
from dragstudy.training.backbone import BackboneTask, add_noise, diffusion_target, draw_timesteps
from dragstudy.training.flowdiffusion import FlowDiffusionTask
from dragstudy.training.flowgen import FlowGenTask

from ..tiny import pair_batch, tiny_autoencoder, tiny_backbone, tiny_flowdiffusion, tiny_flowgen


def latent_batch(count: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = {"source_latents": 4, "target_latents": 4, "moved_latents": 4, "coverage": 1, "flow": 2}
    return {name: torch.randn(count, channels, 8, 8, generator=generator) for name, channels in names.items()}


def autoencoder_task() -> tuple[AutoencoderTask, dict]:
    try:
        task = AutoencoderTask(tiny_autoencoder(), crop=32, validation=pair_batch(3)["target"])
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    return task, {"image": pair_batch(2)["source"]}


def backbone_task() -> tuple[BackboneTask, dict]:
    task = BackboneTask(tiny_backbone(), NullPrompt(), make_scheduler(), validation=latent_batch(3))
    return task, latent_batch()


def flowdiffusion_task(variant: str = "concat") -> tuple[FlowDiffusionTask, dict]:
    unet = tiny_flowdiffusion(variant)
    return FlowDiffusionTask(unet, NullPrompt(), make_scheduler(), validation=latent_batch(3)), latent_batch()


def flowgen_task(prior: bool = False, **options) -> tuple[FlowGenTask, dict]:
    discriminator = PatchDiscriminator(base_channels=4, num_layers=3, norm_groups=2)
    return FlowGenTask(tiny_flowgen(prior), discriminator, validation=pair_batch(3), **options), pair_batch()


TASKS = {
    "autoencoder": autoencoder_task,
    "backbone": backbone_task,
    "flowdiffusion": flowdiffusion_task,
    "flowdiffusion-splat": lambda: flowdiffusion_task("splat"),
    "flowgen": flowgen_task,
    "flowgen-l1": lambda: flowgen_task(reconstruction="l1"),
    "flowgen-prior": lambda: flowgen_task(prior=True),
}


def updates(task, batch: dict, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict]]:
    """The task's updates, each carried out as the loop does, by plain gradient descent."""
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=4e-3) for name, network in task.networks.items()
    }
    while True:
        for name, loss, logs in task.losses(batch, generator):
            optimizers[name].zero_grad()
            loss.backward()
            yield name, loss.detach(), logs
            optimizers[name].step()


@pytest.mark.parametrize("name", TASKS)
def test_losses_are_finite_and_reach_every_weight(name, generator):
    task, batch = TASKS[name]()
    reached = set()
    for network, loss, logs in task.losses(batch, generator):
        task.networks[network].zero_grad()
        loss.backward()
        assert loss.isfinite() and all(value.isfinite() and value.ndim == 0 for value in logs.values())
        assert all(weight.grad.isfinite().all() for weight in task.networks[network].parameters())
        reached.add(network)
    assert reached == set(task.networks)


@pytest.mark.parametrize("name", TASKS)
def test_a_few_steps_on_one_batch_lower_the_loss(name):
    task, batch = TASKS[name]()
    generator = torch.Generator()

    def first_loss() -> float:
        with torch.no_grad():
            return next(task.losses(batch, generator.manual_seed(1)))[1].item()

    before, main = first_loss(), next(iter(task.networks))
    steps = updates(task, batch, generator)
    for _ in range(6):
        generator.manual_seed(1)
        while next(steps)[0] != main:
            pass
    assert first_loss() < before


@pytest.mark.parametrize("name", TASKS)
def test_validation_gives_finite_numbers_that_do_not_change_by_themselves(name):
    task, _ = TASKS[name]()
    with torch.no_grad():
        first, again = task.validate(), task.validate()
    assert first and first == again and all(torch.isfinite(torch.tensor(v)) for v in first.values())
    task.validation = None
    assert task.validate() == {}


# FlowGen


def test_the_generator_is_updated_four_times_a_discriminator_update_with_fresh_drags(generator):
    task, batch = flowgen_task()
    sampled, sample = [], task.sample_sparse
    task.sample_sparse = lambda *arguments: sampled.append(sample(*arguments)) or sampled[-1]
    names = [name for name, _, _ in task.losses(batch, generator)]
    assert names == ["generator"] * 4 + ["discriminator"]
    assert len(sampled) == 4
    assert not any(torch.equal(a, b) for a, b in zip(sampled[:-1], sampled[1:], strict=True))


def test_the_discriminator_s_loss_leaves_the_generator_alone(generator):
    task, batch = flowgen_task()
    for network, loss, _ in task.losses(batch, generator):
        task.networks["generator"].zero_grad()
        if network == "discriminator":
            loss.backward()
            assert all(weight.grad is None for weight in task.networks["generator"].parameters())


def test_sampled_drags_are_the_flow_s_own_values_at_some_points_of_the_object(generator):
    task, batch = flowgen_task()
    sparse = task.sample_sparse(batch, generator)
    known = sparse.any(dim=1, keepdim=True)
    assert 1 <= known.sum() <= 2 * task.sampler.max_points and not (known * (1 - batch["mask"])).any()
    assert torch.equal(sparse, batch["flow"] * known)
    with_faces = task.sample_sparse(batch, generator.manual_seed(0))
    batch["landmarks"] = torch.full_like(batch["landmarks"], torch.nan)
    assert not torch.equal(task.sample_sparse(batch, generator.manual_seed(0)), with_faces)


def test_flowgen_can_be_trained_on_the_reconstruction_alone(generator):
    task = FlowGenTask(tiny_flowgen(), None)
    names = [(name, set(logs)) for name, _, logs in task.losses(pair_batch(), generator)]
    assert names == [("generator", {"distance"})] * 4


def test_validation_measures_the_flow_as_the_pipeline_scales_it(generator):
    """With a generator that says the same everywhere, the flow is the largest drag everywhere."""
    task, batch = flowgen_task()
    flowgen = task.networks["generator"]
    nn.init.zeros_(flowgen.ups[0].weight)
    nn.init.constant_(flowgen.ups[0].bias, 0.3)
    task.validation = batch | {"flow": torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 64, 64)}
    measured = task.validate()
    assert measured["val_epe"] == pytest.approx(0, abs=1e-5) and measured["val_epe_zero"] == pytest.approx(5)


def test_an_unknown_reconstruction_is_refused():
    with pytest.raises(ValueError, match="'l1' or 'l2', got 'l3'"):
        FlowGenTask(tiny_flowgen(), None, reconstruction="l3")


def test_an_unknown_sampler_is_refused():
    with pytest.raises(
        ValueError, match="one of config1, config2, config3, config4, watershed, uniform, got 'config9'"
    ):
        FlowGenTask(tiny_flowgen(), None, sampler="config9")


def mirrored_both_ways(batch: dict) -> tuple[dict, Tensor]:
    """A batch mirrored with each pair's own luck, and which pairs it turned."""
    generator = torch.Generator().manual_seed(0)
    mirrored = mirror_pairs(batch, generator)
    turned = (mirrored["source"] != batch["source"]).flatten(1).any(dim=1)
    assert turned.any() and not turned.all()
    return mirrored, turned


def test_mirroring_twice_is_the_identity():
    batch = pair_batch(4)
    batch["landmarks"][1] = torch.nan
    mirrored, _ = mirrored_both_ways(batch)
    again, _ = mirrored_both_ways(mirrored)
    for key, value in batch.items():
        assert_close(again[key], value, equal_nan=True)


def test_landmarks_change_sides_in_a_mirror():
    assert sorted(MIRRORED_LANDMARKS) == list(range(68))
    assert all(MIRRORED_LANDMARKS[MIRRORED_LANDMARKS[k]] == k for k in range(68))
    for left, right in ((0, 16), (17, 26), (36, 45), (41, 46), (31, 35), (48, 54), (60, 64), (59, 55)):
        assert MIRRORED_LANDMARKS[left] == right
    for middle in (8, 27, 30, 33, 51, 57, 62, 66):
        assert MIRRORED_LANDMARKS[middle] == middle


def test_mirrored_landmarks_stay_on_their_pixels():
    """What lies under landmark k lies under its mirrored twin."""
    batch = pair_batch(4)
    mirrored, turned = mirrored_both_ways(batch)
    before = sample_at(batch["source"], batch["landmarks"].mT[..., None])[turned, :, :, 0]
    after = sample_at(mirrored["source"], mirrored["landmarks"].mT[..., None])[turned, :, :, 0]
    assert_close(after, before[:, :, MIRRORED_LANDMARKS], atol=1e-4, rtol=1e-4)


def test_mirrored_flow_still_leads_from_source_to_target():
    """The backward relation target(p + flow(p)) = source(p) holds after mirroring as it did before."""
    batch = pair_batch(4)
    batch["target"] = pixel_grid(64, 64).repeat(4, 2, 1, 1)[:, :3] / 64
    batch["source"] = backward_warp(batch["target"], batch["flow"])
    mirrored, _ = mirrored_both_ways(batch)
    assert_close(
        backward_warp(mirrored["target"], mirrored["flow"]), mirrored["source"], atol=1e-4, rtol=1e-4
    )


def smooth_batch() -> dict:
    """A batch whose landmarks lie around the middle, and whose first pair shows its own coordinates."""
    batch = pair_batch(4, size=64)
    batch["source"][:, :2] = pixel_grid(64, 64) / 64
    return batch


def test_zooming_out_of_nothing_changes_nothing(generator):
    batch = smooth_batch()
    for key, value in zoom_out(batch, generator, share=0.0).items():
        if key != "flow":  # masks are made 0 or 1 again, which they were
            assert_close(value, batch[key], atol=1e-5, rtol=0)


def test_landmarks_stay_on_their_pixels_when_a_pair_is_seen_from_farther_away(generator):
    batch = smooth_batch()
    zoomed = zoom_out(batch, generator, share=1.0)
    before = sample_at(batch["source"], batch["landmarks"].mT[..., None])
    after = sample_at(zoomed["source"], zoomed["landmarks"].mT[..., None])
    assert_close(after[:, :2], before[:, :2], atol=2e-2, rtol=0)
    assert (zoomed["landmarks"] - batch["landmarks"]).abs().max() > 3


def test_motion_shrinks_with_the_picture_and_nobody_stands_above_it(generator):
    batch = smooth_batch()
    batch["flow"], batch["mask"] = torch.full_like(batch["flow"], 3.0), torch.ones_like(batch["mask"])
    zoomed = zoom_out(batch, generator, share=1.0)
    height = zoomed["mask"].amax(dim=3).sum(dim=(1, 2))  # rows that the picture still has
    assert_close(zoomed["flow"].amax(dim=(1, 2, 3)) / 3, height / 64, atol=0.01, rtol=0)
    assert (height < 64).all() and (height >= 0.45 * 64 - 1).all()
    assert zoomed["mask"][..., -1, :].min() == 1


# FlowDiffusion


def dropped(count: int = 20_000) -> tuple[Tensor, Tensor]:
    """Which of many samples lost their image, and which their flow."""
    task, _ = flowdiffusion_task()
    batch = {"source_latents": torch.ones(count, 4, 1, 1), "flow": torch.ones(count, 2, 1, 1)}
    (conditions,) = task.conditions(batch, torch.Generator().manual_seed(0))
    return ~conditions[:, :4].flatten(1).any(dim=1), ~conditions[:, 4:].flatten(1).any(dim=1)


def test_the_image_is_dropped_5_percent_and_the_flow_10_percent_of_the_time():
    image, flow = dropped()
    assert image.float().mean().item() == pytest.approx(0.05, abs=0.006)
    assert flow.float().mean().item() == pytest.approx(0.10, abs=0.008)


def test_the_image_is_never_dropped_while_the_flow_is_present():
    image, flow = dropped()
    assert not (image & ~flow).any()


def test_conditions_that_are_kept_are_the_pipeline_s(generator):
    task, batch = flowdiffusion_task("splat")
    task.drop_image = task.drop_flow = 0.0
    task.flow_scale = 8.0
    (conditions,) = task.conditions(batch, generator)
    moved = batch["moved_latents"], batch["coverage"]
    assert_close(conditions, flow_conditions(batch["source_latents"], batch["flow"], moved, flow_scale=8.0))


# Diffusion


def test_timesteps_are_stratified(generator):
    timesteps = draw_timesteps(10, make_scheduler(), generator)
    assert (timesteps // 100).tolist() == list(range(10))


def test_the_largest_draw_is_the_last_timestep(monkeypatch):
    """31 and the number below 1 add up to 32 in single precision, which would be timestep 1000."""
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(32, make_scheduler(), torch.Generator())[-1] == 999


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_target_takes_noisy_latents_back_to_clean_ones(prediction_type, generator):
    scheduler = make_scheduler(prediction_type)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([10, 300, 700])
    noisy = add_noise(scheduler, latents, noise, timesteps)
    target = diffusion_target(scheduler, latents, noise, timesteps)
    alpha = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    if prediction_type == "epsilon":
        clean = (noisy - (1 - alpha).sqrt() * target) / alpha.sqrt()
    else:
        clean = alpha.sqrt() * noisy - (1 - alpha).sqrt() * target
    assert_close(clean, latents, atol=1e-4, rtol=1e-4)


def test_the_last_timestep_is_pure_noise():
    assert make_scheduler().alphas_cumprod[-1].item() == pytest.approx(0, abs=1e-6)


# Augmentations


def test_augmentations_follow_their_generator_and_keep_their_range(generator):
    images = pair_batch(4)["source"]
    for augment in (random_flip, augment_colours, lambda i, g: random_crop(i, 24, g)):
        first = augment(images, generator.manual_seed(1))
        assert torch.equal(augment(images, generator.manual_seed(1)), first)
        assert not torch.equal(augment(images, generator.manual_seed(2)), first)
        assert first.min() >= 0 and first.max() <= 1
    assert random_crop(images, 24, generator).shape == (4, 3, 24, 24)
    assert torch.equal(random_crop(images, 64, generator), images)
    assert_close(augment_colours(images, generator, strength=0.0), images)


def test_a_crop_larger_than_the_image_is_refused(generator):
    with pytest.raises(ValueError, match="65 x 65"):
        random_crop(torch.zeros(1, 3, 64, 64), 65, generator)
