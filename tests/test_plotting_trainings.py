"""The figures of trainings: what each draws."""

import pandas as pd
from matplotlib.colors import to_hex

from dragstudy.plotting import CYCLE, MAX_WIDTH
from dragstudy.plotting_trainings import GREYS, range_lines, seed_curves


def table(names="ab"):
    rows = [{"name": name, "drags": x, "mean": k + 1 / x} for x in (68, 1, 5) for k, name in enumerate(names)]
    return pd.DataFrame(rows).assign(low=lambda t: t["mean"] - 0.1, high=lambda t: t["mean"] + 0.1)


def test_lines_go_from_left_to_right_in_one_colour_each_and_have_one_legend():
    fig = range_lines({"error": table(), "leak": table("bc")}, "drags", "name", xlabel="drags given")
    first, second = fig.axes
    assert [line.get_xdata().tolist() for line in first.lines] == [[1, 5, 68]] * 2
    assert [to_hex(line.get_color()).upper() for line in first.lines] == CYCLE[:2]
    assert [to_hex(line.get_color()).upper() for line in second.lines] == CYCLE[1:3]
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert (first.get_ylabel(), second.get_ylabel(), first.get_xlabel()) == ("error", "leak", "drags given")
    assert len(first.collections) == 2 and first.get_ylim()[0] <= 0


def test_references_are_grey_and_dashed_and_take_no_colour_from_the_others():
    (ax,) = range_lines({"error": table("rab")}, "drags", "name", references=["r"]).axes
    reference, first, _ = ax.lines
    assert reference.get_color() == GREYS[0] and reference.get_linestyle() == "--"
    assert first.get_color() == CYCLE[0] and first.get_linestyle() == "-"


def test_a_logarithmic_axis_has_ticks_at_the_values_and_a_wanted_value_is_marked():
    fig = range_lines(dict.fromkeys("uvw", table()), "drags", "name", log=True, wanted={"v": 1.0})
    assert fig.get_figwidth() <= MAX_WIDTH
    u, v, _ = fig.axes
    assert [label.get_text() for label in u.get_xticklabels()] == ["1", "5", "68"]
    assert len(v.lines) == len(u.lines) + 1 and set(v.lines[-1].get_ydata()) == {1.0}


def test_more_lines_than_colours_are_all_drawn_and_what_is_below_zero_is_seen():
    names = "abcdefghij"
    (ax,) = range_lines({"error": table(names)}, "drags", "name", references=list("hij")).axes
    assert len(ax.lines) == len(names)
    (ax,) = range_lines({"slope": table().assign(low=-0.5)}, "drags", "name").axes
    assert ax.get_ylim()[0] < -0.5
    curves = table("abcdefghi").assign(seed=0)
    assert len(seed_curves(curves, {"drags": "drags"}, "mean", "name").axes[0].lines) == 9


def test_trainings_of_all_seeds_have_one_colour_and_one_name():
    rows = [
        {"method": name, "seed": seed, "step": step, "seconds": step * (1 + seed), "val_loss": 1 / step}
        for name in ("one", "other")
        for seed in (0, 1)
        for step in (1, 2, 3)
    ]
    across = {"step": "steps", "seconds": "seconds"}
    fig = seed_curves(pd.DataFrame(rows), across, "val_loss", "method", dashed=["other"])
    assert [ax.get_xlabel() for ax in fig.axes] == list(across.values())
    for ax in fig.axes:
        assert len(ax.lines) == 4
        assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--", "--"]
        assert len({line.get_color() for line in ax.lines}) == 2
    assert [text.get_text() for text in fig.axes[-1].get_legend().get_texts()] == ["one", "other"]
