"""The figures of the comparison: what each draws."""

import numpy as np
import pandas as pd
import pytest

from dragstudy import plotting_comparison
from dragstudy.plotting import MAX_WIDTH


def texts(ax):
    return [text.get_text() for text in ax.texts]


def trade(seconds, mean, front):
    frame = pd.DataFrame({"seconds": seconds, "mean": mean, "front": front})
    frame.index = ["do nothing", "warp", "fast", "fast-20s", "fast-5s"]
    return frame.assign(low=frame["mean"] - 0.1, high=frame["mean"] + 0.1)


@pytest.mark.parametrize("more", [True, False])
def test_better_is_up_and_a_methods_settings_are_joined_in_the_order_of_their_time(more):
    table = trade([0.0, 0.1, 1.0, 20.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0], [True, True, False, True, False])
    families = {"warp": "warp", "fast": "fast", "fast-20s": "fast", "fast-5s": "fast"}
    (ax,) = plotting_comparison.trade_off_plot(table, families, "quality", more=more).axes
    assert ax.yaxis_inverted() != more and ax.get_xscale() == "log"
    lines = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in ax.lines}
    assert lines[5.0, 20.0] == (5.0, 4.0)  # the published settings
    assert lines[0.1, 20.0] == (2.0, 4.0)  # the front
    assert texts(ax) == ["", "own", "20s", "5s"]
    assert "do nothing" in ax.get_legend_handles_labels()[1]


def differences(sure=True, n=6):
    pairs = [("a", "b", 1.0), ("b", "a", -1.0)]
    return pd.DataFrame(
        [{"method": m, "baseline": b, "n": n, "mean": d, "sure": sure} for m, b, d in pairs]
    )  # fmt: skip


def fills(ax):
    return {text.get_text(): patch.get_facecolor() for text, patch in zip(ax.texts, ax.patches, strict=True)}


def test_what_is_better_surely_has_another_colour_than_what_is_worse_or_undecided():
    more = {"distance": False, "psnr": True}
    tables = dict.fromkeys(more, differences())
    less, greater = plotting_comparison.difference_matrix(tables, more).axes
    assert fills(less)["-1.00"] == fills(greater)["+1.00"] != fills(less)["+1.00"]
    grey = plotting_comparison.difference_matrix({"psnr": differences(sure=False)}, more).axes[0]
    one = plotting_comparison.difference_matrix({"psnr": differences(n=5)}, more).axes[0]
    assert len({*fills(grey).values(), *fills(one).values()}) == 1
    assert [label.get_text() for label in less.get_yticklabels()] == ["b", "a"]


def test_ranks_are_those_of_the_printed_numbers_and_bars_have_none():
    table = pd.DataFrame({"bar": [2.0, 2.0, 2.0], "md": [2.0, 1.001, 1.002]}, ["do nothing", "warp", "x"])
    (ax,) = plotting_comparison.rank_matrix(table, bars=["bar"]).axes
    assert texts(ax) == ["2.00", "2.00  (3)", "2.00", "1.00  (1)", "2.00", "1.00  (1)"]
    colours = ax.images[0].get_array()
    assert colours[0, 1] == 1 and colours[1, 1] == pytest.approx(0.5005)


def test_what_was_not_measured_is_left_blank():
    table = pd.DataFrame({"md": [1.0, np.nan]}, ["do nothing", "warp"])
    assert texts(plotting_comparison.rank_matrix(table).axes[0]) == ["1.00  (1)", ""]


def test_cases_stand_side_by_side_with_their_notes_and_fit_a_page():
    picture, face = np.zeros((32, 32, 3), np.uint8), np.array([[2.0, 2.0], [8.0, 8.0]])
    shown = [([picture] * 3, "0.1 px", None), ([picture] * 3, "9.0 px", face)]
    columns = ["photograph", "edit", "true edit"]
    fig = plotting_comparison.case_sheet({"warp": shown, "x-y": shown}, ["best", "worst"], columns)
    assert len(fig.axes) == 2 * 7 and fig.get_figwidth() <= MAX_WIDTH
    assert fig.axes[0].get_title() == "best\nphotograph" and fig.axes[5].get_title() == "\nedit"
    assert fig.axes[1].get_xlabel() == "0.1 px" and fig.axes[12].get_xlabel() == "9.0 px"
    widths = [np.diff(ax.get_xlim()).item() for ax in fig.axes[:7]]
    assert widths[:3] == [32] * 3 and widths[4:] == [12] * 3
