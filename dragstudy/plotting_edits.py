"""Figures of edits: a drag and what settings make of it, and the way that a tracked handle went."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.plotting import AnyImage, _grid, _show, draw_drags, styled, to_array
from dragstudy.plotting_sheets import _draw_arrows, _sheet, _zoom

TRACK = "#ffd400"


@styled
def edit_row(
    images: Sequence[AnyImage],
    titles: Sequence[str],
    drag: DragInstruction,
    *,
    face: np.ndarray | None = None,
    title: str = "",
    columns: int = 6,
) -> Figure:
    """Show a photograph with its drag, then pictures of the same size beside it.

    Args:
        images: The photograph first.
        titles: One for each; long ones are broken into lines.
        drag: Drawn on the photograph.
        face: Landmarks `(68, 2)` that all are cropped around.
        title: The message.
        columns: Images in a row, at most.
    """
    fig, axes = _grid(len(images), columns, title, images[0])
    for ax, image, text in zip(axes, images, titles, strict=False):
        _show(ax, image, fill(text, 120 // columns))  # that many letters are as wide as an image
        if face is not None:
            _zoom(ax, np.asarray(face))
    draw_drags(axes[0], drag.handle_points, drag.target_points)
    return fig


@styled
def trajectory_sheet(
    rows: Mapping[str, Sequence[AnyImage]],
    columns: Sequence[str],
    drags: Sequence[DragInstruction],
    tracks: Mapping[str, Sequence[np.ndarray]],
    *,
    faces: Sequence[np.ndarray] = (),
    title: str = "",
) -> Figure:
    """Show edits with what was asked, as a thin arrow, and where the tracker says that the handles went.

    Args:
        rows: Images of one size by the name of their row.
        columns: What stands above each column.
        drags: One for each column.
        tracks: By the name of a row, the handles over the iterations `(k, n, 2)` of each of its images.
        faces: For each column the landmarks `(68, 2)` that its pictures are cropped around; empty: no crop.
        title: The message.
    """
    fig, axes = _sheet(list(rows), len(columns), title, 2.0, next(iter(rows.values()))[0])
    outline = [withStroke(linewidth=2.4, foreground="black")]
    for number, (name, images) in enumerate(rows.items()):
        for place, image in enumerate(images):
            ax = axes[number, place]
            _show(ax, image, "" if number else columns[place])
            _draw_arrows(ax, drags[place])
            for track in np.moveaxis(tracks[name][place], 1, 0) if name in tracks else ():
                ax.plot(*track.T, color=TRACK, linewidth=1.2, path_effects=outline)
                ax.plot(*track[-1], "o", color=TRACK, markersize=3, path_effects=outline)
            if len(faces):
                _zoom(ax, faces[place])
    return fig


def glow(image: AnyImage, weights: np.ndarray | Tensor, *, strength: float = 0.75) -> np.ndarray:
    """A picture, dark but where weights on a coarse grid are large, as uint8 `(h, w, 3)`.

    Args:
        image: The picture.
        weights: `(rows, columns)`, not negative; the largest is the brightest.
        strength: Share of the result that is the colour of the weights.
    """
    pixels, found = to_array(image), np.asarray(weights, dtype=np.float32)
    large = cv2.resize(found / max(found.max(), 1e-12), pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    colours = plt.get_cmap("inferno")(large.clip(0, 1))[..., :3]
    mixed = strength * 255 * colours + (1 - strength) * pixels.reshape(*pixels.shape[:2], -1)
    return mixed.round().astype(np.uint8)
