"""InstantDrag: it keeps the contract; guidance, conditions and flow are the paper's."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import dragstudy
from dragstudy.models.autoencoder import decode
from dragstudy.models.flowdiffusion import flow_conditions
from dragstudy.models.flowgen import FlowGen
from dragstudy.pipelines import InstantDragPipeline, load
from dragstudy.pipelines.base import make_request

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
    with pytest.raises(ValueError, match="must be of latents, conditions, got noise"):
        edit(pipe, callback_on_step_end_tensor_inputs=("latents", "noise"))


def test_an_unknown_form_is_refused(pipe):
    with pytest.raises(ValueError, match="image_flow, flow, image_flow_text, got 'both'"):
        edit(pipe, guidance_form="both")


def test_half_precision_networks_are_fed_half_precision():
    pipe = tiny_instantdrag("splat").to(torch.bfloat16)
    assert edit(pipe).shape == (64, 64, 3)


def test_loading_names_the_methods_and_refuses_the_rest(tmp_path):
    with pytest.raises(ValueError, match="instantdrag, instantdrag-splat, dragdiffusion"):
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
