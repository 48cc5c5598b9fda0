"""Tables of images: edits, flows, matches and drags, a name beside each row and above each column."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.flow import flow_to_rgb
from dragstudy.plotting import (
    HANDLE,
    MAX_WIDTH,
    TARGET,
    AnyImage,
    _show,
    _show_wheel,
    draw_drags,
    styled,
    to_array,
)

MANY = 12  # more drags than this are drawn as lines and dots
FIELD = "#F0E442"  # of a field of arrows
LABEL_WIDTH = 0.9  # inches beside a sheet for the names of its rows


@styled
def image_sheet(
    rows: Mapping[str, Sequence[AnyImage]],
    columns: Sequence[str],
    *,
    faces: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    side: float = 2.0,
) -> Figure:
    """Show a table of images: a name beside each row, a name above each column.

    Args:
        rows: Images of one size by the name of their row.
        columns: What stands above each column.
        faces: Landmarks by row; of its images the square around them is shown.
        title: The message.
        side: Width of an image in inches, at most; narrower where there are many columns.
    """
    fig, axes = _sheet(list(rows), len(columns), title, side, next(iter(rows.values()))[0])
    for number, (name, images) in enumerate(rows.items()):
        for ax, image, column in zip(axes[number], images, columns, strict=True):
            _show(ax, image, "" if number else column)
            if faces and name in faces:
                _zoom(ax, faces[name])
    return fig


@styled
def flow_sheet(
    image: AnyImage,
    drags: Mapping[str, DragInstruction],
    flows: Mapping[str, Sequence[Tensor]],
    *,
    title: str = "",
    max_flow: float | None = None,
) -> Figure:
    """Show what several methods make of several requests: one request a column, one method a row.

    Args:
        image: The source image, on which the first row draws the drags.
        drags: Requests by the name of their column.
        flows: By the name of a row, one flow in pixels for each request, `(2, h, w)` or `(1, 2, h, w)`.
        title: The message.
        max_flow: Length in pixels of full colour; by default the longest of all flows.
    """
    batches = {
        name: torch.cat([flow.reshape(1, 2, *flow.shape[-2:]) for flow in row]) for name, row in flows.items()
    }
    longest = max_flow or max(float(batch.norm(dim=1).max()) for batch in batches.values())
    fig, axes = _sheet(["source and drags", *flows], len(drags) + 1, title, 2.0, image)
    for ax, (name, request) in zip(axes[0], drags.items(), strict=False):
        _show(ax, image, name)
        _draw_drags(ax, request)
    for row, batch in zip(axes[1:], batches.values(), strict=True):
        for ax, colours in zip(row, flow_to_rgb(batch, max_flow=longest), strict=False):
            _show(ax, colours.permute(1, 2, 0).numpy(), "")
            ax.spines[:].set(visible=True, color="#cccccc", linewidth=0.5)  # white is a flow, too
    _show_wheel(axes[0, -1], longest)
    for ax in axes[1:, -1]:
        ax.set_visible(False)
    return fig


@styled
def match_sheet(
    pairs: Sequence[Mapping[str, Any]],
    found: Mapping[str, Sequence[np.ndarray]],
    *,
    title: str = "",
    points: Sequence[int] = range(68),
    side: float = 1.6,
) -> Figure:
    """Show where methods find the landmarks of one frame in another: one pair a row, one method a column.

    Every landmark has its colour. In a method's column a dot is where it is found, and a line leads from
    there to where it is.

    Args:
        pairs: Items with `source`, `target`, `landmarks` and `target_landmarks`, see `PairDataset`.
        found: By the name of a method, for each pair what `match_features` gave for `points`, `(n, 2)`.
        title: The message.
        points: Indices of the landmarks that were sought.
        side: Width of an image in inches, at most; narrower where there are many columns.
    """
    names = ["source", "target", *found]
    fig, axes = _sheet([""] * len(pairs), len(names), title, side, pairs[0]["source"])
    colors = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(points)))
    for number, (row, pair) in enumerate(zip(axes, pairs, strict=True)):
        handles, truth = (pair[name][list(points)] for name in ("landmarks", "target_landmarks"))
        for ax, name in zip(row, names, strict=True):
            _show(ax, pair["source" if name == "source" else "target"], "" if number else name)
            dots = {"source": handles, "target": truth}.get(name)
            if dots is None:
                dots = found[name][number]
                lines = np.stack([dots, truth], axis=1)
                ax.add_collection(LineCollection(lines, colors=colors, linewidths=0.8, alpha=0.8))
            ax.scatter(*np.asarray(dots).T, s=12, c=colors, edgecolors="black", linewidths=0.3, zorder=3)
    return fig


@styled
def drag_sheet(
    rows: Mapping[str, Sequence[AnyImage]],
    columns: Sequence[str],
    drags: Mapping[str, Sequence[DragInstruction | None]],
    flows: Mapping[str, Sequence[Tensor | None]] | None = None,
    *,
    faces: Sequence[np.ndarray] = (),
    title: str = "",
    side: float = 2.0,
) -> Figure:
    """Show a table of images, each with its own drags on it and, if given, the flow as a field of arrows.

    Drags are thin arrows without dots, so that little of the picture is hidden.

    Args:
        rows: Images of one size by the name of their row.
        columns: What stands above each column.
        drags: By the name of a row, the drags of each of its images, or None; a row may be absent.
        flows: The same of flows in pixels, `(2, h, w)` or `(1, 2, h, w)`, or None; arrows have their true
            length.
        faces: For each column the landmarks `(68, 2)` that its pictures are cropped around; empty: no crop.
        title: The message.
        side: Width of an image in inches, at most; narrower where there are many columns.
    """
    fig, axes = _sheet(list(rows), len(columns), title, side, next(iter(rows.values()))[0])
    for number, (name, images) in enumerate(rows.items()):
        for place, (image, column) in enumerate(zip(images, columns, strict=True)):
            ax = axes[number, place]
            _show(ax, image, "" if number else column)
            if flows and name in flows and flows[name][place] is not None:
                _draw_field(ax, flows[name][place])
            if name in drags and drags[name][place] is not None:
                _draw_arrows(ax, drags[name][place])
            if len(faces):
                _zoom(ax, faces[place])
    return fig


def _sheet(
    names: Sequence[str], columns: int, title: str, side: float, image: AnyImage
) -> tuple[Figure, np.ndarray]:
    """Axes without ticks for rows of images of the shape of `image`, each row with its name at its left."""
    height, width = to_array(image).shape[:2]
    side = min(side, (MAX_WIDTH - LABEL_WIDTH) / columns)
    size = LABEL_WIDTH + side * columns, len(names) * side * height / width + (0.55 if title else 0.25)
    fig, axes = plt.subplots(len(names), columns, figsize=size, squeeze=False)
    fig.suptitle(title)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return fig, axes


def _draw_drags(ax: Axes, request: DragInstruction) -> None:
    """Arrows for a few drags; lines that end in a dot at the handle for many."""
    handles, targets = request.handle_points, request.target_points
    if len(handles) <= MANY:
        draw_drags(ax, handles, targets)
        return
    ax.plot(*np.stack([handles, targets]).transpose(2, 0, 1), color=TARGET, linewidth=1)
    ax.scatter(*handles.T, s=5, color=HANDLE, zorder=3)


def _draw_arrows(ax: Axes, request: DragInstruction) -> None:
    """A thin white arrow a drag."""
    outline = [withStroke(linewidth=2.4, foreground="black")]
    arrow = {"arrowstyle": "-|>", "color": "white", "lw": 1.2, "mutation_scale": 6, "path_effects": outline}
    arrow |= {"shrinkA": 0, "shrinkB": 0}
    for handle, target in zip(request.handle_points, request.target_points, strict=True):
        ax.annotate("", target, handle, arrowprops=arrow, annotation_clip=True)


def _zoom(ax: Axes, landmarks: np.ndarray) -> None:
    """Show the square around a face, twice as large as the box of its landmarks but inside the picture."""
    low, high = np.asarray(landmarks).min(axis=0), np.asarray(landmarks).max(axis=0)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    size = np.array([right - left, bottom - top])
    side = min(2 * (high - low).max(), *size)
    start = np.clip((low + high - side) / 2 - (0, 0.1 * side), (left, top), size - side + (left, top))
    ax.set(xlim=(start[0], start[0] + side), ylim=(start[1] + side, start[1]))


def _draw_field(ax: Axes, flow: Tensor, per_side: int = 16) -> None:
    """Arrows of a flow's own length on a regular grid; a dot where it moves by less than half a pixel."""
    u, v = flow.reshape(2, *flow.shape[-2:]).cpu().numpy()
    step = max(u.shape) / per_side
    y, x = (np.arange(step / 2, length, step).astype(int) for length in u.shape)
    x, y = (grid.ravel() for grid in np.meshgrid(x, y))
    u, v = u[y, x], v[y, x]
    moving = np.hypot(u, v) >= 0.5
    ax.scatter(x[~moving], y[~moving], s=1, color="white", alpha=0.5, linewidths=0)
    lengths = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "headwidth": 4}
    ax.quiver(x[moving], y[moving], u[moving], v[moving], color=FIELD, **lengths)
