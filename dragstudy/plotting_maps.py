"""Figures of numbers over two scales: as maps, and one number against another."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dragstudy.plotting import CYCLE, MAX_WIDTH, styled

COLORS = {True: "Blues", False: "Blues_r"}  # dark is good: more of it, or less


@styled
def value_maps(
    maps: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    more: Mapping[str, bool] | None = None,
    marked: tuple[float, float] | None = None,
    digits: int | Mapping[str, int] = 2,
) -> Figure:
    """Show means over a grid of two scales, one map a quantity, each cell with its number and interval.

    Args:
        maps: By the label of a map, one row a cell: `x`, `y`, and `mean`, `low` and `high`.
        xlabel: What `x` is.
        ylabel: What `y` is; it grows upwards.
        title: The message.
        more: By label, whether more is better, which is darker then; where not named, it is.
        marked: The `(x, y)` of a cell to be framed.
        digits: Decimals, or decimals by label.
    """
    first = next(iter(maps.values()))
    across, up = (sorted(first[name].unique()) for name in ("x", "y"))
    each = min(MAX_WIDTH / len(maps), 1.2 + 0.85 * len(across))
    size = each * len(maps), 1.0 + 0.6 * len(up) + (0.3 if title else 0)
    fig, axes = plt.subplots(1, len(maps), figsize=size, squeeze=False)
    fig.suptitle(title)
    for place, (ax, (label, table)) in enumerate(zip(axes[0], maps.items(), strict=True)):
        known = table.set_index(["y", "x"])
        means = known["mean"].unstack().reindex(index=up, columns=across).to_numpy(float)
        drawn = ax.imshow(means, cmap=COLORS[(more or {}).get(label, True)], origin="lower", aspect="auto")
        places = digits if isinstance(digits, int) else digits[label]
        for (y, x), row in known.iterrows():
            if np.isnan(row["mean"]):
                continue
            ends = f"[{row['low']:.{places}f}, {row['high']:.{places}f}]"
            red, green, blue, _ = drawn.cmap(drawn.norm(row["mean"]))
            color = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
            spot = {"ha": "center", "color": color, "fontsize": 9}
            ax.text(across.index(x), up.index(y), f"{row['mean']:.{places}f}", va="bottom", **spot)
            ax.text(across.index(x), up.index(y), ends, va="top", **spot | {"fontsize": 6.5})
        if marked:
            corner = across.index(marked[0]) - 0.5, up.index(marked[1]) - 0.5
            ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2))
        ax.set_xticks(range(len(across)), [f"{value:g}" for value in across])
        ax.set_yticks(range(len(up)), [f"{value:g}" for value in up])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlabel=xlabel, ylabel="" if place else ylabel, title=label)
    return fig


@styled
def balance_lines(
    panels: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    ylabel: str,
    line: str,
    point: str,
    references: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    title: str = "",
) -> Figure:
    """Show two quantities against each other, as lines along which one scale grows.

    Args:
        panels: By the title of a panel, one row a setting: `line` and `point`, its two scales, and `x`, `y`.
        xlabel: What `x` is.
        ylabel: What `y` is.
        line: Name of the scale that is the same along a line, for the legend.
        point: Name of the scale that grows along it; its values stand beside the points.
        references: By the title of a panel, places to mark by their names.
        title: The message.
    """
    size = min(MAX_WIDTH, 4.6 * len(panels)), 3.6
    fig, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
    fig.suptitle(title)
    for ax, (name, table) in zip(axes[0], panels.items(), strict=True):
        for color, (scale, rows) in zip(CYCLE, table.groupby("line"), strict=False):
            rows = rows.sort_values("point")
            ax.plot(rows["x"], rows["y"], marker="o", markersize=4, color=color, label=f"{line} {scale:g}")
            for row in rows.itertuples():
                beside = {"textcoords": "offset points", "xytext": (4, 3), "fontsize": 7, "color": color}
                ax.annotate(f"{row.point:g}", (row.x, row.y), **beside)
        for text, place in (references or {}).get(name, {}).items():
            ax.plot(*place, "*", color="black", markersize=9)
            ax.annotate(text, place, textcoords="offset points", xytext=(6, -9), fontsize=8)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=f"{name}; beside the points: {point}")
        ax.legend()
    return fig
