"""What was measured: curves over steps, and means with their intervals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, styled

if TYPE_CHECKING:
    import pandas as pd


@styled
def curves(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    xlabel: str,
    *,
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show functions of one quantity, one panel a vertical axis.

    Args:
        x: Where the functions are known.
        panels: By the label of a panel's vertical axis, the values of each function by its name.
        xlabel: Label of the horizontal axes.
        title: The message.
        limits: Lower and upper end of every vertical axis.
    """
    fig, axes = _panels(len(panels), title)
    for ax, (ylabel, functions) in zip(axes, panels.items(), strict=True):
        for name, values in functions.items():
            ax.plot(x, values, label=name, color=METHOD_COLORS.get(name))
        ax.set(xlabel=xlabel, ylabel=ylabel, ylim=limits)
        ax.legend()
    return fig


@styled
def training_curves(
    log: Path | str,
    panels: Mapping[str, Sequence[str]],
    *,
    title: str = "",
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """Show columns of one `metrics.jsonl` over images seen, several in one panel.

    Args:
        log: The file.
        panels: By the label of a panel's vertical axis, the columns to draw in it.
        title: The message.
        chance: By the label of a panel, a value to mark by a dashed line: what guessing would give.
    """
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    fig, axes = _panels(len(panels), title)
    for ax, (ylabel, keys) in zip(axes, panels.items(), strict=True):
        for key in keys:
            points = [(line["images"], line[key]) for line in lines if key in line]
            style = {"marker": "."} if len(points) < 40 else {}
            ax.plot(*np.array(points).reshape(-1, 2).T, label=key.replace("_", " "), **style)
        if chance and ylabel in chance:
            ax.axhline(chance[ylabel], color="black", linewidth=0.8, linestyle="--")
        ax.set(xlabel="images seen", ylabel=ylabel)
        ax.legend()
    return fig


@styled
def intervals_over(
    table: "pd.DataFrame", x: str, y: str, by: str, *, title: str = "", xlabel: str = "", ylabel: str = ""
) -> Figure:
    """Show means over a few values of `x` as lines, their intervals as bands.

    Args:
        table: One row a mean: columns `x`, `by`, `y`, and `low` and `high`, the ends of its interval.
        x: Column of the horizontal axis, which is logarithmic.
        y: Column of the means.
        by: Column that names the line.
        title: The message.
        xlabel: Label of the horizontal axis; the column's name if empty.
        ylabel: Label of the vertical axis; the column's name if empty.
    """
    fig, ax = plt.subplots(figsize=(5.8, 3.4))
    for color, (name, rows) in zip(CYCLE, table.groupby(by, sort=False), strict=False):
        color = METHOD_COLORS.get(name, color)
        ax.plot(rows[x], rows[y], marker="o", markersize=4, color=color, label=name)
        ax.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.18, linewidth=0)
    ax.set_xscale("log")
    ticks = sorted(table[x].unique())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    lowest = min(0, table[y].min())  # bands may reach below zero, lines are not cut
    ax.set(xlabel=xlabel or x, ylabel=ylabel or y, title=title, ylim=(1.05 * lowest, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def interval_dots(
    tables: Mapping[str, "pd.DataFrame"],
    *,
    title: str = "",
    reference: str = "",
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Show means as dots with their intervals, one row a method, one panel a metric.

    Args:
        tables: By the label of a panel, a table of columns `mean`, `low`, `high` whose index is the methods.
        title: The message.
        reference: The method whose mean is drawn through the whole panel as a dashed line.
        colors: Colours by method, beside those of `METHOD_COLORS`.
    """
    count = len(next(iter(tables.values())))
    fig, axes = plt.subplots(
        1, len(tables), figsize=(MAX_WIDTH, 0.9 + 0.3 * count), squeeze=False, sharey=True
    )
    fig.suptitle(title)
    for ax, (label, table) in zip(axes[0], tables.items(), strict=True):
        for row, (name, values) in enumerate(table.iterrows()):
            color = {**METHOD_COLORS, **(colors or {})}.get(name, CYCLE[0])
            ax.plot(values[["low", "high"]], [row, row], color=color, linewidth=2)
            ax.plot(values["mean"], row, "o", color=color)
        if reference:
            ax.axvline(table.loc[reference, "mean"], color="black", linewidth=0.8, linestyle="--", zorder=0)
        ax.set(xlabel=label, yticks=range(count), yticklabels=list(table.index), ylim=(count - 0.5, -0.5))
    return fig


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A row of panels for curves."""
    fig, axes = plt.subplots(1, count, figsize=(min(MAX_WIDTH, 4.2 * count), 2.9), squeeze=False)
    fig.suptitle(title)
    return fig, list(axes[0])
