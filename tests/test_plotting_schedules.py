"""The figure of the schedules shows what the sampler will get, in both readings of time."""

import numpy as np

from dragstudy.guidance import guidance_weight
from dragstudy.plotting_schedules import SCHEDULE_COLORS, schedule_curves

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
