"""Whether features know what is the same: how far from a landmark its look-alike in another frame lies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dragstudy.data.pairs import PairDataset
from dragstudy.metrics.distance import match_features
from dragstudy.metrics.evaluate import landmark_drags

CHANCE = "chance"
NO_MOTION = "no motion"


def frame_pairs(
    pairs: PairDataset, count: int, *, generator: torch.Generator
) -> list[dict[str, Tensor | str]]:
    """Pairs of frames of one clip, drawn at random, so mostly farther apart than the pairs of a data set.

    Every frame is in one pair at most, and clips take turns. Frames without landmarks are left out.

    Args:
        pairs: Where the frames come from: the sources of these pairs.
        count: Pairs wanted; where the clips have fewer, all there are.
        generator: Source of the draws.

    Returns:
        Items with `source`, `target`, `landmarks`, `target_landmarks`, `mask`, `target_mask` and `key` as
        those of a `PairDataset`, and `clip`.
    """
    drawn = []
    firsts = pairs.manifest.drop_duplicates(["clip", "source_index"])
    for clip, rows in firsts.groupby("clip", sort=False):
        order = rows.index[torch.randperm(len(rows), generator=generator).numpy()]
        couples = zip(order[::2], order[1::2], strict=False)
        drawn += [(turn, clip, first, second) for turn, (first, second) in enumerate(couples)]
    found = []
    for _, clip, first, second in sorted(drawn, key=lambda one: one[0]):
        if len(found) == count:
            break
        source, target = pairs[first], pairs[second]
        item = {name: source[name] for name in ("source", "landmarks", "mask")}
        item |= {"target": target["source"]}
        item |= {f"target_{name}": target[name] for name in ("landmarks", "mask")}
        if landmark_drags(item) is not None:
            indices = (pairs.manifest["source_index"].iloc[k] for k in (first, second))
            found.append(item | {"clip": clip, "key": "-".join(map(str, (clip, *indices)))})
    return found


def measure_correspondence(
    features: Mapping[str, Callable[[Tensor], Tensor]],
    pairs: Iterable[Mapping[str, Any]],
    *,
    points: Sequence[int] = range(68),
) -> pd.DataFrame:
    """How far from the target's landmarks the features of the source's landmarks are found.

    What lies at a landmark of the source is sought everywhere in the target, by the largest cosine of
    features (DIFT, Tang et al. 2023; DragBench's mean distance is the same search). The grid of the features
    bounds what is possible: half a cell of it is some 0.4 cells of mean distance.

    Args:
        features: By the name of a method, from an image `(1, 3, h, w)` in [0, 1] to a map `(1, c, h', w')`.
        pairs: Items of a `PairDataset`, or of `frame_pairs`.
        points: Indices of the landmarks that count.

    Returns:
        A frame of one row a pair and method, for `dragstudy.metrics.evaluate.summarize` with
        `metrics=["distance"]`: `method`, `key`, `points` (their number) and `distance`, their mean in pixels.
        Two more methods stand for knowing nothing: `"chance"`, a random pixel on the target's person (the
        expectation, not a draw), and `"no motion"`, the place where the landmark was in the source.
    """
    rows = []
    for item in pairs:
        drags = landmark_drags(item, points)
        if drags is None:
            continue
        handles, targets = drags
        source, target = item["source"][None], item["target"][None]
        distances = {
            CHANCE: chance_distance(targets, item["target_mask"][0].numpy()),
            NO_MOTION: np.linalg.norm(handles - targets, axis=1),
        }
        for name, extract in features.items():
            found = match_features(extract(source), extract(target), handles, tuple(source.shape[-2:]))
            distances[name] = np.linalg.norm(found - targets, axis=1)
        known = {"key": item["key"], "points": len(handles)}
        rows += [{"method": name, **known, "distance": d.mean()} for name, d in distances.items()]
    return pd.DataFrame(rows, columns=["method", "key", "points", "distance"])


def chance_distance(
    targets: Float[np.ndarray, "n 2"], mask: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, " n"]:
    """Expected distance in pixels of a random pixel of the mask (of the image if it is empty) to each target.

    Args:
        targets: x, y in pixels.
        mask: Above 0.5 where the pixel may lie.

    Example:
        >>> chance_distance(np.array([[0.0, 0.0]]), np.ones((1, 3))).tolist()
        [1.0]
    """
    inside = mask > 0.5
    y, x = np.nonzero(inside if inside.any() else np.ones_like(inside))
    return np.hypot(targets[:, :1] - x, targets[:, 1:] - y).mean(axis=1)
