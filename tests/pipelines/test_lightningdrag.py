"""LightningDrag edits pictures as every method does, and keeps to its paper."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import dragstudy
from dragstudy.attention import self_attention_layers
from dragstudy.guidance import guidance_weight
from dragstudy.models.lora import add_lora
from dragstudy.pipelines import LightningDragPipeline
from dragstudy.pipelines.few_steps import use_lcm
from dragstudy.pipelines.weights import WEIGHTS
from dragstudy.training.consistency import save_lcm_lora

from ..tiny import picture, tiny_lightningdrag
from .contract import PipelineContract, pixels, seeded


class TestLightningDrag(PipelineContract):
    has_flow = False

    @classmethod
    def make(cls):
        return tiny_lightningdrag()


class TestLightningDragZoomed(PipelineContract):
    has_flow = False

    @classmethod
    def make(cls):
        pipe = tiny_lightningdrag("origins")
        pipe.register_to_config(zoom=True)
        return pipe


@pytest.fixture(scope="module", params=["identifiers", "origins"])
def pipe(request) -> LightningDragPipeline:
    torch.manual_seed(0)
    return tiny_lightningdrag(request.param)


def edit(pipe, image=None, handles=((20, 30),), targets=((34, 26),), mask=None, **options) -> Image.Image:
    image = picture(64, 64) if image is None else image
    options = {"num_inference_steps": 2, "generator": seeded()} | options
    return pipe(image, handles, targets, mask, **options).images[0]


def latents_of(pipe, **options) -> torch.Tensor:
    """The last latents of an edit, which no rounding has touched."""
    seen = []
    edit(pipe, callback_on_step_end=lambda p, i, t, tensors: seen.append(tensors["latents"]) or {}, **options)
    return seen[-1]


def test_the_appearance_encoder_and_the_points_run_once_an_edit(pipe):
    counts = {"appearance_encoder": 0, "point_embedding": 0, "unet": 0}

    def count(name):
        def hook(*_):
            counts[name] += 1

        return hook

    hooks = [getattr(pipe, name).register_forward_hook(count(name)) for name in counts]
    edit(pipe, num_inference_steps=7)
    for hook in hooks:
        hook.remove()
    assert counts == {"appearance_encoder": 1, "point_embedding": 1, "unet": 7}


def test_where_a_point_goes_changes_the_edit(pipe):
    here, there = (latents_of(pipe, targets=[target]) for target in ([34, 26], [10, 50]))
    assert (here - there).abs().max() > 1e-4


def test_more_guidance_follows_points_more(pipe):
    """Guidance draws a line through the predictions without and with points."""
    options = {"num_inference_steps": 1, "guidance_schedule": "constant"}
    without, plain, double = (latents_of(pipe, point_guidance_scale=w, **options) for w in (0.0, 1.0, 2.0))
    assert (plain - without).abs().max() > 1e-4
    torch.testing.assert_close(double - plain, plain - without, atol=1e-4, rtol=1e-3)


def test_without_guidance_there_is_one_row(pipe):
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    edit(pipe, guidance_schedule="none")
    edit(pipe, point_guidance_scale=1.0)
    edit(pipe)
    hook.remove()
    assert rows == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("count", [1, 20, 68])
def test_any_number_of_points_is_taken(pipe, count):
    points = 63 * np.random.default_rng(0).random((2, count, 2))
    assert edit(pipe, handles=points[0], targets=points[1]).size == (64, 64)


@pytest.mark.parametrize("size", [(256, 64), (64, 256), (90, 70)])
def test_any_shape_is_taken_also_where_levels_share_their_token_counts(pipe, size):
    assert edit(pipe, picture(*size)).size == size


def test_an_exception_leaves_the_unet_as_it_was(pipe):
    before = dict(pipe.unet.attn_processors)

    def fail(*_):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        edit(pipe, callback_on_step_end=fail)
    assert pipe.unet.attn_processors == before
    first = edit(pipe).tobytes()
    assert edit(pipe).tobytes() == first


@pytest.mark.parametrize("prior", ["random", "source", "mixed", "copy_paste"])
def test_every_noise_prior_starts_elsewhere_and_is_repeatable(pipe, prior):
    mask = np.zeros((64, 64))
    mask[16:48, 16:48] = 1
    first, again, other = (
        latents_of(pipe, mask=mask, noise_prior=name)
        for name in (prior, prior, "random" if prior != "random" else "source")
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_masked_pixels_and_masked_latents_differ_inside_the_mask_s_edge_only():
    """The masked picture is encoded for Stable Diffusion's inpainting model; the mask channel is the same."""
    torch.manual_seed(0)
    pipe = tiny_lightningdrag()
    mask = np.zeros((64, 64))
    mask[20:44, 20:44] = 1
    (request,), _ = pipe.check_inputs(picture(64, 64), [[30, 30]], [[34, 30]], mask, 64 * 64)
    _, latents = pipe.prepare_conditions([request])
    pipe.register_to_config(mask_pixels=True)
    _, masked = pipe.prepare_conditions([request])
    assert torch.equal(latents[:, :1], masked[:, :1]) and latents[:, :1].sum() == 16
    assert not latents[:, 1:, 3:5, 3:5].any() and masked[:, 1:, 3:5, 3:5].any()


def test_few_step_weights_sample_in_one_row_with_the_generator(tmp_path):
    torch.manual_seed(0)
    pipe, trained = tiny_lightningdrag(), tiny_lightningdrag()
    trained.unet.load_state_dict(pipe.unet.state_dict())
    add_lora(trained.unet, rank=2, generator=seeded())
    save_lcm_lora(trained.unet, tmp_path, 8, {"point_guidance_scale": 1.0})
    options = use_lcm(pipe, tmp_path)
    rows, steps = [], []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    first = edit(pipe, **options, callback_on_step_end=lambda p, i, t, _: steps.append(int(t)) or {})
    hook.remove()
    assert rows == [1] * 4 and steps == sorted(steps, reverse=True) and len(set(steps)) == 4
    again, other = (edit(pipe, generator=seeded(seed), **options) for seed in (0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("reading", ["timestep", "step"])
def test_each_step_is_guided_by_the_schedule_at_its_time(pipe, reading, monkeypatch):
    weights, plain = [], pipe.denoise

    def spy(inputs, timestep, prompts, prompted, weight):
        weights.append(weight)
        return plain(inputs, timestep, prompts, prompted, weight)

    monkeypatch.setattr(pipe, "denoise", spy)
    edit(
        pipe,
        num_inference_steps=5,
        point_guidance_scale=4.0,
        guidance_schedule="linear",
        schedule_time=reading,
    )
    times = [1, 0.8, 0.6, 0.4, 0.2] if reading == "step" else [0.999, 0.799, 0.599, 0.399, 0.199]
    assert weights == pytest.approx([guidance_weight("linear", 4.0, time) for time in times])


@pytest.mark.parametrize("maps", ["identifiers", "origins"])
def test_half_precision_networks_are_fed_half_precision(maps):
    torch.manual_seed(0)
    pipe = tiny_lightningdrag(maps)
    full = edit(pipe)
    pipe.appearance_encoder.to(torch.bfloat16)
    assert edit(pipe).size == full.size  # of two precisions
    half = edit(pipe.to(torch.bfloat16))
    assert np.abs(pixels(half) - pixels(full)).mean() < 8


def test_a_latent_is_free_or_not():
    """Where the rim of a mask falls into a latent's pixels the whole latent may change."""
    torch.manual_seed(0)
    pipe = tiny_lightningdrag()
    y, x = np.mgrid[:150, :200]
    disc = ((x - 90) ** 2 + (y - 70) ** 2 < 40**2).astype(float)
    requests, _ = pipe.check_inputs(picture(200, 150), [[90, 70]], [[99, 70]], disc, 64 * 64)
    latents, conditions = pipe.prepare_conditions(requests)
    assert set(conditions[:, 0].unique().tolist()) == {0.0, 1.0}
    free = conditions[:, :1].expand_as(latents) == 1
    assert not conditions[:, 1:][free].any() and torch.equal(conditions[:, 1:][~free], latents[~free])


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_steps_must_be_a_positive_whole_number(pipe, steps):
    with pytest.raises(ValueError, match="whole number and at least 1"):
        edit(pipe, num_inference_steps=steps)


def test_the_shipped_weights_fit_together_and_edit():
    pipe = dragstudy.load("lightningdrag")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.config.zoom
    assert set(pipe.point_embedding.config.layers) == set(self_attention_layers(pipe.unet))
    mask = np.zeros((96, 128))
    mask[30:70, 40:90] = 1
    image = picture(128, 96)
    for options in ({"num_inference_steps": 4}, use_lcm(pipe, WEIGHTS / "lightning-lcm")):
        change = pixels(edit(pipe, image, [[60, 50]], [[70, 50]], mask, **options)) - pixels(image)
        assert change[mask == 1].any() and not change[mask == 0].any()


def test_an_image_adapter_conditions_the_edit():
    """diffusers' IP-Adapter, with a tiny image encoder: the image prompt reaches the edit."""
    torch.manual_seed(0)
    pipe = tiny_lightningdrag()
    plain = latents_of(pipe)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, projection_dim=24, num_hidden_layers=1,
        num_attention_heads=2, image_size=32, patch_size=16,
    )  # fmt: skip
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe.register_modules(
        image_encoder=CLIPVisionModelWithProjection(config).eval(), feature_extractor=extractor
    )
    pipe.load_ip_adapter(ip_adapter_weights(pipe, 24), None, None, image_encoder_folder=None)
    prompted = latents_of(pipe)
    assert (prompted - plain).abs().max() > 1e-5
    pipe.set_ip_adapter_scale(0.0)
    torch.testing.assert_close(latents_of(pipe), plain, atol=1e-5, rtol=1e-4)
    two = pipe([picture(64, 64)] * 2, [[[20, 20]]] * 2, [[[30, 20]]] * 2, num_inference_steps=1)
    assert len(two.images) == 2


def ip_adapter_weights(pipe: LightningDragPipeline, image_dim: int, tokens: int = 4) -> dict:
    """Random weights in IP-Adapter's layout for the pipeline's U-Net."""
    dim = pipe.unet.config.cross_attention_dim
    layers = [n for n in pipe.unet.attn_processors if n.endswith("attn2.processor")]
    weights = {"image_proj": {
        "proj.weight": torch.randn(tokens * dim, image_dim), "proj.bias": torch.zeros(tokens * dim),
        "norm.weight": torch.ones(dim), "norm.bias": torch.zeros(dim),
    }, "ip_adapter": {}}  # fmt: skip
    for k, name in enumerate(layers):
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("to_k_ip", "to_v_ip"):
            weights["ip_adapter"][f"{2 * k + 1}.{part}.weight"] = torch.randn(width, dim)
    return weights


def test_an_edit_s_change_stays_inside_the_mask(pipe):
    image, mask = picture(100, 75), np.zeros((75, 100), dtype=bool)
    mask[20:50, 30:70] = True
    change = np.abs(pixels(edit(pipe, image, mask=mask)) - pixels(image)).max(axis=2)
    assert not change[~mask].any() and change[mask].any()
