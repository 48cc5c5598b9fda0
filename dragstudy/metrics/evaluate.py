"""Run an editing method over pairs of frames, and say how good it is, with intervals.

A pair knows what the edit should look like: its source is edited by drags that its target answers.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dragstudy.drags import DragInstruction
from dragstudy.images import load_image, to_tensor
from dragstudy.metrics.distance import landmark_distance
from dragstudy.metrics.fidelity import background_change, lpips_distance, psnr, ssim
from dragstudy.metrics.intervals import (
    DO_NOTHING,
    METRICS,
    bar,
    bootstrap_interval,
    interval_table,
    margins,
    shares,
    summarize,
)
from dragstudy.metrics.perceptual import lpips_model
from dragstudy.metrics.single_drags import SINGLE_DRAGS, dragged_share, single_drag
from dragstudy.pipelines import DragPipeline
from dragstudy.progress import progress

__all__ = [
    "DO_NOTHING",
    "METRICS",
    "SINGLE_DRAGS",
    "bar",
    "bootstrap_interval",
    "dragged_share",
    "evaluate_edits",
    "face_region",
    "flow_drags",
    "head_mask",
    "interval_table",
    "landmark_drags",
    "lpips_model",
    "margins",
    "measure_edit",
    "shares",
    "single_drag",
    "summarize",
]

Item = Mapping[str, Any]
Drags = tuple[np.ndarray, np.ndarray]
Edit = DragPipeline | Callable[[Item, np.ndarray, np.ndarray, torch.Generator], Any]


def landmark_drags(item: Item, points: Sequence[int] = range(68)) -> Drags | None:
    """Drags from some of dlib's landmarks of the source to those of the target, each `(n, 2)`.

    Landmarks that either frame lacks, or that lie outside of it, are left out; None if none is left.
    """
    chosen = list(points)
    handles, targets = (
        np.asarray(item[name], dtype=np.float64)[chosen] for name in ("landmarks", "target_landmarks")
    )
    edge = np.array(item["source"].shape[:-3:-1]) - 0.5
    kept = np.logical_and.reduce(
        [((points >= -0.5) & (points <= edge)).all(axis=1) for points in (handles, targets)]
    )
    return (handles[kept], targets[kept]) if kept.any() else None


def flow_drags(item: Item, points: Sequence[int] = range(68)) -> DragInstruction:
    """Drags from some of dlib's landmarks, rounded to pixels on the person, to where the flow takes them."""
    h, w = item["flow"].shape[-2:]
    x, y = item["landmarks"][list(points)].round().long().T
    x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
    on_person = item["mask"][0, y, x] > 0
    x, y = x[on_person], y[on_person]
    handles = torch.stack([x, y], dim=1)
    return DragInstruction(handles.numpy(), (handles + item["flow"][:, y, x].T).numpy())


def evaluate_edits(
    edit: Edit,
    pairs: Iterable[Item],
    *,
    method: str = "edit",
    drags: Callable[[Item], Drags | None] = landmark_drags,
    detector: Callable[[np.ndarray], np.ndarray | None] | None = None,
    lpips: nn.Module | None = None,
    seed: int = 0,
    do_nothing: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Edit the source of every pair and compare it with the target.

    Args:
        edit: A drag pipeline, called as `edit(source, handle_points, target_points, generator=...,
            **options)`; or a function of `(item, handle_points, target_points, generator)` that returns an
            image, or what a pipeline returns. The function sees the whole pair, so that it can use its flow.
        pairs: Items of a `PairDataset`.
        method: Name of the method in the table.
        drags: From an item to its drags; pairs for which it gives None are left out.
        detector: Face landmarks of a frame, see `landmark_distance`; without one that column is NaN.
        lpips: What `lpips_model` gives; AlexNet by default.
        seed: Every pair is edited with a generator of this seed.
        do_nothing: Add a row for each pair's source itself, as method `"do nothing"`.
        options: Further arguments of a pipeline's call.

    Returns:
        A frame of one row a pair and method: `method`, `key`, `drags` (their number); against the target
        `psnr` in dB, `ssim`, `lpips` and `landmark_distance` in pixels; against the source
        `background_change`, in grey levels outside the dilated masks of both frames; `seconds` of the edit.
    """
    rows = []
    for item in progress(pairs, description=method):
        points = drags(item)
        if points is None:
            continue
        began = time.perf_counter()
        edited = _edit(edit, item, points, torch.Generator().manual_seed(seed), options)
        images = {method: (edited, time.perf_counter() - began)}
        if do_nothing:
            images[DO_NOTHING] = (item["source"][None], 0.0)
        for name, (image, seconds) in images.items():
            known = {"method": name, "key": item["key"], "drags": len(points[0])}
            rows.append(known | measure_edit(image, item, detector, lpips) | {"seconds": seconds})
    return pd.DataFrame(rows, columns=["method", "key", "drags", *METRICS])


@torch.no_grad()
def measure_edit(
    image: Tensor,
    item: Item,
    detector: Callable[[np.ndarray], np.ndarray | None] | None = None,
    lpips: nn.Module | None = None,
) -> dict[str, float]:
    """Compare an edited image `(1, 3, h, w)` in [0, 1] with its pair; the columns of `evaluate_edits`."""
    target, source = item["target"][None], item["source"][None]
    people = torch.maximum(item["mask"], item["target_mask"])[None]
    distance = float("nan")
    if detector is not None:
        landmarks = np.asarray(item["target_landmarks"], np.float64)
        distance = landmark_distance(_frame(image), landmarks, detector)
    return {
        "psnr": psnr(image, target).item(),
        "ssim": ssim(image, target).item(),
        "lpips": lpips_distance(image, target, model=lpips).item(),
        "landmark_distance": distance,
        "background_change": background_change(image, source, people).item(),
    }


def face_region(landmarks: Any, size: tuple[int, int]) -> Tensor:
    """The convex hull of a face's landmarks `(68, 2)`, boolean `(h, w)` of a picture of `size` `(h, w)`."""
    hull = cv2.convexHull(np.asarray(landmarks).round().astype(np.int32))
    return torch.from_numpy(cv2.fillConvexPoly(np.zeros(size, np.uint8), hull, 1)) > 0


def head_mask(item: Item, *, margin: float = 0.08) -> np.ndarray:
    """What somebody who drags a face would free: the head of both frames, and a rim around it.

    dlib's landmarks end at the brows; forehead and hair are taken to reach as far above them again as 0.6 of
    the way from the chin to them.

    Args:
        item: Of a `PairDataset`, with both frames' landmarks.
        margin: Of the rim, in widths of the first frame's face.

    Returns:
        `(h, w)` uint8, 1 = may change.
    """
    size = tuple(item["source"].shape[-2:])
    heads = []
    for name in ("landmarks", "target_landmarks"):
        points = np.asarray(item[name], np.float64)
        brows, chin = points[17:27], points[8]
        heads.append(face_region(np.concatenate([points, brows + 0.6 * (brows.mean(axis=0) - chin)]), size))
    side = 2 * round(margin * float(np.ptp(np.asarray(item["landmarks"])[:, 0]))) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate((heads[0] | heads[1]).numpy().astype(np.uint8), disc)


def _edit(edit: Edit, item: Item, points: Drags, generator: torch.Generator, options: dict) -> Tensor:
    """The edited image, `(1, 3, h, w)` in [0, 1], in steps of 1/255."""
    if isinstance(edit, DragPipeline):
        result = edit(item["source"], *points, generator=generator, **options)
    else:
        result = edit(item, *points, generator)
    image = result.images[0] if hasattr(result, "images") else result
    return to_tensor(load_image(image))


def _frame(image: Tensor) -> np.ndarray:
    """The first of some images `(b, 3, h, w)` in [0, 1] as uint8 `(h, w, 3)`."""
    return (image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
