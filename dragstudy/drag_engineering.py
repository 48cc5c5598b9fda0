"""Drag engineering: what to do with drags that an edit did not follow (LightningDrag, Sec. 4.4).

Two ways, each from drags to drags: suggest further pairs of handle and target points, so that the drags say
more of what is meant, and split long drags into rounds of short ones. The user's own drags are never changed
or dropped; suggested ones come after them.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from dragstudy.drags import DragInstruction, resize_points
from dragstudy.landmarks import MIRRORED_LANDMARKS, OUTER_EYE_CORNERS, face_reflection

Number = float | int  # checkers of types at run time tell them apart
Points = Float[np.ndarray, "n 2"]


def augment_from_flow(
    drags: DragInstruction,
    flow: Float[Tensor, "2 h w"] | Float[Tensor, "1 2 h w"],
    count: int,
    *,
    moving_share: Number = 0.5,
    min_distance: Number | None = None,
) -> DragInstruction:
    """Suggest drags along a dense flow that the given drags stand for.

    One by one, the pixel is taken that is farthest from all handles so far, of those that move, that may
    change, and whose flow ends inside the image; its target is where the flow takes it.

    Args:
        drags: What the user asked for.
        flow: Forward flow in pixels of its own grid, such as FlowGen's; the grid may differ from the image.
        count: Suggestions wanted; fewer are made where there is no place for more.
        moving_share: A pixel moves if its flow is at least this share of the longest.
        min_distance: From a suggested handle to every other, in pixels of the image; by default a
            sixteenth of its longer side.

    Returns:
        The given drags, then the suggested ones.

    Raises:
        ValueError: If `count` is negative, or `flow` is not one flow.

    Example:
        >>> import torch
        >>> drags = DragInstruction([[2, 5]], [[5, 5]], image_size=(32, 32))
        >>> right = torch.tensor([3.0, 0.0]).view(2, 1, 1).expand(2, 32, 32)
        >>> augment_from_flow(drags, right, 2).handle_points.tolist()
        [[2.0, 5.0], [28.0, 31.0], [28.0, 0.0]]
    """
    if count < 0:
        raise ValueError(f"the number of suggested drags must be at least 0, got {count}")
    if flow.ndim not in (3, 4) or flow.numel() != 2 * flow.shape[-2] * flow.shape[-1]:
        raise ValueError(f"one flow of shape (2, h, w) or (1, 2, h, w) is needed, got {tuple(flow.shape)}")
    vectors = flow.detach().double().cpu().numpy().reshape(2, *flow.shape[-2:])
    grid_size = vectors.shape[:0:-1]
    size = drags.image_size or grid_size
    length = np.hypot(*vectors)
    y, x = np.nonzero((length > 0) & (length >= moving_share * length.max()))
    pixels = np.stack([x, y], axis=1).astype(np.float64)
    ends = pixels + vectors[:, y, x].T
    handles, targets = (resize_points(points, grid_size, size) for points in (pixels, ends))
    allowed = _allowed(handles, targets, size, drags.mask)
    handles, targets = handles[allowed], targets[allowed]
    apart = max(size) / 16 if min_distance is None else min_distance
    chosen = _farthest(handles, drags.handle_points, count, apart)
    return _extended(drags, handles[chosen], targets[chosen])


def augment_symmetric(
    drags: DragInstruction,
    landmarks: Float[np.ndarray, "68 2"],
    count: int | None = None,
    *,
    reach: Number = 0.15,
) -> DragInstruction:
    """Suggest the mirrored drag on the other half of a face, for each drag that starts near a landmark.

    A corner of the mouth that goes up takes the other corner along. The mirror is the face's own, see
    `dragstudy.landmarks.face_reflection`. Nothing is suggested for anchors, for drags on the face's axis,
    where the other half is dragged already, or must not change.

    Args:
        drags: What the user asked for.
        landmarks: dlib's 68 points, (x, y) in pixels of the same image.
        count: Suggestions at most; by default as many as there are.
        reach: How near a landmark a drag must start, and how far from all other handles a suggested one is,
            in distances between the outer corners of the eyes.

    Returns:
        The given drags, then the suggested ones, in the order of the given.

    Raises:
        ValueError: If `count` is negative, or `landmarks` are not 68 finite points.
    """
    if count is not None and count < 0:
        raise ValueError(f"the number of suggested drags must be at least 0, got {count}")
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be 68 finite points (x, y), got shape {points.shape}")
    left, right = points[list(OUTER_EYE_CORNERS)]
    near = reach * float(np.linalg.norm(right - left))
    reflection = face_reflection(points)
    found = drags
    for handle, displacement in zip(drags.handle_points, drags.displacements, strict=True):
        distances = np.linalg.norm(points - handle, axis=1)
        k = int(distances.argmin())
        mirrored = MIRRORED_LANDMARKS[k]
        if not displacement.any() or distances[k] > near or mirrored == k:
            continue
        there = points[mirrored] + reflection @ (handle - points[k])
        end = there + reflection @ displacement
        is_free = np.linalg.norm(found.handle_points - there, axis=1).min() >= near
        if is_free and _allowed(there[None], end[None], drags.image_size, drags.mask)[0]:
            found = _extended(found, there[None], end[None])
    suggested = slice(len(drags.handle_points), None)
    return _extended(drags, found.handle_points[suggested][:count], found.target_points[suggested][:count])


def split_drags(drags: DragInstruction, rounds: int) -> list[DragInstruction]:
    """Split drags into rounds: each goes on where the one before put the points (LightningDrag, Sec. 4.4.2).

    Round i of k drags from `handle + (i - 1) / k * displacement` to `handle + i / k * displacement`; anchors
    are anchors in every round, and the mask is the same.

    Args:
        drags: Drags of any length.
        rounds: How many.

    Returns:
        The instruction of each round; the last one's targets are the drags' own.

    Raises:
        ValueError: If `rounds` is less than 1, or so many that a drag would not move in one of them.

    Example:
        >>> drags = DragInstruction([[0, 0], [5, 5]], [[30, 0], [5, 5]])
        >>> [one.target_points.tolist() for one in split_drags(drags, 3)]
        [[[10.0, 0.0], [5.0, 5.0]], [[20.0, 0.0], [5.0, 5.0]], [[30.0, 0.0], [5.0, 5.0]]]
    """
    if rounds < 1:
        raise ValueError(f"the number of rounds must be at least 1, got {rounds}")
    places = [drags.handle_points + drags.displacements * (i / rounds) for i in range(rounds)]
    parts = [
        DragInstruction(start, end, drags.mask, drags.image_size)
        for start, end in pairwise([*places, drags.target_points])
    ]
    if any((part.anchors != drags.anchors).any() for part in parts):
        raise ValueError(f"the drags are too short for {rounds} rounds: one would not move")
    return parts


def _allowed(
    handles: Points, targets: Points, size: tuple[int, int] | None, mask: Float[np.ndarray, "h w"] | None
) -> Bool[np.ndarray, " n"]:
    """Which drags start where the mask allows a change, and lie inside the image."""
    allowed = np.ones(len(handles), dtype=bool)
    if size is not None:
        edge = np.array(size) - 0.5
        for points in (handles, targets):
            allowed &= ((points >= -0.5) & (points <= edge)).all(axis=1)
    if mask is not None:
        h, w = mask.shape
        x, y = np.clip(np.floor(handles + 0.5), 0, (w - 1, h - 1)).astype(int).T
        allowed &= mask[y, x] > 0.5
    return allowed


def _farthest(candidates: Points, taken: Points, count: int, apart: float) -> list[int]:
    """Up to `count` candidates, each the farthest from all that are taken, and at least `apart` from them."""
    nearest = np.full(len(candidates), np.inf)
    for point in taken:
        nearest = np.minimum(nearest, np.linalg.norm(candidates - point, axis=1))
    chosen: list[int] = []
    while len(chosen) < count and nearest.max(initial=0) >= max(apart, 1e-9):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
    return chosen


def _extended(drags: DragInstruction, handles: Points, targets: Points) -> DragInstruction:
    """The drags with further ones after them."""
    handles = np.concatenate([drags.handle_points, handles])
    targets = np.concatenate([drags.target_points, targets])
    return DragInstruction(handles, targets, drags.mask, drags.image_size)
