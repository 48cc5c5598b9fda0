"""Curves and intervals: what each draws."""

import json

import numpy as np
import pandas as pd
import pytest

from dragstudy import plotting_measures
from dragstudy.plotting import METHOD_COLORS


@pytest.fixture
def log(tmp_path):
    lines = [{"images": 8 * step, "loss": 1 / step, "l1": 2 / step} for step in (1, 2, 3)]
    lines[1]["val_loss"] = 0.4
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def means(name, values):
    frame = pd.DataFrame({"drags": [1, 5, 68], "method": name, "mean": values})
    return frame.assign(low=frame["mean"] - 0.1, high=frame["mean"] + 0.1)


def test_curves_have_one_panel_a_vertical_axis():
    fig = plotting_measures.curves([0, 1], {"one": {"a": [1, 2], "b": [2, 3]}, "two": {"a": [3, 4]}}, "t")
    assert [len(ax.lines) for ax in fig.axes] == [2, 1]
    assert [ax.get_ylabel() for ax in fig.axes] == ["one", "two"]


def test_training_curves_skip_lines_without_a_column_and_mark_chance(log):
    panels = {"loss": ["loss", "l1"], "validation": ["val_loss"]}
    fig = plotting_measures.training_curves(log, panels, chance={"validation": 1.0})
    training, validation = fig.axes
    assert [line.get_xdata().tolist() for line in training.lines] == [[8, 16, 24]] * 2
    assert validation.lines[0].get_ydata().tolist() == [0.4]
    assert validation.lines[1].get_linestyle() == "--"


def test_intervals_are_bands_around_lines():
    table = pd.concat([means("warp", [3, 2, 1.0]), means("other", [2, 1, 0.5])])
    fig = plotting_measures.intervals_over(table, "drags", "mean", "method", ylabel="px")
    (ax,) = fig.axes
    assert len(ax.lines) == len(ax.collections) == 2
    assert ax.lines[0].get_color() == METHOD_COLORS["warp"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "68"]


def test_dots_stand_in_the_order_of_the_table_and_share_its_reference():
    table = means("", [1.0, 2.0, 3.0]).set_index(pd.Index(["nothing", "warp", "mine"]))
    fig = plotting_measures.interval_dots(
        {"dB": table, "px": table}, reference="warp", colors={"mine": "red"}
    )
    for ax in fig.axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [dot.get_ydata()[0] for dot in dots] == [0, 1, 2]
        assert dots[2].get_color() == "red"
        assert np.isclose(ax.lines[-1].get_xdata()[0], 2.0)
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == list(table.index)
