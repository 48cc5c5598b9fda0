"""Figures of trainings side by side: one function a figure, styled as in `dragstudy.plotting`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, styled

if TYPE_CHECKING:
    import pandas as pd

GREYS = ("#999999", "#333333")  # of what is no training


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
    colors = iter(CYCLE)
    colors = {name: METHOD_COLORS.get(name) or next(colors) for name in names if name not in references}
    colors |= dict(zip(references, GREYS, strict=False))
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
        ax.set(xlabel=xlabel or x, ylabel=label, ylim=(0, None))
    fig.legend(drawn.values(), drawn, loc="outside right center")
    return fig
