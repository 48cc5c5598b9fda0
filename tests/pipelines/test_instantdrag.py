"""InstantDrag: it keeps the contract; guidance, conditions and flow are the paper's."""

from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.testing import assert_close

import dragstudy
from dragstudy._edit import settable_arguments
from dragstudy._options import check_options, read_pairs
from dragstudy.guidance import GuidanceSchedule, guidance_weight
from dragstudy.models.autoencoder import decode, encode
from dragstudy.models.flowdiffusion import flow_conditions
from dragstudy.models.flowgen import FlowGen
from dragstudy.pipelines import InstantDragPipeline, load
from dragstudy.pipelines.base import make_request
from dragstudy.priors import NoisePrior

from ..tiny import picture, tiny_instantdrag
from .contract import PipelineContract, pixels, seeded

DRAG = {"handle_points": [[30, 30]], "target_points": [[36, 26]]}


class TestInstantDrag(PipelineContract):
    @classmethod
    def make(cls) -> InstantDragPipeline:
        return tiny_instantdrag("concat")

    def test_latents_that_the_callback_returns_are_used(self, pipe):
        given = torch.randn(1, 4, 8, 8, generator=seeded(7))

        def callback(pipeline, step, timestep, tensors):
            assert set(tensors) == {"latents"} and tensors["latents"].shape == given.shape
            return {"latents": given} if step == 2 else {}

        output = self.call(pipe, output_type="pt", callback_on_step_end=callback)
        expected = decode(pipe.autoencoder, given)[0].detach() / 2 + 0.5
        assert_close(output.images[0], expected.clamp(0, 1), atol=1.01 / 255, rtol=0)

    def test_the_callback_gets_the_tensors_it_asks_for(self, pipe):
        def callback(pipeline, step, timestep, tensors):
            assert set(tensors) == {"latents", "conditions"}
            return {"conditions": torch.zeros_like(tensors["conditions"])}

        names = ("latents", "conditions")
        changed = self.call(
            pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names
        ).images[0]
        assert changed.tobytes() != self.call(pipe).images[0].tobytes()

    def test_no_steps_and_too_few_generators_are_refused(self, pipe):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            self.call(pipe, num_inference_steps=0)
        with pytest.raises(ValueError, match="one for each of 1 images, got 2"):
            self.call(pipe, generator=[seeded(0), seeded(1)])


class TestInstantDragSplat(PipelineContract):
    @classmethod
    def make(cls) -> InstantDragPipeline:
        return tiny_instantdrag("splat")


@pytest.fixture(scope="module")
def pipe() -> InstantDragPipeline:
    torch.manual_seed(0)
    return tiny_instantdrag()


def request(mask=None, **drags):
    drags = DRAG | drags
    return make_request(picture(64, 64), drags["handle_points"], drags["target_points"], mask, 64 * 64)


# Flow


def test_the_largest_motion_along_an_axis_is_the_largest_drag(pipe):
    flow = pipe.predict_flow([request(), request(target_points=[[10, 30]])])
    assert_close(flow.abs().amax(dim=(2, 3)), torch.tensor([[6.0, 4.0], [20.0, 0.0]]))


def test_the_flow_of_the_output_is_in_pixels_of_the_input():
    pipe = tiny_instantdrag()
    nn.init.zeros_(pipe.flowgen.ups[0].weight)  # the same motion everywhere, down and to the right
    nn.init.constant_(pipe.flowgen.ups[0].bias, 0.3)
    output = pipe(picture(128, 100), [[60, 60]], [[72, 68]], num_inference_steps=1, generator=seeded())
    assert_close(output.flow[0], torch.tensor([12.0, 8.0]).view(1, 2, 1, 1).expand(1, 2, 100, 128))


def test_the_mask_holds_the_flow_still(pipe):
    mask = np.zeros((64, 64))
    mask[:, 32:] = 1
    flow = pipe.predict_flow([request(mask)])
    assert not flow[..., :32].any() and flow[..., 32:].any()


def test_only_anchors_give_no_flow(pipe):
    assert not pipe.predict_flow([request(target_points=[[30, 30]])]).any()


def test_a_given_flow_takes_the_place_of_flowgen_s(pipe):
    flow = torch.zeros(1, 2, 16, 16)
    flow[:, 0] = 2  # a quarter of its grid's scale, 8 px of the image
    output = pipe(picture(64, 64), **DRAG, flow=flow, num_inference_steps=1, generator=seeded())
    assert_close(output.flow[0][0, :, 20, 20], torch.tensor([8.0, 0.0]))


# Conditions and guidance


def test_conditions_of_the_three_rows_are_nothing_the_image_and_both(pipe):
    flow = pipe.predict_flow([request()])
    nothing, image, both = pipe.prepare_conditions([request()], flow, ((0, 0, 0), (1, 0, 0), (1, 1, 0)))
    latents = pipe.encode_image([request()])
    assert not nothing.any() and not image[:, 4:].any()
    assert_close(image[:, :4], latents)
    assert_close(both, flow_conditions(latents, flow, flow_scale=8.0))


def test_unscaled_image_latents_are_the_autoencoder_s_own(pipe):
    pipe.autoencoder.register_to_config(scaling_factor=0.5)
    scaled = pipe.encode_image([request()])
    pipe.register_to_config(scale_image_latents=False)
    unscaled = pipe.encode_image([request()])
    pipe.register_to_config(scale_image_latents=True)
    pipe.autoencoder.register_to_config(scaling_factor=1.0)
    assert_close(unscaled, 2 * scaled)


def edit(pipe, **options) -> np.ndarray:
    options = {"num_inference_steps": 2, "generator": seeded()} | options
    return pixels(pipe(picture(64, 64), **DRAG, **options).images[0])


def test_scales_of_one_need_one_row_and_give_what_three_rows_give(pipe):
    one = edit(pipe, image_guidance_scale=1.0, flow_guidance_scale=1.0)
    three = edit(pipe, image_guidance_scale=1.0 + 1e-9, flow_guidance_scale=1.0)
    assert np.abs(one - three).max() <= 1


@pytest.mark.parametrize("name", ["image_guidance_scale", "flow_guidance_scale"])
def test_each_scale_matters(pipe, name):
    assert np.abs(edit(pipe) - edit(pipe, **{name: 4.0})).max() > 1


def test_the_flow_form_holds_the_image_condition_always(pipe):
    flow_form = edit(pipe, guidance_form="flow", flow_guidance_scale=2.0)
    assert np.abs(flow_form - edit(pipe, image_guidance_scale=1.0, flow_guidance_scale=2.0)).max() <= 1


# Guidance over time


@pytest.mark.parametrize("scales", [{}, {"flow_guidance_scale": 3.0}, {"guidance_form": "flow"}])
def test_without_a_schedule_the_scale_is_constant(pipe, scales):
    plain = edit(pipe, **scales)
    assert np.array_equal(edit(pipe, guidance_schedule="constant", schedule_time="step", **scales), plain)


def test_no_guidance_is_a_flow_scale_of_one(pipe):
    for image_scale in (1.0, 1.5):
        one = edit(pipe, image_guidance_scale=image_scale, flow_guidance_scale=1.0)
        scales = {"image_guidance_scale": image_scale, "flow_guidance_scale": 4.0}
        assert np.array_equal(edit(pipe, guidance_schedule="none", **scales), one)


def ddim_pipe(zero_snr: bool) -> InstantDragPipeline:
    """The tiny pipeline with a sampler that remembers nothing, and starts at 999."""
    torch.manual_seed(0)
    pipe = tiny_instantdrag()
    changed = {"rescale_betas_zero_snr": zero_snr, "clip_sample": False}
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **changed)
    return pipe


@pytest.mark.parametrize("reading", ["timestep", "step"])
@pytest.mark.parametrize("schedule", ["square", "linear", "inverse_square"])
def test_each_step_is_guided_by_the_schedule_at_its_time(schedule, reading):
    pipe, given = ddim_pipe(zero_snr=True), torch.randn(1, 4, 8, 8, generator=seeded(7))

    def steps_from_given(**options) -> list[torch.Tensor]:
        found = []

        def callback(pipeline, step, timestep, tensors):
            found.append(tensors["latents"])
            return {"latents": given}

        edit(pipe, callback_on_step_end=callback, **options)
        return found

    scheduled = steps_from_given(guidance_schedule=schedule, schedule_time=reading, flow_guidance_scale=50.0)
    constant = steps_from_given(flow_guidance_scale=50.0)
    first, second = (
        guidance_weight(schedule, 50.0, time) for time in ((1, 0.5) if reading == "step" else (0.999, 0.499))
    )
    assert_close(scheduled[0], steps_from_given(flow_guidance_scale=first)[0])
    assert_close(scheduled[1], steps_from_given(flow_guidance_scale=second)[1])
    assert (scheduled[1] - constant[1]).abs().max() > 0.01


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("schedule", get_args(GuidanceSchedule))
def test_scales_of_one_and_less_edit_under_every_schedule(pipe, schedule, scale):
    found = edit(pipe, guidance_schedule=schedule, flow_guidance_scale=scale)
    same = schedule == "none" or scale == 1
    assert np.array_equal(found, edit(pipe, flow_guidance_scale=1.0 if same else scale)) == (
        same or schedule == "constant"
    )


def test_an_unknown_schedule_or_reading_is_refused(pipe):
    with pytest.raises(ValueError, match="none, constant, square, linear, inverse_square, got 'cubic'"):
        edit(pipe, guidance_schedule="cubic")
    with pytest.raises(ValueError, match="schedule_time must be one of timestep, step, got 'sigma'"):
        edit(pipe, schedule_time="sigma")


@pytest.mark.parametrize("method", ["instantdrag", "lightningdrag"])
def test_the_command_line_can_set_schedules_and_priors(method):
    known = settable_arguments(method)
    for name, choices in (("guidance_schedule", GuidanceSchedule), ("noise_prior", NoisePrior)):
        for choice in get_args(choices):
            assert check_options(read_pairs([f"{name}={choice}"]), known, "no") == {name: choice}
        with pytest.raises(ValueError, match=f"{name} must be .*'{get_args(choices)[0]}'.*, got 'other'"):
            check_options({name: "other"}, known, "no")


# Noise priors


def mask_of_a_half() -> np.ndarray:
    mask = np.zeros((64, 64))
    mask[:, 32:] = 1
    return mask


def start(pipe, noise_prior: str, requests=None, generator=None) -> torch.Tensor:
    pipe.scheduler.set_timesteps(4)
    requests = requests or [request()]
    shape = (len(requests), 4, 8, 8)
    return pipe.prepare_latents(shape, seeded() if generator is None else generator, requests, noise_prior)


def test_the_prior_by_default_is_the_noise(pipe):
    assert torch.equal(start(pipe, "random"), torch.randn(1, 4, 8, 8, generator=seeded()))
    assert np.array_equal(edit(pipe, noise_prior="random"), edit(pipe))


def test_the_source_is_noised_to_the_first_timestep_of_the_sampler():
    pipe = ddim_pipe(zero_snr=False)
    pipe.autoencoder.register_to_config(scaling_factor=2.0)
    pipe.register_to_config(scale_image_latents=False)  # the prior is scaled whatever the conditions are
    source = encode(pipe.autoencoder, 2 * request().working_image - 1)
    for spacing, first in (("trailing", 999), ("leading", 750)):
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing=spacing)
        expected = pipe.scheduler.add_noise(source, start(pipe, "random"), torch.tensor([first]))
        assert_close(start(pipe, "source"), expected)


def test_the_mixed_prior_follows_each_image_s_mask():
    pipe = ddim_pipe(zero_snr=False)
    requests = [request(mask_of_a_half()), request()]
    noise, source, mixed = (start(pipe, name, requests) for name in ("random", "source", "mixed"))
    assert torch.equal(mixed[0, ..., 4:], noise[0, ..., 4:])
    assert torch.equal(mixed[0, ..., :4], source[0, ..., :4])
    assert torch.equal(mixed[1], noise[1])  # without a mask everything may change


def test_the_copying_prior_takes_what_is_at_the_handle_to_the_target():
    pipe = ddim_pipe(zero_snr=False)
    drag = request(handle_points=[[19.5, 19.5]], target_points=[[43.5, 35.5]])  # cells (2, 2) and (5, 4)
    source, moved = (start(pipe, name, [drag]) for name in ("source", "copy_paste"))
    assert torch.equal(moved[..., 3:6, 4:7], source[..., 1:4, 1:4])
    anchor = request(target_points=DRAG["handle_points"])
    assert torch.equal(start(pipe, "copy_paste", [anchor]), start(pipe, "source", [anchor]))


@pytest.mark.parametrize("name", ["source", "mixed", "copy_paste"])
def test_a_prior_changes_the_edit_where_the_noise_leaves_something_of_the_source(name):
    pipe, drag = ddim_pipe(zero_snr=False), ([[50, 20]], [[50, 44]], mask_of_a_half())

    def masked(noise_prior: str) -> np.ndarray:
        options = {"generator": seeded(), "num_inference_steps": 2, "noise_prior": noise_prior}
        return pixels(pipe(picture(64, 64), *drag, **options).images[0])

    assert (masked(name) != masked("random")).any()
    assert np.array_equal(masked(name), masked(name))


@pytest.mark.parametrize("name", ["source", "mixed"])
def test_a_prior_is_void_where_the_noise_leaves_nothing(pipe, name):
    exact = ddim_pipe(zero_snr=True)
    assert np.array_equal(edit(exact, noise_prior=name), edit(exact))
    # DPM++ of diffusers keeps a four-thousandth
    assert_close(start(pipe, name), start(pipe, "random"), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["source", "mixed", "copy_paste"])
def test_each_image_of_a_batch_has_the_prior_it_has_alone(name):
    pipe = ddim_pipe(zero_snr=False)
    requests = [request(mask_of_a_half()), request(handle_points=[[5, 5]], target_points=[[50, 30]])]
    batch = start(pipe, name, requests, [seeded(0), seeded(1)])
    for k, one in enumerate(requests):
        assert_close(batch[k : k + 1], start(pipe, name, [one], seeded(k)))


def test_an_unknown_prior_is_refused(pipe):
    with pytest.raises(ValueError, match="random, source, mixed, copy_paste, got 'noised'"):
        edit(pipe, noise_prior="noised")


def test_the_text_form_needs_an_embedding_and_uses_it(pipe):
    with pytest.raises(ValueError, match="prompt_embeds"):
        edit(pipe, guidance_form="image_flow_text")
    null, text = pipe.null_prompt(1), 5 * torch.randn(1, 1, 64, generator=seeded())
    same = edit(pipe, guidance_form="image_flow_text", prompt_embeds=null)
    assert np.abs(same - edit(pipe)).max() <= 1
    assert np.abs(edit(pipe, guidance_form="image_flow_text", prompt_embeds=text) - same).max() > 1


def test_a_callback_may_ask_for_the_pipeline_s_own_tensors_only(pipe):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return {}

    names = ("latents", "conditions")
    edit(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert seen == [{"latents": (1, 4, 8, 8), "conditions": (3, 1, 6, 8, 8)}] * 2
    with pytest.raises(ValueError, match="must be of latents, conditions, denoised, got noise"):
        edit(pipe, callback_on_step_end_tensor_inputs=("latents", "noise"))


def test_an_unknown_form_is_refused(pipe):
    with pytest.raises(ValueError, match="image_flow, flow, image_flow_text, got 'both'"):
        edit(pipe, guidance_form="both")


def test_half_precision_networks_are_fed_half_precision():
    pipe = tiny_instantdrag("splat").to(torch.bfloat16)
    assert edit(pipe).shape == (64, 64, 3)


def test_loading_names_the_methods_and_refuses_the_rest(tmp_path):
    with pytest.raises(ValueError, match="instantdrag, instantdrag-splat, lightningdrag, dragdiffusion"):
        dragstudy.load("magic")
    with pytest.raises(ValueError, match="neither a valid local path"):
        load("instantdrag", weights=tmp_path / "nothing")


def test_a_folder_saved_in_half_precision_is_loaded_by_name_in_single(tmp_path):
    pipe = tiny_instantdrag().to(torch.float16)
    pipe.save_pretrained(tmp_path)
    again = load("instantdrag", weights=tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.dtype == torch.float32
    assert np.abs(edit(again) - edit(pipe.to(torch.float32))).max() <= 1
    assert not any(network.training for network in (again.unet, again.flowgen, again.autoencoder))


def test_flowgen_works_at_a_size_of_its_own():
    pipe = tiny_instantdrag()
    pipe.flowgen = FlowGen(base_channels=8, num_downs=5, norm_groups=4).eval()  # sides in multiples of 32
    out = pipe(picture(100, 75), [[30, 30]], [[36, 28]], num_inference_steps=1, generator=seeded(0))
    assert out.flow[0].shape == (1, 2, 75, 100)
    largest = out.flow[0].abs().amax(dim=(0, 2, 3))  # resizing rounds off the peaks of an untrained flow
    assert (largest > torch.tensor([2.0, 0.7])).all() and (largest < torch.tensor([7.0, 2.5])).all()
