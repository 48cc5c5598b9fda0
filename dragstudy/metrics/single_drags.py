"""Drags of one landmark: no second frame answers them, but one can see how far the landmark went."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dragstudy.drags import DragInstruction
from dragstudy.images import load_image, to_tensor
from dragstudy.metrics.fidelity import lpips_distance
from dragstudy.metrics.intervals import DO_NOTHING
from dragstudy.progress import progress

SINGLE_DRAGS = {  # name: (landmark, where to, in distances between the outer corners of the eyes)
    "mouth corner": (48, (-0.12, -0.12)),
    "brow": (19, (0.0, -0.15)),
    "chin": (8, (0.0, 0.2)),
    "nose": (30, (0.25, 0.0)),
}

SINGLE_METRICS = ("distance", "share", "lpips", "seconds")

Item = Mapping[str, Any]
Detector = Callable[[np.ndarray], np.ndarray | None]


def single_drag(item: Item, name: str) -> DragInstruction:
    """One drag of `SINGLE_DRAGS` on the source of a pair; its length goes with the size of the face.

    A mouth corner goes up and outwards, a brow up, the chin down, the nose to the right of the picture.
    """
    index, direction = SINGLE_DRAGS[name]
    points = np.asarray(item["landmarks"], dtype=np.float64)
    handle = points[[index]]
    return DragInstruction(handle, handle + np.linalg.norm(points[45] - points[36]) * np.array(direction))


def dragged_share(
    image: Tensor, item: Item, name: str, detector: Callable[[np.ndarray], np.ndarray | None]
) -> tuple[float, float]:
    """How far the landmark of a `single_drag` went of the way that was asked, and how far it is from its end.

    Args:
        image: Edited source, `(1, 3, h, w)` in [0, 1].
        item: The pair; only its source counts.
        name: Key of `SINGLE_DRAGS`.
        detector: Face landmarks of a frame, see `landmark_distance`.

    Returns:
        Share of the way along the drag (1: all of it; may be negative or more than 1), and distance to the
        drag's target in pixels; NaN without a face.
    """
    found = detector((image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    if found is None:
        return float("nan"), float("nan")
    drag, landmark = single_drag(item, name), found[SINGLE_DRAGS[name][0]]
    asked = drag.displacements[0]
    went = landmark - drag.handle_points[0]
    return float(went @ asked / (asked @ asked)), float(np.linalg.norm(went - asked))


def evaluate_single_drags(
    edit: Callable[..., Any],
    items: Iterable[Item],
    names: Sequence[str] = tuple(SINGLE_DRAGS),
    *,
    method: str,
    detector: Detector,
    lpips: nn.Module | None = None,
    mask: Callable[[Item], np.ndarray] | None = None,
    seed: int = 0,
    do_nothing: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Edit the source of every pair by one drag at a time.

    Args:
        edit: A drag pipeline.
        items: Items of a `PairDataset`; only their sources count.
        names: Keys of `SINGLE_DRAGS`.
        method: Name of the method in the table.
        detector: Face landmarks of a frame, see `landmark_distance`.
        lpips: What `lpips_model` gives; AlexNet by default.
        mask: From an item to what may change, `(h, w)`.
        seed: Every edit has a generator of this seed.
        do_nothing: Add rows for the sources themselves, as method `"do nothing"`.
        options: Further arguments of the pipeline's call.

    Returns:
        A frame of one row an edit: `method`, `key`, `drag`; `distance` of the landmark from the drag's target
        in pixels and the `share` of the way that it went, both NaN where no face is found any more; `lpips`
        to the source, which only says how much has changed; `seconds`.
    """
    rows = []
    for item in progress(items, description=method):
        for name in names:
            drag, given = single_drag(item, name), dict(options)
            if mask is not None:
                given["mask"] = mask(item)
            generator, began = torch.Generator().manual_seed(seed), time.perf_counter()
            result = edit(
                item["source"], drag.handle_points, drag.target_points, generator=generator, **given
            )
            images = {method: (to_tensor(load_image(result.images[0])), time.perf_counter() - began)}
            if do_nothing:
                images[DO_NOTHING] = (item["source"][None], 0.0)
            for who, (image, seconds) in images.items():
                share, distance = dragged_share(image, item, name, detector)
                changed = lpips_distance(image, item["source"][None], model=lpips).item()
                known = {"method": who, "key": item["key"], "drag": name}
                measured = dict(zip(SINGLE_METRICS, (distance, share, changed, seconds), strict=True))
                rows.append(known | measured)
    return pd.DataFrame(rows, columns=["method", "key", "drag", *SINGLE_METRICS])
