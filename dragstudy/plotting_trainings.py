"""Figures of trainings that differ in a part or in the seed: one function a figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, styled
from dragstudy.plotting_measures import _panels

if TYPE_CHECKING:
    import pandas as pd

GREYS = ("#999999", "#333333")  # of what is no training


@styled
def seed_curves(
    table: "pd.DataFrame",
    x: Mapping[str, str],
    y: str,
    by: str,
    *,
    title: str = "",
    ylabel: str = "",
    colors: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
) -> Figure:
    """Show the learning curves of trainings, a line each, those that differ in the seed alone in one colour.

    Args:
        table: One row a training and validation: columns `by`, `seed`, `y` and those of `x`.
        x: By column, the label of the horizontal axis of its panel.
        y: Column of the vertical axes.
        by: Column that names the kind of training.
        title: The message.
        ylabel: Label of the vertical axes; the column's name if empty.
        colors: Colours by the kind's name.
        dashed: Kinds whose lines are dashed.
    """
    fig, axes = _panels(len(x), title)
    for ax, (column, xlabel) in zip(axes, x.items(), strict=True):
        for color, (name, rows) in zip(itertools.cycle(CYCLE), table.groupby(by, sort=False), strict=False):
            style = {"color": (colors or {}).get(name, color), "linestyle": "--" if name in dashed else "-"}
            for number, (_, line) in enumerate(rows.groupby("seed")):
                label = f"_{name}" if number or ax is not axes[-1] else name
                ax.plot(line[column], line[y], linewidth=1.2, marker=".", markersize=4, label=label, **style)
        ax.set(xlabel=xlabel, ylabel=ylabel or y)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def range_lines(
    panels: Mapping[str, "pd.DataFrame"],
    x: str,
    by: str,
    *,
    title: str = "",
    xlabel: str = "",
    log: bool = False,
    references: Sequence[str] = (),
    wanted: Mapping[str, float] | None = None,
) -> Figure:
    """Show means over one quantity as lines in bands, one panel a metric, with one legend for all of them.

    Args:
        panels: By the label of a panel's vertical axis, one row a mean: columns `x`, `by`, `mean`, and `low`
            and `high`, the ends of the band.
        x: Column of the horizontal axis.
        by: Column that names the line.
        title: The message.
        xlabel: Label of the horizontal axes; the column's name if empty.
        log: Logarithmic horizontal axes, with ticks at the values of `x` alone.
        references: Names of lines that are no training: grey and dashed.
        wanted: By the label of a panel, a value to mark by a thin line: where all should be.
    """
    width = min(MAX_WIDTH, 1.4 + 3.4 * len(panels))
    fig, axes = plt.subplots(1, len(panels), figsize=(width, 3.1), squeeze=False)
    fig.suptitle(title)
    names = list(dict.fromkeys(name for table in panels.values() for name in table[by]))
    cycle, greys = itertools.cycle(CYCLE), itertools.cycle(GREYS)
    colors = {name: METHOD_COLORS.get(name) or next(cycle) for name in names if name not in references}
    colors |= {name: next(greys) for name in references}
    drawn = {}
    for ax, (label, table) in zip(axes[0], panels.items(), strict=True):
        for name, rows in table.groupby(by, sort=False):
            rows, style = rows.sort_values(x), {"linestyle": "--"} if name in references else {"marker": "."}
            (drawn[name],) = ax.plot(rows[x], rows["mean"], color=colors[name], label=name, **style)
            ax.fill_between(rows[x], rows["low"], rows["high"], color=colors[name], alpha=0.15, linewidth=0)
        if wanted and label in wanted:
            ax.axhline(wanted[label], color="black", linewidth=0.8, zorder=0)
        if log:
            ax.set_xscale("log")
            ticks = sorted(table[x].unique())
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
        ax.set(xlabel=xlabel or x, ylabel=label, ylim=(min(0, 1.05 * float(table["low"].min())), None))
    fig.legend(drawn.values(), drawn, loc="outside right center")
    return fig
