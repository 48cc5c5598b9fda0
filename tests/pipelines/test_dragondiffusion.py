"""DragonDiffusion: the contract, five tasks that change what they should, guidance, visual attention."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import dragstudy
from dragstudy.attention import self_attention_layers
from dragstudy.inversion import clean_and_noise, ddim_levels, ddim_step, invert
from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler
from dragstudy.pipelines.base import make_request
from dragstudy.pipelines.dragon_guidance import Guidance, visual_cross_attention
from dragstudy.pipelines.dragon_sampler import guided_step
from dragstudy.pipelines.dragon_settings import PRESETS, DragonSettings
from dragstudy.pipelines.dragondiffusion import DragonDiffusionPipeline
from dragstudy.pipelines.object_masks import Placement, drag_regions, object_regions

from ..tiny import picture, tiny_autoencoder, tiny_backbone
from .contract import PipelineContract, pixels, seeded

DRAG = {"handle_points": [[20, 24]], "target_points": [[30, 24]]}
SETTINGS = {"num_inference_steps": 4, "learning_rate": 1000.0, "output_type": "pt"}


def make(prediction_type: str = "v_prediction", preset: str = "paper") -> DragonDiffusionPipeline:
    torch.manual_seed(0)
    pipe = DragonDiffusionPipeline(
        autoencoder=tiny_autoencoder(),
        unet=tiny_backbone(),
        null_prompt=NullPrompt(),
        scheduler=make_ddim_scheduler(prediction_type),
        working_area=64 * 64,
        preset=preset,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class TestDragonDiffusion(PipelineContract):
    steps = 6  # three up, three down
    is_random = False
    has_flow = False
    inverts = True

    @classmethod
    def make(cls) -> DragonDiffusionPipeline:
        return make()


class TestTheAuthorsCode(TestDragonDiffusion):
    is_random = True  # regional SDE

    def call(self, pipe, image=None, **options):
        return super().call(pipe, image, **({"preset": "code", "sde_strength": 1.0} | options))


@pytest.fixture(scope="module")
def pipe() -> DragonDiffusionPipeline:
    return make()


def disc(width: int, height: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2).astype(np.float32)


def drag(pipe: DragonDiffusionPipeline, mask: np.ndarray | None = None, **options) -> torch.Tensor:
    return pipe(picture(64, 64), **DRAG, mask=mask, **(SETTINGS | options)).images[0]


OBJECT = disc(64, 64, (24, 30), 9)
OTHER = disc(96, 64, (60, 30), 12)
TASKS = {
    "move": lambda pipe, **o: pipe.move(picture(64, 64), OBJECT, (16, 4), **o),
    "resize": lambda pipe, **o: pipe.resize(picture(64, 64), OBJECT, 1.5, **o),
    "appearance": lambda pipe, **o: pipe.replace_appearance(
        picture(64, 64), OBJECT, picture(96, 64, 3.0), OTHER, **o
    ),
    "paste": lambda pipe, **o: pipe.paste(
        picture(64, 64), picture(96, 64, 3.0), OTHER, (40, 30), scale=0.75, **o
    ),
}
CHANGED = {  # what a task has to change
    "move": np.maximum(OBJECT, disc(64, 64, (40, 34), 9)),
    "resize": disc(64, 64, (24, 30), 13.5),
    "appearance": OBJECT,
    "paste": disc(64, 64, (40, 30), 9),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", ["paper", "code"])
def test_each_task_changes_its_places_and_no_byte_elsewhere(pipe, task, preset):
    edited = TASKS[task](pipe, preset=preset, generator=seeded(), **SETTINGS).images[0]
    change = (edited * 255 - torch.from_numpy(pixels(picture(64, 64))).permute(2, 0, 1)).abs().amax(dim=0)
    changed = torch.from_numpy(CHANGED[task]) > 0
    assert (change[changed] > 0.5).float().mean() > 0.9
    far = torch.from_numpy(_distance(CHANGED[task]) > 10)  # the margin, and its rounding
    assert far.any() and change[far].max() < 1e-3


def _distance(mask: np.ndarray) -> np.ndarray:
    """Of each pixel to a mask."""
    places = np.argwhere(mask > 0)
    grid = np.argwhere(np.ones_like(mask))
    return np.linalg.norm(grid[:, None] - places[None], axis=2).min(axis=1).reshape(mask.shape)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_deterministic_and_reads_its_own_mask(pipe, task):
    first, again = (TASKS[task](pipe, **SETTINGS).images[0] for _ in range(2))
    assert torch.equal(first, again)
    mask = np.zeros((64, 64))
    mask[20:50, 15:50] = 1
    edited = TASKS[task](pipe, mask=mask, output_type="np", num_inference_steps=2).images[0]
    change = np.abs(edited.astype(int) - pixels(picture(64, 64))).max(axis=2)
    assert not change[mask == 0].any() and change[mask > 0].any()


def test_what_moves_nowhere_is_the_autoencoder_s_picture(pipe):
    points = [[20, 24], [40, 40]]
    anchors = pipe(picture(64, 64), points, points, **SETTINGS).images[0]
    request = pipe.check_inputs(picture(64, 64), points, points, None, 64 * 64)[0]
    copy = pipe.reconstruct(request)[0]
    assert_close(anchors, copy, atol=0.51 / 255, rtol=0)
    still = {"outside_mask": "method", **SETTINGS}
    assert_close(pipe.move(picture(64, 64), OBJECT, (0, 0), **still).images[0], anchors)
    assert_close(pipe.resize(picture(64, 64), OBJECT, 1.0, **still).images[0], anchors)


def test_outside_the_mask_stands_the_photograph_the_autoencoder_s_picture_or_the_method_s(pipe):
    mask = disc(64, 64, (25, 24), 16)
    kept = torch.from_numpy(mask == 0)
    photo = torch.from_numpy(pixels(picture(64, 64))).permute(2, 0, 1) / 255
    copy = pipe(picture(64, 64), DRAG["handle_points"], DRAG["handle_points"], **SETTINGS).images[0]
    by_kind = {kind: drag(pipe, mask, outside_mask=kind) for kind in ("photograph", "autoencoder", "method")}
    assert_close(by_kind["photograph"][:, kept], photo[:, kept], atol=1e-6, rtol=0)
    assert torch.equal(by_kind["autoencoder"][:, kept], copy[:, kept])
    assert (by_kind["method"][:, kept] - copy[:, kept]).abs().max() > 1 / 255
    with pytest.raises(ValueError, match="photograph, autoencoder, method"):
        drag(pipe, outside_mask="nothing")


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_without_guided_steps_the_photograph_comes_back(prediction_type):
    pipe = make(prediction_type)
    nn.init.normal_(pipe.unet.conv_out.weight, std=1e-3)  # as smooth as a trained network over a short step
    copy = pipe(picture(64, 64), DRAG["handle_points"], DRAG["handle_points"], **SETTINGS).images[0]
    found = drag(pipe, num_inference_steps=20, guided_share=0.0)
    assert (found - copy).abs().mean() < 0.03
    assert (drag(pipe, num_inference_steps=20) - copy).abs().mean() > 2 * (found - copy).abs().mean()


def guidance_of(pipe, steps: int = 10, **settings) -> Guidance:
    """Guidance of the drag, with the photograph's own inverted latents."""
    mask = disc(64, 64, (25, 24), 18)
    request = pipe.check_inputs(picture(64, 64), **DRAG, mask=mask, working_area=64 * 64)[0][0]
    levels = ddim_levels(pipe.scheduler, steps)
    bank = invert(pipe.unet, pipe.encode_image(request), pipe.prompts(None), pipe.scheduler, levels)
    chosen = DragonSettings(**settings)
    return Guidance(pipe.unet, pipe.prompts(None), drag_regions(request), chosen, bank, bank)


def test_the_energy_falls_along_the_gradient_and_under_guidance(pipe):
    guidance = guidance_of(pipe)
    latents = guidance.photograph.latents[5]
    before = sum(guidance.energies(latents, 5))
    gradient = guidance.gradient(latents, 5)
    small = 0.1 * latents.norm() / gradient.norm()
    assert sum(guidance.energies(latents - small * gradient, 5)) < before

    energies, mask = {}, disc(64, 64, (25, 24), 18)
    for rate in (0.0, 10.0):
        seen = []

        def callback(pipeline, step, timestep, tensors, seen=seen):
            seen.append(tensors["latents"])
            return {}

        options = {"num_inference_steps": 10, "learning_rate": rate, "callback_on_step_end": callback}
        drag(pipe, mask, unguided_direction=True, **options)
        last = 5  # of the guided steps, after the ten of the inversion
        energies[rate] = sum(guidance.energies(seen[10 + last], last + 1)).item()
    assert energies[10.0] < energies[0.0]


def test_the_gradient_is_the_directional_derivative(pipe):
    guidance = guidance_of(pipe, contrast_weight=0.2)
    latents = guidance.photograph.latents[4]
    direction = torch.randn(latents.shape, generator=seeded())
    ends = [sum(guidance.energies(latents + s * 1e-2 * direction, 4)).item() for s in (1, -1)]
    slope = (guidance.gradient(latents, 4) * direction).sum().item()
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=0.05, abs=1e-5)


def test_separate_gradients_act_inside_by_the_edit_and_outside_by_the_rest(pipe):
    inside = guidance_of(pipe).regions.inside[None, None].expand(1, 4, -1, -1)
    both = guidance_of(pipe, separate_gradients=True)
    latents = both.photograph.latents[4]
    edit_only = guidance_of(pipe, content_weight=0.0)
    content_only = guidance_of(pipe, edit_weight=0.0)
    found = both.gradient(latents, 4)
    assert_close(found[inside], edit_only.gradient(latents, 4)[inside])
    assert_close(found[~inside], content_only.gradient(latents, 4)[~inside])


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_a_guided_step_adds_the_gradient_to_the_predicted_noise(prediction_type):
    scheduler = make_ddim_scheduler(prediction_type)
    level, to = 501, 481
    predicted, latents, gradient = torch.randn(3, 1, 4, 2, 2, generator=seeded(), dtype=torch.float64)
    clean, noise = clean_and_noise(scheduler, predicted, latents, level)
    before, after = (float(scheduler.alphas_cumprod[t]) for t in (level, to))
    guided = (latents - (1 - before) ** 0.5 * (noise + gradient)) / before**0.5
    for unguided, direction in ((True, noise), (False, noise + gradient)):
        expected = after**0.5 * guided + (1 - after) ** 0.5 * direction
        found = guided_step(scheduler, predicted, latents, level, to, gradient, unguided_direction=unguided)
        assert_close(found, expected)
    plain = guided_step(scheduler, predicted, latents, level, to, None)
    assert torch.equal(plain, ddim_step(scheduler, predicted, latents, level, to))


def test_a_guided_step_takes_new_noise_where_eta_says():
    scheduler = make_ddim_scheduler()
    predicted, latents, gradient, noise = torch.randn(4, 1, 4, 2, 2, generator=seeded())
    eta = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    new = guided_step(scheduler, predicted, latents, 501, 481, gradient, eta=eta, noise=noise)
    old = guided_step(scheduler, predicted, latents, 501, 481, gradient)
    changed = (new != old).any(dim=1)[0]
    assert changed.tolist() == [[True, False], [False, False]]


def test_visual_attention_replaces_or_adds_what_the_memory_holds(pipe):
    key, value = torch.randn(2, 2, 16, 8, generator=seeded())
    own, other = ({"layer": tuple(torch.randn(2, 1, n, 8, generator=seeded(n)))} for n in (16, 16))
    regions = drag_regions(pipe.check_inputs(picture(64, 64), **DRAG, mask=None, working_area=64 * 64)[0][0])
    replace = visual_cross_attention(own, None, regions, DragonSettings())
    query, keys, values = replace("layer", key, key, value)
    assert query is key and torch.equal(keys, own["layer"][0].expand(2, -1, -1))
    assert torch.equal(values, own["layer"][1].expand(2, -1, -1))
    beside = visual_cross_attention(own, None, regions, DragonSettings(visual_attention="concatenate"))
    assert torch.equal(beside("layer", key, key, value)[1][:, :16], key)
    assert beside("layer", key, key, value)[1].shape == (2, 32, 8)
    two = visual_cross_attention(own, other, regions, DragonSettings())
    assert two("layer", key, key, value)[1].shape == (2, 32, 8)


def test_of_two_pictures_the_object_of_one_and_the_rest_of_the_other_are_attended_to(pipe):
    request = pipe._request(picture(64, 64), OBJECT)
    guide = pipe._request(picture(96, 64, 3.0), OTHER)
    placement = Placement(np.array([60.0, 30.0]), np.array([40.0, 30.0]))
    regions = object_regions(request, OTHER, placement, guide.fit, moved=False)
    tokens = torch.arange(64.0).view(1, 64, 1)  # both are worked at as 64 x 64
    there = tokens
    settings = DragonSettings(attention_regions=True)
    exchange = visual_cross_attention(
        {"layer": (tokens, tokens)}, {"layer": (1000 + there, there)}, regions, settings
    )
    _, keys, _ = exchange("layer", tokens, tokens, tokens)
    mine, theirs = keys[keys < 1000], keys[keys >= 1000]
    assert 3 * 8 + 4 not in mine.tolist() and 0 in mine.tolist()  # where the object goes, and a corner
    assert len(theirs) < 30


def test_the_memory_is_asked_for_where_attention_uses_it(pipe, monkeypatch):
    asked = []
    inner = pipe.invert

    def spy(*args, **options):
        asked.append(options["attention_layers"])
        return inner(*args, **options)

    monkeypatch.setattr(pipe, "invert", spy)
    drag(pipe, num_inference_steps=2)
    drag(pipe, num_inference_steps=2, visual_attention="none")
    assert asked == [self_attention_layers(pipe.unet, ("up_blocks",)), []]


@pytest.mark.parametrize(
    "change",
    [
        {"inversion_prior": False, "generator": seeded()},
        {"content_weight": 0.0},
        {"visual_attention": "none"},
        {"feature_blocks": ("up_blocks.1",)},
        {"feature_interpolation": "nearest"},
        {"edit_weight": 0.0},
        {"copy_start": True},
        {"contrast_weight": 5.0},
        {"unguided_direction": True},
        {"time_travel": 3},
        {"round_points": True},
        {"inversion_strength": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_switch_does_something(pipe, change):
    given = {"handle_points": [[20, 24], [30, 30]], "target_points": [[29, 24], [26, 32]]}
    options = SETTINGS | {"mask": disc(64, 64, (25, 24), 18), "outside_mask": "method"}
    first, other = (
        pipe(picture(64, 64), **given, **(options | switched)).images[0] for switched in ({}, change)
    )
    assert (first - other).abs().max() > 0.5 / 255


def test_a_prompt_guides_and_without_one_its_scale_is_nothing(pipe):
    assert torch.equal(drag(pipe), drag(pipe, guidance_scale=9.0))
    prompt = 5 * torch.randn(1, 1, 64, generator=seeded())
    first, more = (drag(pipe, prompt_embeds=prompt, guidance_scale=scale) for scale in (1.0, 7.0))
    assert not torch.equal(first, more)


def test_a_pipeline_may_have_a_preset_of_its_own_which_a_call_overrides(pipe):
    own = make(preset="tiny")
    options = SETTINGS | {"learning_rate": None}
    assert torch.equal(drag(own, **options), drag(pipe, preset="tiny", **options))
    assert torch.equal(drag(own, preset="paper", **options), drag(pipe, **options))


def test_the_shipped_weights_come_with_their_preset():
    assert dragstudy.load("dragondiffusion").config.preset == "tiny"


def test_the_edit_energy_is_the_mean_over_drags(pipe):
    guidance, energies = guidance_of(pipe), []
    latents = guidance.photograph.latents[5]
    one, two = ([20, 24], [30, 24]), ([40, 40], [46, 40])
    for drags in ((one,), (two,), (one, two)):
        handles, targets = map(list, zip(*drags, strict=True))
        guidance.regions = drag_regions(make_request(picture(64, 64), handles, targets, None, 64 * 64))
        energies.append(guidance.energies(latents, 5)[0])
    assert_close(energies[2], (energies[0] + energies[1]) / 2)


def test_the_presets_are_the_published_numbers():
    paper, code = PRESETS["paper"], PRESETS["code"]
    assert paper["drag"].num_inference_steps == 50 and paper["drag"].guided_share * 50 == 30
    assert paper["move"].inpaint_weight == 2.5 and paper["drag"].guidance_scale == 5
    assert {task: one.learning_rate for task, one in code.items()} == {
        "drag": 2e3 * 4e-2,
        "move": 0.5e3 * 8e-2,
        "appearance": 2e3 * 4e-2,
        "paste": 1.5e3 * 4e-2,
    }
    assert [PRESETS[name]["drag"].num_inference_steps for name in ("10s", "5s", "1s")] == [50, 20, 3]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda pipe: drag(pipe, preset="best"), "paper, code"),
        (lambda pipe: drag(pipe, guided_share=2.0), "guided_share must lie in"),
        (lambda pipe: drag(pipe, visual_attention="both"), "visual_attention"),
        (lambda pipe: pipe.move(picture(64, 64), np.zeros((64, 64)), (3, 3)), "must cover an object"),
        (lambda pipe: pipe.move(picture(64, 64), np.ones((32, 64)), (3, 3)), "image's size 64x64"),
        (lambda pipe: pipe.move(picture(64, 64), OBJECT, (60, 0)), "centre must stay"),
        (lambda pipe: pipe.resize(picture(64, 64), OBJECT, 0.0), "scale must be positive"),
        (lambda pipe: pipe.move(picture(64, 64), OBJECT, (3, 3), magic=1), "magic"),
    ],
)
def test_what_cannot_be_done_is_refused(pipe, ask, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ask(pipe)


def regions_of(scale: float, shift: tuple[float, float]):
    """The regions of a disc that is moved or resized in a picture of 64 x 64."""
    placement = Placement(np.array([24.0, 30.0]), np.array([24.0, 30.0]) + shift, scale)
    request = make_request(picture(64, 64), [[24, 30]], [[24, 30]], np.ones((64, 64)), 64 * 64)
    masked = make_request(picture(64, 64), [[24, 30]], [[24, 30]], np.zeros((64, 64)), 64 * 64)
    regions = object_regions(masked, OBJECT, placement, request.fit, moved=True)
    return placement, regions


def test_a_moved_object_is_compared_place_by_place_with_itself():
    _, regions = regions_of(1.0, (16, 4))
    here, there = regions.matches[0]
    assert len(here) > 10
    assert_close(here - there, torch.tensor([[4.0, 1.0]]).expand_as(here))  # cells of 4 px


def test_a_resized_object_is_compared_with_itself_at_its_old_size():
    placement, regions = regions_of(2.0, (0, 0))
    here, there = regions.matches[0]
    centre = (torch.from_numpy(placement.centre) + 0.5) / 4 - 0.5
    assert_close(here - centre, 2 * (there - centre), atol=1e-4, rtol=0)
    assert len(here) > 3 * len(regions_of(1.0, (0, 0))[1].matches[0][0])


def test_places_are_shared_vacated_or_the_object_s_and_nothing_twice():
    _, regions = regions_of(1.0, (16, 4))
    here, there = (torch.zeros(16, 16, dtype=torch.bool) for _ in range(2))
    for mask, places in zip((here, there), regions.matches[0], strict=True):
        x, y = places.long().T
        mask[y, x] = True
    assert torch.equal(regions.vacated[0], there & ~here)
    assert torch.equal(regions.share, ~(here | there))
    assert torch.equal(regions.surroundings, regions.share)
