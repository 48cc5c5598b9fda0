"""SDE-Drag: it keeps the contract, its memory leads back exactly, and patches go where they are sent."""

from itertools import chain

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.testing import assert_close

from dragstudy.inversion import CLEAN
from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler
from dragstudy.pipelines.sdedrag import SDEDragPipeline
from dragstudy.pipelines.sdedrag_settings import PRESETS
from dragstudy.sde import copy_and_paste, equal_levels, plan_rounds, remember_noises, sample_with_memory

from ..tiny import picture, tiny_autoencoder, tiny_backbone
from .contract import PipelineContract, seeded


class TestSDEDragPipeline(PipelineContract):
    steps = 4  # two of three steps up, two down, one round
    has_flow = False
    inverts = True

    @classmethod
    def make(cls) -> SDEDragPipeline:
        return make_pipeline()


def make_pipeline() -> SDEDragPipeline:
    pipe = SDEDragPipeline(
        autoencoder=tiny_autoencoder(),
        unet=tiny_backbone(),
        null_prompt=NullPrompt(),
        scheduler=make_ddim_scheduler(),
        working_area=64 * 64,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> SDEDragPipeline:
    torch.manual_seed(0)
    return make_pipeline()


def drag(pipe, handles=([30, 30],), targets=([30, 52],), image=None, **options):
    """An edit in double-quick time, with what the method itself makes of everything."""
    options = {"num_inference_steps": 5, "generator": seeded(), "output_type": "pt"} | options
    return pipe(image or picture(64, 64), handles, targets, **options)


def network(kind: str = "v_prediction", **options):
    """A tiny U-Net as a function, and the scheduler that belongs to it."""
    unet, prompt = tiny_backbone(), NullPrompt()(1)
    scheduler = DDIMScheduler.from_config(make_ddim_scheduler(kind).config, **options)
    return lambda latents, t: unet(latents, t, prompt, return_dict=False)[0], scheduler


def cells(*points) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_memory_leads_back_exactly(kind, generator):
    predict, scheduler = network(kind)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    memory = remember_noises(predict, latents, scheduler, equal_levels(scheduler, 10, 0.6), generator)
    assert len(memory.levels) == len(memory.latents) == len(memory.noises) + 1 == 7
    assert (memory.latents[0] - latents).abs().max() > 1  # it has become noise on the way
    assert_close(sample_with_memory(predict, memory.latents[0], scheduler, memory), latents)


@pytest.mark.parametrize("clean_end", [True, False])
def test_it_leads_back_from_pure_noise_and_where_the_last_step_is_not_random(clean_end, generator):
    predict, scheduler = network(set_alpha_to_one=clean_end)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    memory = remember_noises(predict, latents, scheduler, equal_levels(scheduler, 4, 1.0), generator)
    assert memory.levels == (999, 750, 500, 250, CLEAN) and scheduler.alphas_cumprod[999] == 0
    assert_close(sample_with_memory(predict, memory.latents[0], scheduler, memory), latents)


def test_the_noisy_latents_are_those_of_the_noise_schedule(generator):
    scheduler, latents = make_ddim_scheduler(), torch.full((1, 4, 64, 64), 2.0)
    memory = remember_noises(
        lambda noisy, _: noisy, latents, scheduler, equal_levels(scheduler, 5, 0.6), generator
    )
    for level, noisy in zip(memory.levels[:-1], memory.latents[:-1], strict=True):
        share = scheduler.alphas_cumprod[level] / scheduler.final_alpha_cumprod
        assert_close(noisy.mean(), 2 * share**0.5, atol=0.03, rtol=0)
        assert_close(noisy.var(), 1 - share, atol=0.04, rtol=0)


def test_levels_divide_the_way_to_t0_into_equal_steps():
    scheduler = make_ddim_scheduler()
    assert equal_levels(scheduler, 200, 0.6) == [*range(600, 0, -5), CLEAN]
    assert equal_levels(scheduler, 3, 0.1) == [100, CLEAN]
    assert equal_levels(scheduler, 1000, 1.0) == [*range(999, 0, -1), CLEAN]  # none twice


@pytest.mark.parametrize(
    ("length", "rounds"), [(0.5, 1), (2, 1), (2.5, 1), (2.9, 2), (3.5, 2), (4, 2), (5, 3), (11, 6)]
)
def test_a_drag_takes_about_as_many_rounds_as_it_has_steps(length, rounds):
    plan = plan_rounds(cells([2, 3]), cells([2 + length, 3]), (16, 16), step_length=2, radius=1)
    assert len(plan) == rounds


def test_patches_follow_each_other_from_handle_to_target():
    handles, targets = cells([4, 5], [9, 9], [12, 6]), cells([4, 11], [9, 9], [9, 3])
    plan = plan_rounds(handles, targets, (16, 16), step_length=2, radius=1)
    assert [len(moves) for moves in plan] == [2, 2, 2]  # an anchor is not copied
    assert plan[0][0].source == (slice(4, 7), slice(3, 6)) and plan[-1][0].target == (
        slice(10, 13),
        slice(3, 6),
    )
    for before, after in zip(plan, plan[1:], strict=False):
        assert [move.target for move in before] == [move.source for move in after]


def test_a_patch_is_never_pasted_onto_itself():
    assert plan_rounds(cells([4, 5]), cells([4.3, 5]), (16, 16), step_length=2, radius=1) == [[]]
    plan = plan_rounds(cells([4, 5], [9, 9]), cells([4, 11], [9.8, 9]), (16, 16), step_length=2, radius=1)
    assert [len(moves) for moves in plan] == [1, 2, 1]  # the short drag changes its cell once


@pytest.mark.parametrize("size", [(8, 8), (4, 16), (1, 1)])
@pytest.mark.parametrize("radius", [0, 1, 5])
def test_a_patch_holds_its_point_and_never_leaves_the_latents(size, radius, generator):
    h, w = size
    for _ in range(50):
        ends = torch.rand(2, 1, 2, generator=generator, dtype=torch.float64).round(decimals=1)
        handles, targets = ends * torch.tensor([w, h]) - 0.5  # the rim itself is among them
        for move in chain(*plan_rounds(handles, targets, size, step_length=2, radius=radius)):
            for patch in (move.source, move.target):
                for cut, length in zip(patch, size, strict=True):
                    assert 0 <= cut.start < cut.stop <= length
            shapes = [[cut.stop - cut.start for cut in patch] for patch in (move.source, move.target)]
            assert shapes[0] == shapes[1] and max(shapes[0]) <= 2 * radius + 1


def test_copying_agrees_with_loops_over_cells(generator):
    latents, noise = torch.randn(2, 1, 4, 9, 12, generator=generator)
    plan = plan_rounds(cells([3, 3], [8, 5]), cells([5, 4], [7, 6]), (9, 12), step_length=9, radius=2)
    found = copy_and_paste(latents, plan[0], amplification=1.1, source_share=0.3, noise=noise)
    expected = latents.clone()
    for x, y in ((3, 3), (8, 5)):
        for row in range(y - 2, y + 3):
            for column in range(x - 2, x + 3):
                here = (0, slice(None), row, column)
                expected[here] = 0.3 * latents[here] + (1 - 0.09) ** 0.5 * noise[here]
    for (x, y), (dx, dy) in (((3, 3), (2, 1)), ((8, 5), (-1, 1))):
        for row in range(y - 2, y + 3):
            for column in range(x - 2, x + 3):
                expected[0, :, row + dy, column + dx] = 1.1 * latents[0, :, row, column]
    assert_close(found, expected)


@pytest.mark.parametrize("moving", [True, False])
def test_noises_that_move_bring_the_patch_itself_and_those_in_place_do_not(moving, generator):
    scheduler = make_ddim_scheduler()

    def predict(latents, timestep):  # every cell by itself: nothing but the noises knows the picture
        return 0.3 * latents

    latents = torch.randn(1, 4, 8, 8, generator=generator)
    memory = remember_noises(predict, latents, scheduler, equal_levels(scheduler, 10, 0.6), generator)
    ((move,),) = plan_rounds(cells([2, 2]), cells([5, 3]), (8, 8), step_length=9, radius=1)
    noise = torch.randn(latents.shape, generator=generator)
    pasted = copy_and_paste(memory.latents[0], [move], amplification=1.0, source_share=0.3, noise=noise)
    moves = [move] if moving else []
    found = sample_with_memory(predict, pasted, scheduler, memory, moves=moves)
    arrived = (found[..., *move.target] - latents[..., *move.source]).abs().max()
    assert (arrived < 1e-5) == moving
    untouched = torch.ones(8, 8, dtype=torch.bool)
    untouched[move.source] = untouched[move.target] = False
    assert_close(found[..., untouched], latents[..., untouched])


def test_a_drag_of_length_zero_gives_the_autoencoder_s_copy_and_runs_no_step(pipe):
    def callback(*_):
        raise AssertionError("a step was run")

    image, point = picture(100, 75), [[40, 30], [0, 74]]
    found = drag(pipe, point, point, image, callback_on_step_end=callback, lora_steps=3).images[0]
    requests, _ = pipe.check_inputs(image, point, point, None, pipe.config.working_area)
    expected = pipe.finish(requests, pipe.reconstruct(requests), None, "pt", True).images[0]
    assert torch.equal(found, expected)


def test_without_a_patch_every_cell_returns(pipe, generator):
    """The whole edit but for its copying: with nothing changed at t0, the photograph's latents are back."""
    (request,), _ = pipe.check_inputs(picture(64, 64), [[30, 30]], [[30, 50]], None, 64 * 64)
    levels, seen = equal_levels(pipe.scheduler, 20, 0.6), []
    settings, steps = PRESETS["code"], _Silent(seen)
    latents = pipe.edit(request, [[], []], settings, levels, None, steps, generator)
    assert_close(latents, pipe.encode_image(request), atol=1e-5, rtol=1e-5)
    assert len(seen) == 2 * 2 * 12


class _Silent:
    """Steps that nobody looks at."""

    interrupted = False

    def __init__(self, seen: list):
        self.seen = seen

    def end(self, phase, timestep, latents):
        self.seen.append((phase, timestep))
        return latents


@pytest.mark.parametrize("preset", ["code", "tiny"])
def test_what_the_mask_protects_keeps_the_photograph_s_latents_and_so_does_an_anchor(pipe, preset):
    mask = np.zeros((64, 64))
    mask[16:, 24:] = 1
    handles, targets = [[36, 30], [44, 36]], [[36, 52], [44, 36]]
    (request,), _ = pipe.check_inputs(picture(64, 64), handles, targets, mask, 64 * 64)
    kept = []
    drag(
        pipe,
        handles,
        targets,
        mask=mask,
        preset=preset,
        callback_on_step_end=lambda p, step, t, given: kept.append((int(t), given["latents"])),
    )
    expected = pipe.encode_image(request)
    changed = (kept[-1][1] != expected).any(dim=1)[0]
    assert kept[-1][0] == CLEAN and not changed[:2].any() and not changed[:, :3].any()
    assert changed.sum() > 10 and not changed[4, 5]


def test_outside_of_the_mask_stands_what_was_asked_for(pipe):
    mask = np.zeros((64, 64), dtype=bool)
    mask[24:, 24:] = True
    (request,), _ = pipe.check_inputs(picture(64, 64), [[30, 30]], [[30, 52]], mask, 64 * 64)
    copy = pipe.finish([request], pipe.reconstruct([request]), None, "pt", True, composited=False).images[0]
    images = {
        choice: drag(pipe, mask=mask, outside_mask=choice).images[0]
        for choice in ("photograph", "autoencoder", "method")
    }
    outside = torch.from_numpy(~mask)
    assert torch.equal(images["photograph"][:, outside], request.working_image[0][:, outside])
    assert torch.equal(images["autoencoder"][:, outside], copy[:, outside])
    far = slice(0, 4)  # the decoder looks a few cells beyond what changed
    assert_close(images["method"][:, far, far], copy[:, far, far], atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="outside_mask must be one of"):
        drag(pipe, outside_mask="nothing")


def test_an_interrupted_edit_is_what_the_last_whole_round_made(pipe):
    latents, calls = [], []

    def stop_at(step):
        def callback(pipeline, number, timestep, given):
            calls.append(number)
            latents.append(given["latents"])
            pipeline._interrupt = number == step

        return callback

    handles, targets = [[10, 10]], [[42, 10]]  # four cells: two rounds of three steps up and three down
    drag(pipe, handles, targets, callback_on_step_end=stop_at(None))
    assert calls == list(range(12))
    first_round = pipe.decode_latents(latents[5])[0]
    for step in (6, 10):
        calls.clear()
        found = drag(pipe, handles, targets, callback_on_step_end=stop_at(step)).images[0]
        assert calls[-1] == step
        assert_close(found, first_round, atol=1.01 / 255, rtol=0)


def test_guidance_needs_a_text_and_grows_from_the_picture_on(pipe, generator):
    plain = drag(pipe).images[0]
    assert torch.equal(drag(pipe, guidance_scale=7.0).images[0], plain)
    text = torch.randn(1, 3, 64, generator=generator)
    unguided, guided = (drag(pipe, prompt_embeds=text, guidance_scale=s).images[0] for s in (1.0, 7.0))
    assert not torch.equal(unguided, plain) and not torch.equal(guided, unguided)


def test_a_lora_is_trained_once_fades_towards_the_noise_and_leaves_no_trace(pipe, monkeypatch, tmp_path):
    monkeypatch.setenv("DRAGSTUDY_CACHE", str(tmp_path))
    weights = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    calls, options = [], {"lora_steps": 2, "lora_rank": 2}
    options["callback_on_step_end"] = lambda *step: calls.append(step[1])
    first = drag(pipe, **options).images[0]
    assert len(calls) == 2 + 2 * 3 * 2  # two rounds of three steps up and three down
    calls.clear()
    assert torch.equal(drag(pipe, **options).images[0], first) and len(calls) == 2 * 3 * 2
    assert not torch.equal(first, drag(pipe).images[0])
    assert not torch.equal(first, drag(pipe, **options, lora_scale=1.0).images[0])
    assert all(torch.equal(weight, weights[name]) for name, weight in pipe.unet.state_dict().items())


@pytest.mark.parametrize(
    ("handle", "target"), [([0, 0], [63, 63]), ([-0.5, 63.5], [63.5, 63.5]), ([63, 0], [63, 1])]
)
@pytest.mark.parametrize("preset", ["code", "tiny"])
def test_points_at_the_border_are_dragged(pipe, preset, handle, target):
    assert drag(pipe, [handle], [target], preset=preset).images[0].isfinite().all()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_its_values_can_be_replaced(pipe, preset):
    quick = {"preset": preset, "lora_steps": 0}
    again = drag(pipe, **quick, radius=None).images[0]
    assert torch.equal(drag(pipe, **quick).images[0], again)
    assert not torch.equal(drag(pipe, **quick, radius=0).images[0], again)


def test_the_presets_are_those_of_the_table():
    known = {name: (preset.lora_steps, preset.num_inference_steps) for name, preset in PRESETS.items()}
    assert {name: known[name] for name in ("50s", "20s", "10s", "5s")} == {
        "50s": (100, 100),
        "20s": (40, 40),
        "10s": (0, 40),
        "5s": (0, 20),
    }


BAD = {
    "preset": ("fast", "preset must be one of paper, code"),
    "strength": (1.5, r"\(0, 1\]"),
    "step_length": (0.0, "step_length must be more than 0"),
    "radius": (-1, "radius must not be negative"),
    "amplification": (-0.5, "amplification must not be negative"),
    "source_share": (1.2, r"source_share must lie in \[0, 1\]"),
    "guidance_scale": (0.5, "guidance_scale must be at least 1"),
    "lora_steps": (-3, "lora_steps must not be negative"),
    "lora_rank": (0, "lora_rank must be at least 1"),
    "num_inference_steps": (0, "num_inference_steps must be in 1..1000"),
    "generator": ([seeded(), seeded()], "one for each of 1 images"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_setting_that_cannot_be_used_is_refused(pipe, name):
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        drag(pipe, **{name: value})
