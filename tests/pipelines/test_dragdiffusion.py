"""DragDiffusion: it keeps the contract, drags latents, honours masks, and its presets are the published."""

import gc

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.features import unet_features
from dragstudy.inversion import ddim_levels
from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler
from dragstudy.pipelines.base import make_request
from dragstudy.pipelines.dragdiffusion import DragDiffusionPipeline, _points
from dragstudy.pipelines.dragdiffusion_settings import PRESETS
from dragstudy.supervision import patch_features

from ..tiny import picture, tiny_autoencoder, tiny_backbone
from .contract import STEP, PipelineContract, pixels, seeded

QUICK = {"lora_steps": 0, "iterations": 3, "num_inference_steps": 3, "inversion_strength": 0.7}


def make(prediction: str = "v_prediction") -> DragDiffusionPipeline:
    pipe = DragDiffusionPipeline(
        autoencoder=tiny_autoencoder(),
        unet=tiny_backbone(),
        null_prompt=NullPrompt(),
        scheduler=make_ddim_scheduler(prediction),
        working_area=64 * 64,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAGSTUDY_CACHE", str(tmp_path))


class TestDragDiffusionPipeline(PipelineContract):
    steps = 2 + 3 + 2  # inversion, dragging, denoising
    is_random = False
    has_flow = False
    inverts = True

    @classmethod
    def make(cls) -> DragDiffusionPipeline:
        return make()

    def call(self, pipe, image=None, **options):
        quick = {name: QUICK[name] for name in ("lora_steps", "iterations", "inversion_strength")}
        return super().call(pipe, image, **({"stop_distance": 0.0} | quick | options))


@pytest.fixture(scope="module")
def pipe() -> DragDiffusionPipeline:
    torch.manual_seed(0)
    return make()


def edit(pipe, **options):
    drag = {"handle_points": [[30, 30]], "target_points": [[44, 30]]}
    return pipe(picture(64, 64), **(drag | QUICK | options))


def test_a_drag_of_length_zero_gives_what_the_autoencoder_gives(pipe):
    output = edit(pipe, target_points=[[30, 30]], output_type="pt", preset="paper")
    request = make_request(picture(64, 64), [[30, 30]], [[30, 30]], None, 64 * 64)
    assert_close(output.images[0], pipe.reconstruct([request])[0], atol=STEP, rtol=0)
    assert_close(output.handle_points[0], np.array([[30.0, 30.0]]))


def test_outside_the_mask_stands_what_was_asked_for(pipe):
    mask = np.zeros((64, 64))
    mask[20:44, 20:52] = 1
    image = picture(64, 64)
    copy = pixels(
        edit(pipe, target_points=[[30, 30]]).images[0]
    )  # nothing moves: what the autoencoder makes of the photograph
    results = {
        kind: pixels(edit(pipe, mask=mask, outside_mask=kind).images[0])
        for kind in ("photograph", "autoencoder", "method")
    }
    outside = mask == 0
    assert np.array_equal(results["photograph"][outside], pixels(image)[outside])
    assert np.array_equal(results["autoencoder"][outside], copy[outside])
    assert not np.array_equal(results["method"][outside], copy[outside])
    assert np.array_equal(results["autoencoder"][~outside], results["method"][~outside])
    with pytest.raises(ValueError, match="outside_mask"):
        edit(pipe, outside_mask="nothing")


def test_the_mask_term_holds_latents_outside_of_it(pipe):
    mask = np.zeros((64, 64))
    mask[16:48, 16:48] = 1
    options = {"mask": mask, "outside_mask": "method", "iterations": 20, "learning_rate": 0.1}
    still = pixels(edit(pipe, target_points=[[30, 30]]).images[0])
    outside = mask == 0
    free, held = (
        np.abs(pixels(edit(pipe, mask_weight=weight, stop_distance=0.0, **options).images[0]) - still)[
            outside
        ].mean()
        for weight in (0.0, 1.0)
    )
    assert held < 0.6 * free


def test_dragging_brings_the_handle_s_features_to_the_target(pipe):
    """The patch at the target comes closer to the photograph's at the handle, iteration by iteration."""
    pull = {"supervision_reference": "initial", "supervision_step": 100.0, "stop_distance": 0.0}
    handle, target = [[30.0, 30.0]], [[40.0, 30.0]]
    request = make_request(picture(64, 64), handle, target, None, 64 * 64)
    level, seen = ddim_levels(pipe.scheduler, 3, 0.7)[0], {}

    def patch(latents, points):
        found = unet_features(pipe.unet, latents, level, pipe.prompts(None), ["up_blocks.2"])["up_blocks.2"]
        large = torch.nn.functional.interpolate(found, (32, 32), mode="bilinear")
        return patch_features(large, _points(np.array(points), request), 1)

    edit(
        pipe,
        handle_points=handle,
        target_points=target,
        iterations=30,
        callback_on_step_end=lambda pipe, step, t, tensors: seen.update({step: tensors["latents"]}),
        **pull,
    )
    with torch.no_grad():
        wanted = patch(seen[1], handle)
        distances = [(patch(seen[1 + k], target) - wanted).abs().sum().item() for k in (0, 5, 30)]
    assert distances[0] > 1.1 * distances[1] > 1.2 * distances[2]


@pytest.mark.parametrize(
    "switch",
    [
        {"optimizer": "gradient"},
        {"loss_reduction": "sum", "mask": np.eye(64)},
        {"supervision_reference": "initial"},
        {"supervision_step": 3.0},
        {"supervision_radius": 3},
        {"tracking_radius": 0},
        {"tracking_reference": "current"},
        {"feature_block": "up_blocks.3"},
        {"mutual_attention_blocks": ()},
        {"learning_rate": 0.1},
    ],
    ids=lambda switch: next(iter(switch)),
)
def test_every_switch_does_something(pipe, switch):
    options = {"iterations": 8, "stop_distance": 0.0, "learning_rate": 0.05, "output_type": "pt"}
    options |= {"mask": switch.get("mask"), "outside_mask": "method"}
    first, other = (edit(pipe, **one).images[0] for one in (options, options | switch))
    assert (first - other).abs().max() > 0


def test_an_interrupted_batch_ends_and_gives_pictures_back(pipe):
    calls = []

    def callback(pipeline, step, timestep, tensors):
        calls.append(step)
        pipeline._interrupt = True

    still = edit(pipe, target_points=[[30, 30]]).images[0].tobytes()
    points = {"handle_points": [[[30, 30]]] * 3, "target_points": [[[40, 30]]] * 3}
    output = pipe([picture(64, 64)] * 3, **points, **QUICK | {"lora_steps": 2}, callback_on_step_end=callback)
    assert calls == [0] and [image.tobytes() for image in output.images] == [still] * 3


def test_the_trajectory_starts_at_the_handles_and_ends_where_they_are_now(pipe):
    output = edit(pipe, iterations=5, stop_distance=0.0)
    track = output.trajectories[0]
    assert track.shape == (6, 1, 2)
    assert_close(track[0], np.array([[30.0, 30.0]]))
    assert_close(track[-1], output.handle_points[0])


def test_it_stops_when_all_have_arrived(pipe):
    calls = []
    output = edit(
        pipe,
        target_points=[[31, 30]],
        iterations=50,
        stop_distance=4.0,
        callback_on_step_end=lambda pipe, step, t, tensors: calls.append(step),
    )
    assert len(output.trajectories[0]) == 2  # looked at once more, and found arrived
    assert len(calls) == 2 + 1 + 2


def test_memory_does_not_grow_with_the_iterations(pipe):
    alive = {}

    def callback(pipeline, step, timestep, tensors):
        found = [one for one in gc.get_objects() if type(one) is torch.Tensor]
        alive[step] = sum(one.untyped_storage().nbytes() for one in found)

    edit(pipe, iterations=30, stop_distance=0.0, callback_on_step_end=callback)
    early, late = alive[2 + 3], alive[2 + 28]
    assert late - early < 4096  # of the track: two numbers an iteration


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_takes_u_nets_of_either_kind_of_prediction(prediction):
    assert edit(make(prediction)).images[0].size == (64, 64)


def test_the_lora_is_trained_once_for_a_photograph(pipe):
    calls = []

    def callback(pipe, step, timestep, tensors):
        calls.append(int(timestep))

    options = {"lora_steps": 2, "callback_on_step_end": callback}
    first = edit(pipe, **options).images[0].tobytes()
    assert calls.count(-1) == 2 + 1  # two of the LoRA, and the last denoising step
    calls.clear()
    edit(pipe, target_points=[[20, 20]], **options)
    assert calls.count(-1) == 1
    assert edit(pipe, **options).images[0].tobytes() == first
    assert edit(pipe).images[0].tobytes() != first


@pytest.mark.parametrize("last", range(2 + 2 + 3 + 2))
def test_interrupting_any_phase_ends_the_call(pipe, last):
    calls = []

    def callback(pipeline, step, timestep, tensors):
        calls.append(step)
        pipeline._interrupt = step == last

    output = edit(pipe, lora_steps=2, stop_distance=0.0, callback_on_step_end=callback)
    assert calls == [*range(last + 1)]
    assert output.images[0].size == (64, 64) and len(output.trajectories[0])


def test_presets_are_the_published_ones():
    paper, code = PRESETS["paper"], PRESETS["code"]
    assert (paper.lora_steps, paper.lora_learning_rate, paper.inversion_strength) == (200, 2e-4, 0.8)
    assert (code.lora_steps, code.lora_learning_rate, code.inversion_strength) == (80, 5e-4, 0.7)
    assert (paper.loss_reduction, code.loss_reduction) == ("sum", "mean")
    assert (paper.tracking_reference, code.tracking_reference) == ("current", "initial")
    assert not paper.mutual_attention_blocks and code.mutual_attention_blocks
    table = {
        "75s": (80, 80, 50),
        "50s": (40, 80, 20),
        "20s": (20, 30, 10),
        "10s": (0, 10, 4),
        "5s": (0, 5, 2),
    }
    for name, row in table.items():
        preset = PRESETS[name]
        assert (preset.lora_steps, preset.iterations, preset.num_inference_steps) == row


@pytest.mark.parametrize(
    "bad",
    [
        {"preset": "best"},
        {"tracking_reference": "last"},
        {"loss_reduction": "max"},
        {"iterations": -1},
        {"inversion_strength": 0.0},
        {"num_inference_steps": 0},
        {"feature_block": "up_blocks.9"},
        {"mutual_attention_blocks": ("nope",)},
        {"learning_rate": -0.1},
        {"supervision_step": -1.0},
        {"generator": [seeded(), seeded()]},
    ],
)
def test_bad_settings_are_refused(pipe, bad):
    with pytest.raises((TypeError, ValueError)) as error:
        edit(pipe, **bad)
    assert "\n" not in str(error.value) or error.type is not ValueError


def test_an_anchor_among_drags_is_held(pipe):
    """Its patch ends closer to the photograph's features than without it."""
    drag, anchor = [[30.0, 30.0], [40.0, 30.0]], [44.0, 30.0]
    request = make_request(picture(64, 64), [anchor], [anchor], None, 64 * 64)
    level = ddim_levels(pipe.scheduler, 3, 0.7)[0]

    def features(latents):
        found = unet_features(pipe.unet, latents, level, pipe.prompts(None), ["up_blocks.2"])["up_blocks.2"]
        large = torch.nn.functional.interpolate(found, (32, 32), mode="bilinear")
        return patch_features(large, _points(request.working_drags.handle_points, request), 1)

    def change(*handles_and_targets) -> float:
        seen = {}
        edit(
            pipe,
            handle_points=handles_and_targets[0],
            target_points=handles_and_targets[1],
            iterations=15,
            stop_distance=0.0,
            callback_on_step_end=lambda pipe, step, t, tensors: seen.update({step: tensors["latents"]}),
        )
        return (features(seen[1 + 15]) - features(seen[1])).abs().sum().item()

    with torch.no_grad():
        alone, anchored = change([drag[0]], [drag[1]]), change([drag[0], anchor], [drag[1], anchor])
    assert anchored < 0.8 * alone
