"""DDIM and its inversion: diffusers' sampler, the way up meets the way down, a memory of all computed."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.testing import assert_close

from dragstudy.attention import self_attention_layers
from dragstudy.inversion import CLEAN, clean_and_noise, ddim_levels, ddim_step, denoise, invert
from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler

from .tiny import tiny_backbone

KINDS = ("epsilon", "sample", "v_prediction")


def stable_diffusion(kind: str = "epsilon") -> DDIMScheduler:
    """Stable Diffusion's own, as its weights come with it."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=kind,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )


def tensors(count: int, generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """A denoiser that answers differently for other latents, but not wildly."""
    return tiny_backbone()


@pytest.fixture
def latents(generator) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=generator)


def test_the_levels_are_stable_diffusion_s_published_timesteps():
    levels = ddim_levels(stable_diffusion(), 50)
    assert levels == [*range(981, 0, -20), CLEAN] and len(levels) == 51


def test_a_strength_keeps_the_last_steps():
    levels = ddim_levels(stable_diffusion(), 50, 0.7)
    assert len(levels) == 36 and levels[0] == 681 and levels[-2:] == [1, CLEAN]
    assert ddim_levels(stable_diffusion(), 50, 0.001) == [1, CLEAN]


def test_levels_follow_the_scheduler_s_spacing():
    trailing = DDIMScheduler.from_config(stable_diffusion().config, timestep_spacing="trailing")
    assert ddim_levels(trailing, 4) == [999, 749, 499, 249, CLEAN]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"num_inference_steps must be in 1..1000, got {steps}"):
        ddim_levels(stable_diffusion(), steps)


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan")])
def test_an_impossible_strength_is_refused(strength):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        ddim_levels(stable_diffusion(), 50, strength)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [1, 481, 981])
def test_clean_latents_and_noise_are_found_again_from_every_kind_of_prediction(kind, timestep, generator):
    scheduler, (clean, noise) = stable_diffusion(kind), tensors(2, generator)
    alpha_bar = float(scheduler.alphas_cumprod[timestep])
    mixed = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise
    velocity = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean
    predicted = {"epsilon": noise, "sample": clean, "v_prediction": velocity}[kind]
    found = clean_and_noise(scheduler, predicted, mixed, timestep)
    assert_close(found, (clean, noise), atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_is_that_of_diffusers(kind, eta, generator):
    scheduler = stable_diffusion(kind)
    scheduler.set_timesteps(50)
    predicted, latents, noise = tensors(3, generator)
    for timestep in (981, 501, 21, 1):
        expected = scheduler.step(predicted, timestep, latents, eta=eta, variance_noise=noise)[0]
        to = timestep - 20 if timestep > 20 else CLEAN
        found = ddim_step(scheduler, predicted, latents, timestep, to, eta=eta, noise=noise)
        assert_close(found, expected, atol=1e-4, rtol=1e-4)  # diffusers' alphas are of single precision
        if not eta:
            assert_close(ddim_step(scheduler, predicted, latents, timestep, to), found)


def test_a_map_of_eta_is_random_where_it_is_one_and_deterministic_where_it_is_zero(generator):
    scheduler, (predicted, latents, noise) = stable_diffusion(), tensors(3, generator)
    eta = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    eta[..., 4:] = 1
    found = ddim_step(scheduler, predicted, latents, 501, 481, eta=eta, noise=noise)
    for columns, one in ((slice(4), 0.0), (slice(4, 8), 1.0)):
        alone = ddim_step(scheduler, predicted, latents, 501, 481, eta=one, noise=noise)
        assert_close(found[..., columns], alone[..., columns])


def test_a_random_step_from_pure_noise_is_finite(generator):
    scheduler, (predicted, latents, noise) = make_ddim_scheduler(), tensors(3, generator)
    for timestep in range(979, 1000):  # the last has no signal at all
        for to in range(0, 979, 89):
            for eta in (1.0, torch.ones(1, 1, 8, 8, dtype=torch.float64)):
                found = ddim_step(scheduler, predicted, latents, timestep, to, eta=eta, noise=noise)
                assert found.dtype == torch.float64 and found.isfinite().all()


def test_the_memory_holds_one_set_of_latents_a_level_and_ends_with_the_picture(unet, latents):
    scheduler = make_ddim_scheduler()
    levels, seen = ddim_levels(scheduler, 5, 0.8), []
    bank = invert(
        unet, latents, NullPrompt()(1), scheduler, levels, on_step=lambda *step: seen.append(step) or True
    )
    assert bank.levels == tuple(levels) and len(bank.latents) == len(levels) == 5 and bank.attention == ()
    assert torch.equal(bank.latents[-1], latents)
    assert all(kept.shape == latents.shape and not kept.requires_grad for kept in bank.latents)
    assert [timestep for timestep, _ in seen] == [1, 201, 401, 601]
    assert all(given is kept for (_, given), kept in zip(seen, bank.latents[-2::-1], strict=True))


def test_an_inversion_that_is_ended_early_holds_the_levels_that_it_reached(unet, latents):
    scheduler, layers = make_ddim_scheduler(), self_attention_layers(unet)[:1]
    arguments = (unet, latents, NullPrompt()(1), scheduler, ddim_levels(scheduler, 5, 0.8))
    whole = invert(*arguments, attention_layers=layers)
    ended = invert(*arguments, attention_layers=layers, on_step=lambda timestep, _: timestep < 201)
    assert ended.levels == (201, 1, CLEAN) and len(ended.latents) == 3 and len(ended.attention) == 2
    assert all(torch.equal(*pair) for pair in zip(ended.latents, whole.latents[-3:], strict=True))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])  # where the network says "clean", it is slow
def test_fixed_point_iterations_find_the_true_inverse(unet, latents, kind):
    scheduler, prompts = make_ddim_scheduler(kind), NullPrompt()(2)
    levels, errors = ddim_levels(scheduler, 10, 0.7), []
    for iterations in (0, 1, 2, 20):
        bank = invert(unet, latents, prompts, scheduler, levels, fixed_point_iterations=iterations)
        errors.append(
            (denoise(unet, bank.latents[0], prompts, scheduler, bank.levels) - latents).abs().max().item()
        )
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[3] < 1e-4, errors


def test_one_prompt_serves_all_images_and_an_image_s_memory_does_not_depend_on_the_others(unet, latents):
    scheduler = make_ddim_scheduler()
    levels = ddim_levels(scheduler, 4, 0.5)
    both = invert(unet, latents, NullPrompt()(1), scheduler, levels)
    second = invert(unet, latents[1:], NullPrompt()(1), scheduler, levels)
    for together, alone in zip(both.latents, second.latents, strict=True):
        assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_keys_and_values_are_those_that_the_layers_compute(unet, latents):
    scheduler, layers = make_ddim_scheduler(), self_attention_layers(unet)
    levels, computed = ddim_levels(scheduler, 4, 0.5), {}

    def keep(name):
        return lambda module, args, output: computed.setdefault(name, []).append(output)

    handles = [
        unet.get_submodule(f"{layer}.{part}").register_forward_hook(keep((layer, part)))
        for layer in layers
        for part in ("to_k", "to_v")
    ]
    bank = invert(unet, latents, NullPrompt()(1), scheduler, levels, attention_layers=layers)
    for handle in handles:
        handle.remove()
    assert len(bank.attention) == len(levels) - 1
    for step, kept in enumerate(bank.attention):
        assert list(kept) == layers  # in the order in which they ran
        for layer, pair in kept.items():
            for part, tensor in zip(("to_k", "to_v"), pair, strict=True):
                assert torch.equal(tensor, computed[layer, part][::-1][step])  # it went from low to high


def test_keys_and_values_are_those_of_the_last_fixed_point_iteration(unet, latents):
    scheduler, layer = make_ddim_scheduler(), self_attention_layers(unet)[-1]
    levels, computed = ddim_levels(scheduler, 3), []
    handle = unet.get_submodule(f"{layer}.to_k").register_forward_hook(lambda *a: computed.append(a[-1]))
    options = {"attention_layers": [layer], "fixed_point_iterations": 2}
    bank = invert(unet, latents, NullPrompt()(1), scheduler, levels, **options)
    handle.remove()
    assert len(computed) == 9
    for kept, expected in zip(bank.attention, computed[2::3][::-1], strict=True):
        assert torch.equal(kept[layer][0], expected)


def test_the_memory_of_attention_lies_where_it_is_wanted_and_changes_nothing_else(unet, latents):
    scheduler, layers = make_ddim_scheduler(), self_attention_layers(unet, ["up_blocks"])
    arguments = (unet, latents, NullPrompt()(1), scheduler, ddim_levels(scheduler, 3))
    bank = invert(*arguments, attention_layers=layers, memory_device="meta")
    assert all(t.device.type == "meta" for kept in bank.attention for pair in kept.values() for t in pair)
    assert all(kept.device.type == "cpu" for kept in bank.latents)
    for with_attention, without in zip(bank.latents, invert(*arguments).latents, strict=True):
        assert_close(with_attention, without, atol=1e-6, rtol=1e-5)


def test_an_unknown_layer_is_refused(unet, latents):
    scheduler = make_ddim_scheduler()
    levels = ddim_levels(scheduler, 2)
    with pytest.raises(ValueError, match="up_blocks.9"):
        invert(unet, latents, NullPrompt()(1), scheduler, levels, attention_layers=["up_blocks.9.attn1"])
