"""Guidance: every form and schedule is the paper's equation, and scales of one change nothing."""

from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from dragstudy.guidance import (
    GUIDANCE_ROWS,
    GuidanceSchedule,
    guidance_rows,
    guidance_weight,
    guide,
    schedule_times,
)

SCALES = {"image": 1.5, "flow": 2.0, "text": 3.0}
SCHEDULES = get_args(GuidanceSchedule)
DECAYING = ("square", "linear", "inverse_square")
MOMENTS = [k / 40 for k in range(41)]


def predictions(form: str) -> Tensor:
    rows = len(guidance_rows(form))
    return torch.randn(rows, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_scales_of_one_give_the_fully_conditioned_prediction(form):
    rows = predictions(form)
    assert_close(guide(rows, form, {"image": 1, "flow": 1, "text": 1}), rows[-1])


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_scales_of_zero_give_the_weakest_prediction(form):
    rows = predictions(form)
    assert torch.equal(guide(rows, form, {"image": 0, "flow": 0, "text": 0}), rows[0])


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_equal_predictions_are_left_alone_at_any_scale(form):
    rows = predictions(form)[:1].expand(len(guidance_rows(form)), -1, -1, -1, -1)
    assert_close(guide(rows, form, SCALES), rows[0])


def test_forms_written_out():
    nothing, image, flow, text = predictions("image_flow_text")
    expected = nothing + 1.5 * (image - nothing) + 2.0 * (flow - image)  # Eq. 5 and Eq. 4 of Sec. 3.1.2
    assert_close(guide(torch.stack([nothing, image, flow]), "image_flow", SCALES), expected)
    assert_close(guide(torch.stack([image, flow]), "flow", SCALES), image + 2.0 * (flow - image))
    full = expected + 3.0 * (text - flow)
    assert_close(guide(torch.stack([nothing, image, flow, text]), "image_flow_text", SCALES), full)


def test_each_row_switches_one_more_condition_on():
    for form, rows in GUIDANCE_ROWS.items():
        counts = [sum(row) for row in rows]
        assert counts == list(range(counts[0], counts[0] + len(rows))), form
        for weaker, stronger in zip(rows, rows[1:], strict=False):
            assert all(b >= a for a, b in zip(weaker, stronger, strict=True))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="image_flow, flow, image_flow_text, got 'all'"):
        guidance_rows("all")


def test_a_wrong_number_of_predictions_is_refused():
    with pytest.raises(ValueError, match="combines 3 predictions, got 2"):
        guide(predictions("flow"), "image_flow", SCALES)


# Schedules


def curve(schedule: str, largest: float) -> list[float]:
    return [guidance_weight(schedule, largest, time) for time in MOMENTS]


@pytest.mark.parametrize(
    ("schedule", "at_noise", "in_the_middle", "at_the_image"),
    [
        ("none", 1, 1, 1),
        ("constant", 5, 5, 5),
        ("square", 5, 4, 1),
        ("linear", 5, 3, 1),
        ("inverse_square", 5, 2, 1),
    ],
)
def test_schedules_at_both_ends_and_in_the_middle(schedule, at_noise, in_the_middle, at_the_image):
    found = [guidance_weight(schedule, 5, t / 1000) for t in (1000, 500, 0)]
    assert found == [at_noise, in_the_middle, at_the_image]


@pytest.mark.parametrize("t", [1, 333, 751, 999])
def test_schedules_written_out(t):
    largest = 3.7  # the lines of Sec. 4.3.2
    assert guidance_weight("linear", largest, t / 1000) == largest * t / 1000 + (1 - t / 1000)
    square = largest * (1 - (1 - t / 1000) ** 2) + (1 - t / 1000) ** 2
    assert guidance_weight("square", largest, t / 1000) == pytest.approx(square, rel=1e-12)
    inverse = (largest - 1) * (t / 1000) ** 2 + 1
    assert guidance_weight("inverse_square", largest, t / 1000) == pytest.approx(inverse, rel=1e-12)


@pytest.mark.parametrize("largest", [3.0, 1.5, 0.5, 0.0])
def test_the_square_keeps_its_largest_scale_longest_and_the_inverse_square_shortest(largest):
    sign = 1 if largest > 1 else -1  # below 1 a schedule rises to 1 instead
    weights = [[sign * weight for weight in curve(schedule, largest)] for schedule in DECAYING]
    for k in range(1, len(MOMENTS) - 1):
        assert weights[0][k] > weights[1][k] > weights[2][k], MOMENTS[k]
    for one in weights:
        assert one == sorted(one) and one[0] == sign and one[-1] == sign * largest


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_largest_scale_of_one_is_the_conditioned_prediction_at_every_time(schedule):
    rows = predictions("flow")
    for weight in curve(schedule, 1):
        assert_close(guide(rows, "flow", {"flow": weight}), rows[-1])


@pytest.mark.parametrize("schedule", ["constant", *DECAYING])
def test_a_largest_scale_of_less_than_one_mixes(schedule):
    rows = predictions("flow")
    for weight in curve(schedule, 0.25)[1:-1]:
        guided = guide(rows, "flow", {"flow": weight})
        assert 0 < weight < 1
        assert ((guided >= rows.amin(0) - 1e-6) & (guided <= rows.amax(0) + 1e-6)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cubic", 3.0, 0.5), "none, constant, square, linear, inverse_square, got 'cubic'"),
        (("linear", float("nan"), 0.5), "finite number, got nan"),
        (("none", float("inf"), 0.5), "finite number, got inf"),
        (("linear", 3.0, 999), r"lie in \[0, 1\], got 999"),
        (("linear", 3.0, -0.01), r"lie in \[0, 1\], got -0.01"),
        (("linear", 3.0, float("nan")), r"lie in \[0, 1\], got nan"),
    ],
)
def test_a_bad_schedule_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        guidance_weight(*arguments)


def spaced(steps: int, spacing: str, offset: int = 0) -> Tensor:
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps


@pytest.mark.parametrize("steps", [1, 4, 8, 20, 25, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_both_readings_agree_on_even_steps_but_for_the_stated_shift(steps, spacing):
    timesteps = spaced(steps, spacing, offset=spacing == "leading")
    paper, code = schedule_times(timesteps, 1000), schedule_times(timesteps, 1000, "step")
    shift = 1 / 1000 if spacing == "trailing" else 1 / steps - 1 / 1000
    assert code == pytest.approx([time + shift for time in paper], abs=1e-12)
    assert code[0] == 1


def test_on_uneven_steps_the_readings_differ():
    timesteps = [999, 759, 499, 259]  # of LCM: its fourth steps of 50
    gaps = [
        code - paper
        for paper, code in zip(
            schedule_times(timesteps, 1000), schedule_times(timesteps, 1000, "step"), strict=True
        )
    ]
    assert max(gaps) - min(gaps) > 0.009


def test_tensors_and_lists_of_timesteps_are_read_alike():
    timesteps = spaced(20, "trailing")
    assert schedule_times(timesteps, 1000) == schedule_times(timesteps.tolist(), 1000)


def test_other_readings_and_other_timesteps_are_refused():
    with pytest.raises(ValueError, match="timestep, step, got 'sigma'"):
        schedule_times([999], 1000, "sigma")
    for t in (-1, 1001):
        with pytest.raises(ValueError, match=rf"lie in \[0, 1000\], got {t}"):
            schedule_times([500, t], 1000)
