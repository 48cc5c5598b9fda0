"""Figures of data curation: one function a figure, images and points as in `dragstudy.plotting`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dragstudy.data.estimators import Frame, FrameFlow
from dragstudy.data.video import Crop
from dragstudy.flow import backward_warp, flow_to_rgb
from dragstudy.plotting import CYCLE, HANDLE, METHOD_COLORS, TARGET, _grid, _show, draw_drags, styled

if TYPE_CHECKING:
    import pandas as pd

    from dragstudy.data.pairs import Pair

Boxes = Sequence[Float[np.ndarray, "n 5"]]
DIFFERENCE_GAIN = 4  # how much brighter than it is a difference is drawn


@styled
def clip_sheet(frames: Sequence[Frame], titles: Sequence[str], crop: Crop, *, title: str = "") -> Figure:
    """Show whole frames of a clip and the square that is cut out of each.

    Args:
        frames: Frames of one size.
        titles: What stands above each.
        crop: The square.
        title: The message.
    """
    fig, axes = _grid(len(frames), 6, title, frames[0])
    for ax, frame, name in zip(axes, frames, titles, strict=False):
        _show(ax, frame, name)
        ax.add_patch(_box(crop.x, crop.y, crop.x + crop.width - 1, crop.y + crop.height - 1))
    return fig


@styled
def pair_scatter(manifest: "pd.DataFrame", min_difference: float, *, title: str = "") -> Figure:
    """Show every considered pair by the distance of its frames and by how much they differ.

    Args:
        manifest: `manifest.parquet` of `dragstudy curate`.
        min_difference: The line below which a pair is near-identical, in grey levels of 255.
        title: The message.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(manifest))
    interval = manifest["target_index"] - manifest["source_index"] + jitter
    reasons = ["", *sorted(set(manifest["reason"]) - {""})]
    for reason, color in zip(reasons, [METHOD_COLORS["nothing"], *CYCLE], strict=False):
        chosen = manifest["reason"] == reason
        name = reason.replace("_", " ") or "kept"
        ax.scatter(interval[chosen], manifest["mean_difference"][chosen], s=14, color=color, label=name)
    ax.axhline(min_difference, color="black", linewidth=0.8, linestyle="--")
    ax.set_yscale("log")
    ax.set(xlabel="distance of the two frames (frames at this rate)", title=title)
    ax.set_ylabel("difference inside the mask (grey levels)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def dropped_sheet(
    pairs: Sequence[tuple[Frame, Frame]],
    reasons: Sequence[str],
    *,
    boxes: Sequence[tuple[Boxes, Boxes]] = (),
    title: str = "",
) -> Figure:
    """Show dropped pairs, two a row: both frames and their difference, with the reason above.

    Args:
        pairs: Source and target frame of each pair.
        reasons: The reason of each.
        boxes: For each pair, what was found in its source and in its target: left, top, right, bottom, score.
        title: The message.
    """
    fig, axes = _grid(3 * len(pairs), 6, title, pairs[0][0])
    for row, ((source, target), reason) in enumerate(zip(pairs, reasons, strict=True)):
        difference = cv2.absdiff(source, target).max(axis=2).astype(np.uint16) * DIFFERENCE_GAIN
        trio = axes[3 * row : 3 * row + 3]
        pictures = (source, target, difference.clip(0, 255).astype(np.uint8))
        names = (reason, "target", f"difference x{DIFFERENCE_GAIN}")
        for ax, picture, name in zip(trio, pictures, names, strict=True):
            _show(ax, picture, name)
        for ax, found in zip(trio, boxes[row] if boxes else (), strict=False):
            for left, top, right, bottom, _ in found:
                ax.add_patch(_box(left, top, right, bottom))
    return fig


@styled
def people_row(pairs: Sequence["Pair"], special_points: Sequence[int] = (), *, title: str = "") -> Figure:
    """Show what is found in the source frames of pairs: the person's outline and the face's landmarks.

    Args:
        pairs: At most six pairs.
        special_points: Landmarks to draw larger, 0 to 67.
        title: The message.
    """
    fig, axes = _grid(len(pairs), 6, title, pairs[0].source)
    for ax, pair in zip(axes, pairs, strict=False):
        _show(ax, np.where(pair.mask[..., None] > 0, pair.source, pair.source // 3), "")
        ax.contour(pair.mask, levels=[127], colors="white", linewidths=1)
        if pair.landmarks is not None:
            ax.scatter(*pair.landmarks.T, s=3, color=TARGET)
            chosen = pair.landmarks[list(special_points)]
            ax.scatter(*chosen.T, s=14, color=HANDLE, edgecolors="black", linewidths=0.5)
    return fig


@styled
def sampler_columns(image: Frame, samples: Mapping[str, Sequence[Tensor]], *, title: str = "") -> Figure:
    """Show sampled drags on their image, one sampler a column, one draw a row; at most six samplers.

    Args:
        image: The source image.
        samples: Sparse flows in pixels by the name of the sampler, each `(2, h, w)`, equally many of each.
        title: The message.
    """
    draws = [
        (name, flow)
        for row in zip(*samples.values(), strict=True)
        for name, flow in zip(samples, row, strict=True)
    ]
    fig, axes = _grid(len(draws), len(samples), title, image)
    for ax, (name, sparse) in zip(axes, draws, strict=True):
        flow = sparse.numpy()
        y, x = flow.any(axis=0).nonzero()
        _show(ax, image, f"{name}: {len(x)}")
        ax.plot([x, x + flow[0, y, x]], [y, y + flow[1, y, x]], color=TARGET, linewidth=1.2)
        ax.scatter(
            x, y, s=12 if len(x) <= 100 else 2, color=HANDLE, edgecolors="black", linewidths=0.3, zorder=3
        )
    return fig


@styled
def drag_pair_sheet(pairs: Sequence["Pair"], *, title: str = "") -> Figure:
    """Show LightningDrag pairs, two a row: the source with its drags, the target, the mask of what moves."""
    fig, axes = _grid(3 * len(pairs), 6, title, pairs[0].source)
    for row, pair in enumerate(pairs):
        trio = axes[3 * row : 3 * row + 3]
        names = ("source and drags", "target", "what moves")
        for ax, picture, name in zip(trio, (pair.source, pair.target, pair.mask), names, strict=True):
            _show(ax, picture, name)
        draw_drags(trio[0], pair.info["handle_points"], pair.info["target_points"])
    return fig


@styled
def consistency_row(pair: "Pair", backward: FrameFlow, *, title: str = "") -> Figure:
    """Show a pair, its flow both ways, the target pulled back, and where the two flows disagree.

    Args:
        pair: The pair, with its forward flow.
        backward: Flow from the target to the source, in pixels.
        title: The message.
    """
    flows = torch.from_numpy(np.stack([pair.flow, backward]))
    colours = flow_to_rgb(flows).permute(0, 2, 3, 1).numpy()
    target = torch.from_numpy(pair.target).permute(2, 0, 1)[None] / 255
    doubtful = pair.source.copy()
    doubtful[pair.valid == 0] = doubtful[pair.valid == 0] // 3 + np.array([150, 30, 0], np.uint8)
    pictures = {"source": pair.source, "target": pair.target, "flow forward": colours[0]}
    pictures |= {"flow backward": colours[1], "target pulled back": backward_warp(target, flows[:1])}
    fig, axes = _grid(6, 6, title, pair.source)
    for ax, (name, picture) in zip(axes, {**pictures, "red: flows disagree": doubtful}.items(), strict=True):
        _show(ax, picture, name)
    return fig


def _box(left: float, top: float, right: float, bottom: float) -> Rectangle:
    """An outline around whole pixels."""
    size = right - left + 1, bottom - top + 1
    return Rectangle((left - 0.5, top - 0.5), *size, fill=False, edgecolor=HANDLE, linewidth=1.8)
