"""What a benchmark of edits asks: a photograph, what is to be dragged in it and, where known, the answer."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dragstudy.data.pairs import Pair
from dragstudy.drags import DragInstruction
from dragstudy.metrics.evaluate import head_mask, landmark_drags
from dragstudy.sparse import drags_from_sparse, sample_drags

MANIFESTS = Path(__file__).resolve().parents[2] / "data" / "benchmarks"
LANDMARK_SETS = {  # how many of dlib's landmarks are dragged: which; neither paper names its 17
    1: (30,),  # the nose
    5: (30, 36, 45, 48, 54),  # and the outer corners of eyes and mouth
    17: (0, 4, 8, 12, 16, 17, 21, 22, 26, 30, 33, 36, 45, 48, 51, 54, 57),
    68: tuple(range(68)),
}
RIM = 0.03  # width of the rim around what moved, in shorter sides, that a mask without a face frees


@dataclass(frozen=True, eq=False)
class Sample:
    """One edit to make, and what is known of how it should come out.

    Attributes:
        id: Unique within its benchmark, and stable for ever.
        image: The photograph.
        drags: What is asked, in pixels of the photograph; with a mask of what may change. A method whose
            paper knows no mask is given none.
        target: The true edit, of the photograph's size.
        landmarks: dlib's points of the photograph, `(68, 2)`, (x, y) in pixels.
        target_landmarks: Those of the true edit.
        flow: From the photograph to the true edit, `(1, 2, h, w)` in pixels.
        person: 1 on the people (or on what moves) of either picture, `(1, 1, h, w)`, else 0.
        prompt: What the photograph shows, in words.
    """

    id: str
    image: Image.Image
    drags: DragInstruction
    target: Image.Image | None = None
    landmarks: np.ndarray | None = None
    target_landmarks: np.ndarray | None = None
    flow: Tensor | None = None
    person: Tensor | None = None
    prompt: str = ""


@runtime_checkable
class Benchmark(Protocol):
    """Samples under fixed names in a fixed order; a sample is loaded when it is asked for."""

    name: str
    ids: tuple[str, ...]

    def sample(self, id: str) -> Sample:
        """Load one sample.

        Raises:
            ValueError: If there is none of this id.
        """


def frozen_manifest(name: str) -> dict[str, Any]:
    """What `data/benchmarks/<name>.json` holds fast."""
    return json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8"))


def spread(ids: Sequence[str], count: int | None) -> tuple[str, ...]:
    """The first `count` of some ids if one goes evenly over them all; all if `count` is None.

    Raises:
        ValueError: If `count` is less than 1.

    Example:
        >>> spread("abcdefgh", 3)
        ('a', 'c', 'f')
    """
    if count is None:
        return tuple(ids)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    count = min(count, len(ids))
    return tuple(ids[k * len(ids) // count] for k in range(count))


def place_of(ids: Sequence[str], id: str, benchmark: str) -> int:
    """Where an id stands.

    Raises:
        ValueError: If it does not.
    """
    try:
        return ids.index(id)
    except ValueError:
        raise ValueError(f"{benchmark} has no sample {id!r}; its first is {ids[0]!r}") from None


def sample_of_pair(pair: Pair, points: int = 68, *, known_flow: bool = True) -> Sample:
    """The edit that would turn the first frame of a pair into the second.

    Landmarks are dragged where both frames show a face, and what may change is the head of both frames and a
    rim around it (`metrics.evaluate.head_mask`). Otherwise it is pixels of what moves that are dragged, drawn
    from the flow by the pair's key, and what may change is what moves, and a rim.

    Args:
        pair: The pair.
        points: Which of `LANDMARK_SETS` to drag; without a face, how many pixels at most.
        known_flow: Whether the pair's flow may be taken for the truth.

    Raises:
        ValueError: If there is neither a face nor a consistent flow to drag by.
    """
    h, w = pair.mask.shape
    item = {"source": pair.source.transpose(2, 0, 1)}
    item |= {"landmarks": pair.landmarks, "target_landmarks": pair.target_landmarks}
    people = np.maximum(pair.mask, pair.target_mask) > 0
    drags = None
    if pair.landmarks is not None and pair.target_landmarks is not None:
        drags = landmark_drags(item, LANDMARK_SETS[points])
    if drags is not None:
        mask = head_mask(item)
    else:
        drags, mask = _moving_pixels(pair, points), _with_rim(people)
    return Sample(
        id=pair.key,
        image=Image.fromarray(pair.source),
        drags=DragInstruction(*drags, mask, (w, h)),
        target=Image.fromarray(pair.target),
        landmarks=pair.landmarks,
        target_landmarks=pair.target_landmarks,
        flow=torch.from_numpy(pair.flow)[None] if known_flow else None,
        person=torch.from_numpy(people)[None, None].float(),
    )


def _moving_pixels(pair: Pair, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Drags along the flow where it is consistent and the mask set, the longer the likelier."""
    flow, there = torch.from_numpy(pair.flow), torch.from_numpy((pair.mask > 0) & (pair.valid > 0))[None]
    seed = int.from_bytes(hashlib.sha256(pair.key.encode()).digest()[:6])
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "weighting": "magnitude", "k": count}
    drawn = drags_from_sparse(sample_drags(flow, there.float(), "config3", **options))
    return drawn.handle_points, drawn.target_points


def _with_rim(region: np.ndarray) -> np.ndarray:
    """A region `(h, w)` and what lies within `RIM` of it, uint8."""
    side = 2 * round(RIM * min(region.shape)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(region.astype(np.uint8), disc)
