"""The figure of the schedules shows what the sampler will get, in both readings of time."""

import numpy as np

from dragstudy.guidance import guidance_weight
from dragstudy.plotting import METHOD_COLORS
from dragstudy.plotting_schedules import SCHEDULE_COLORS, guided_step, schedule_curves, timestep_curves

TIMESTEPS = [999, 799, 299, 99]


def test_a_panel_has_the_guidance_scale_of_every_step_and_reading():
    fig = schedule_curves({"uneven": TIMESTEPS, "short": [999, 499]}, 3.0, title="message")
    formulas, uneven, short = fig.axes
    assert len(formulas.lines) == len(SCHEDULE_COLORS) and formulas.xaxis_inverted()
    assert [len(ax.lines) for ax in (uneven, short)] == [2 * len(SCHEDULE_COLORS)] * 2
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in uneven.lines}
    for name in SCHEDULE_COLORS:
        for times in ([t / 1000 for t in TIMESTEPS], [1, 0.75, 0.5, 0.25]):
            assert tuple(np.round([guidance_weight(name, 3.0, time) for time in times], 6)) in drawn
    assert all(list(line.get_xdata()) == [1, 2, 3, 4] for line in uneven.lines)


def test_sampling_goes_from_left_to_right():
    (formulas,) = schedule_curves({}, 2.0).axes
    low, high = formulas.get_xlim()
    assert (low, high) == (1, 0)


def test_what_is_known_by_timestep_is_drawn_there_in_the_colour_of_its_method():
    values = {"lightningdrag": {999: 0.5, 499: 0.2}, "other": {901: 0.1}}
    (ax,) = timestep_curves(values, "effect", title="message").axes
    assert [list(line.get_xdata()) for line in ax.lines] == [[999, 499], [901]]
    assert ax.lines[0].get_color() == METHOD_COLORS["lightningdrag"] and ax.get_xlim() == (1000, 0)


def test_a_guided_step_is_marked_on_its_schedule():
    image = np.zeros((8, 8, 3), np.uint8)
    fig = guided_step({"source": image, "edit": image}, "linear", 3.0, TIMESTEPS, 2)
    panel = fig.axes[-1]
    dots, ring = panel.lines[-2:]
    assert len(fig.axes) == 3 and len(panel.lines) == len(SCHEDULE_COLORS) + 2
    assert np.allclose(dots.get_ydata(), [guidance_weight("linear", 3.0, t / 1000) for t in TIMESTEPS])
    assert np.allclose([ring.get_xdata(), ring.get_ydata()], [[0.799], [2 * 0.799 + 1]])
    assert "2.60 at step 2" in panel.get_title()
