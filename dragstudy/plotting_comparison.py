"""Figures of the comparison of methods: what quality costs, who differs surely, orders, and typical edits."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from dragstudy.metrics.conclusions import LEAST
from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, AnyImage, _show, styled
from dragstudy.plotting_sheets import LABEL_WIDTH, _zoom

COLORS = METHOD_COLORS | {
    "do nothing": METHOD_COLORS["nothing"],
    "bidirectional-warp": "#666666",
    "sdedrag": "#E69F00",
}
NOTHING = "do nothing"


@styled
def trade_off_plot(
    table: pd.DataFrame, families: Mapping[str, str], ylabel: str, *, title: str = "", more: bool = False
) -> Figure:
    """Show quality against seconds: one dot a row with its interval, a method's published settings joined.

    Args:
        table: Index the rows' names; columns `seconds`, `mean`, `low`, `high`, `front`.
        families: By a row's name, the method that it is a setting of, which gives the colour.
        ylabel: What is up.
        title: The message.
        more: Whether up is better; else the axis is turned round, so that better is up anyway.
    """
    fig, ax = plt.subplots(figsize=(7.4, 4.4))
    timed = table[table["seconds"] > 0]
    for number, (family, rows) in enumerate(timed.groupby(timed.index.map(families), sort=False)):
        color = COLORS.get(family, CYCLE[number % len(CYCLE)])
        settings = rows[rows.index != family].sort_values("seconds")
        ax.plot(settings["seconds"], settings["mean"], color=color, linewidth=0.8, alpha=0.6)
        ax.vlines(rows["seconds"], rows["low"], rows["high"], color=color, alpha=0.5, linewidth=1)
        ax.plot(rows["seconds"], rows["mean"], "o", color=color, markersize=5, label=family)
        for name, row in rows.iterrows():
            text = name.removeprefix(family).strip("-") or ("own" if len(rows) > 1 else "")
            ax.annotate(text, row[["seconds", "mean"]], (4, 4), textcoords="offset points", fontsize=7)
    front = timed[timed["front"]].sort_values("seconds")
    ring = {"markersize": 10, "markerfacecolor": "none", "color": "black", "linewidth": 0.8, "zorder": 0}
    ax.plot(front["seconds"], front["mean"], "o:", label="nothing is quicker\nand better", **ring)
    for mean in table.loc[table.index == NOTHING, "mean"]:
        ax.axhline(mean, color=COLORS[NOTHING], linestyle="--", linewidth=1, label=NOTHING)
    ax.set(xscale="log", xlabel="seconds an edit (median)", ylabel=ylabel)
    fig.suptitle(title)  # over the legend too: it is longer than the axes are wide
    if not more:
        ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def difference_matrix(
    tables: Mapping[str, pd.DataFrame], more: Mapping[str, bool], *, title: str = "", digits: int = 2
) -> Figure:
    """Show every method minus every other on the same samples: coloured where the difference is sure.

    On fewer than `conclusions.LEAST` samples none is.

    Args:
        tables: By the label of a panel, what `comparison_tables.paired` gave: `method` is the row, `baseline`
            the column.
        more: By the same label, whether more is better: blue is where the row is better than the column.
        title: The message.
        digits: Decimals of the numbers.
    """
    names = list(next(iter(tables.values()))["baseline"].drop_duplicates())
    side = 0.75 + 0.46 * len(names)
    fig, axes = plt.subplots(1, len(tables), figsize=(side * len(tables) + 1.1, side + 0.7), squeeze=False)
    fig.suptitle(title)
    for place, (ax, (label, table)) in enumerate(zip(axes[0], tables.items(), strict=True)):
        ax.imshow(np.full((len(names), len(names), 3), 1.0))
        for row in table.itertuples():
            y, x = names.index(row.method), names.index(row.baseline)
            better = (row.mean > 0) == more[label]
            fill = ("#9ecae1" if better else "#fdbb84") if row.sure and row.n >= LEAST else "#f2f2f2"
            ax.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor="white"))
            text = "" if np.isnan(row.mean) else f"{row.mean:+.{digits}f}"
            ax.text(x, y, text, ha="center", va="center", fontsize=6.5)
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(names)), [] if place else names)
        ax.spines[:].set_visible(False)
        ax.set_title(label)
    return fig


@styled
def rank_matrix(table: pd.DataFrame, *, title: str = "", bars: Sequence[str] = (), digits: int = 2) -> Figure:
    """Show numbers of which less is better, and the rank that each column gives its rows as printed.

    The colour is the number as a share of do-nothing's in the same column, so columns of different units can
    be compared: violet is nearer than no edit at all, orange farther.

    Args:
        table: Index the methods, columns what they are ranked by.
        title: The message.
        bars: Columns that rank nothing: all their numbers are the same.
        digits: Decimals of the numbers; what is the same to so many has the same rank.
    """
    ranks = table.round(digits).rank(method="min")
    shares = table / table.loc[NOTHING] if NOTHING in table.index else table / table.max()
    fig, ax = plt.subplots(figsize=(min(MAX_WIDTH, 2.0 + 1.05 * table.shape[1]), 1.5 + 0.32 * len(table)))
    norm = TwoSlopeNorm(1.0, 0.0, 2.0)
    ax.imshow(shares.to_numpy(float), cmap="PuOr_r", norm=norm, aspect="auto", alpha=0.55)
    for y, method in enumerate(table.index):
        for x, name in enumerate(table.columns):
            value, rank = table.loc[method, name], ranks.loc[method, name]
            text = (
                "" if np.isnan(value) else f"{value:.{digits}f}" + ("" if name in bars else f"  ({rank:.0f})")
            )
            ax.text(x, y, text, ha="center", va="center", fontsize=7.5)
    labels = [str(name).replace("-", "-\n", 1).replace(" ", "\n", 1) for name in table.columns]
    ax.set_xticks(range(table.shape[1]), labels)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_yticks(range(len(table)), list(table.index))
    ax.spines[:].set_visible(False)
    fig.suptitle(title)
    return fig


@styled
def case_sheet(
    rows: Mapping[str, Sequence[tuple[Sequence[AnyImage], str, np.ndarray | None]]],
    cases: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Show a few cases of each method side by side, each as some pictures with a note below.

    Args:
        rows: By the name of a method, for each of `cases`: the pictures of `columns`, the note, and the
            landmarks `(68, 2)` that they are cropped around, or None.
        cases: What stands above a group of pictures.
        columns: What stands above each picture of a group.
        title: The message.
    """
    count, gap = len(columns), 0.12
    widths = ([1.0] * count + [gap]) * len(cases)
    side = (MAX_WIDTH - LABEL_WIDTH) / sum(widths[:-1])
    size = MAX_WIDTH, len(rows) * (side + 0.16) + 0.75
    fig, axes = plt.subplots(
        len(rows), len(widths) - 1, figsize=size, squeeze=False, gridspec_kw={"width_ratios": widths[:-1]}
    )
    fig.suptitle(title)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for y, (name, shown) in enumerate(rows.items()):
        axes[y, 0].set_ylabel(name.replace("-", "-\n", 1), rotation=0, ha="right", va="center")
        for place, (pictures, note, face) in enumerate(shown):
            for x, picture in enumerate(pictures):
                ax = axes[y, place * (count + 1) + x]
                _show(ax, picture, "" if y else ("\n" if x else f"{cases[place]}\n") + columns[x])
                if face is not None:
                    _zoom(ax, face)
            middle = axes[y, place * (count + 1) + count // 2]
            middle.set_xlabel(note, fontsize=7, labelpad=1)
    return fig
