"""The figures over two scales: what each draws."""

import numpy as np
import pandas as pd
import pytest

from dragstudy.plotting import MAX_WIDTH
from dragstudy.plotting_maps import balance_lines, value_maps


def table():
    rows = [{"x": x, "y": y, "mean": 10 * y + x} for y in (1.0, 2.0) for x in (1.0, 1.5, 3.0)]
    return pd.DataFrame(rows).assign(low=0.0, high=99.0)


def shades(ax):
    picture = ax.images[0]
    return picture.cmap(picture.norm(picture.get_array()))[..., :3].sum(axis=-1)


def test_every_number_stands_in_the_cell_of_its_two_scales():
    shuffled = table().sample(frac=1, random_state=0)
    (ax,) = value_maps({"motion": shuffled}, xlabel="flow", ylabel="image", digits=1).axes
    across, up = ([label.get_text() for label in axis.get_ticklabels()] for axis in (ax.xaxis, ax.yaxis))
    assert (across, up) == (["1", "1.5", "3"], ["1", "2"]) and not ax.yaxis_inverted()
    placed = {tuple(text.get_position()): text.get_text() for text in ax.texts if "[" not in text.get_text()}
    for (x, y), text in placed.items():
        assert float(text) == 10 * float(up[y]) + float(across[x])
        assert float(text) == pytest.approx(ax.images[0].get_array()[y, x])
    assert len(placed) == 6 and ax.texts[1].get_text() == "[0.0, 99.0]"


def test_dark_is_good_and_text_can_be_read_on_it():
    maps = {"more": table(), "less": table()}
    more, less = value_maps(maps, xlabel="", ylabel="", more={"less": False}).axes
    assert np.all(np.diff(shades(more).ravel()) < 0) and np.all(np.diff(shades(less).ravel()) > 0)
    for ax in (more, less):
        for text in ax.texts:
            x, y = text.get_position()
            assert (text.get_color() == "white") == (shades(ax)[y, x] < 1.6), "white on dark only"


def test_a_cell_is_framed_and_a_cell_without_a_number_stays_empty():
    gap = table()
    gap.loc[0, "mean"] = np.nan
    fig = value_maps(dict.fromkeys("abcd", gap), xlabel="", ylabel="", marked=(3.0, 2.0))
    assert fig.get_figwidth() <= MAX_WIDTH
    for ax in fig.axes:
        assert ax.patches[0].get_xy() == (1.5, 0.5)
        assert len(ax.texts) == 10


def test_lines_follow_the_growing_scale_and_references_are_named():
    rows = table().rename(columns={"y": "line", "x": "point"})
    rows = rows.assign(x=-rows["point"], y=rows["mean"])[::-1]
    fig = balance_lines(
        {"splat": rows, "concat": rows},
        xlabel="motion",
        ylabel="identity",
        line="image",
        point="flow",
        references={"splat": {"target frame": (1.0, 0.3)}},
    )
    splat, concat = fig.axes
    assert [line.get_label() for line in concat.lines] == ["image 1", "image 2"]
    assert list(concat.lines[1].get_xdata()) == [-1.0, -1.5, -3.0]
    assert list(concat.lines[1].get_ydata()) == [21.0, 21.5, 23.0]
    assert [text.get_text() for text in concat.texts] == ["1", "1.5", "3"] * 2
    assert splat.texts[-1].get_text() == "target frame" and tuple(splat.texts[-1].xy) == (1.0, 0.3)
