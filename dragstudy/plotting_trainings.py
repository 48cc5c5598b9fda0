"""Figures of trainings that differ in a part or in the seed: one function a figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from dragstudy.plotting import CYCLE, styled
from dragstudy.plotting_models import _panels

if TYPE_CHECKING:
    import pandas as pd


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
        for color, (name, rows) in zip(CYCLE, table.groupby(by, sort=False), strict=False):
            style = {"color": (colors or {}).get(name, color), "linestyle": "--" if name in dashed else "-"}
            for number, (_, line) in enumerate(rows.groupby("seed")):
                label = f"_{name}" if number or ax is not axes[-1] else name
                ax.plot(line[column], line[y], linewidth=1.2, marker=".", markersize=4, label=label, **style)
        ax.set(xlabel=xlabel, ylabel=ylabel or y)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
