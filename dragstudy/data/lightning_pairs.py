"""LightningDrag's training pairs: points that move in a clip whose camera stands still (its Sec. 4.1).

Handle points are drawn in proportion to the flow's length and followed through the frames between; where
they end are the targets. The mask marks what moves.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from dragstudy.data.estimators import Frame, FrameFlow, estimate_flow
from dragstudy.data.frames import border_motion, consistent, flow_length, motion_mask
from dragstudy.data.pairs import Pair, ShardWriter
from dragstudy.data.sampling import clip_name, pair_key, sample_windows
from dragstudy.data.video import read_frames, sampled_times
from dragstudy.progress import progress

Points = Float64[np.ndarray, "n 2"]
Number = float | int
DRAGS = ("handle_points", "target_points")

REASONS: dict[str, str] = {
    "moving_camera": "the border moves by more than max_border_motion",
    "little_motion": "nothing moves by min_motion or more",
    "lost_points": "no drawn point could be followed to the second frame",
}


@dataclass(frozen=True)
class LightningSettings:
    """How LightningDrag's pairs are made.

    Attributes:
        size: Side of the square frames, in pixels.
        max_points: Points drawn, from `min_points` to this many (20 in the paper).
        min_motion: Shortest motion of a handle point, px.
        max_border_motion: Largest motion of the border that counts as a static camera, px.
        max_tracking_error: How far forward and backward tracking of a point may end apart, px.
        margin: Least distance of the points from the edge of the random crop, px.
        estimator: A key of `estimators.FLOW_ESTIMATORS`.
        fps: Frames a second taken from a clip.
        max_interval: Largest distance of the two frames, in frames.
        pairs_per_clip: Pairs to consider in a clip; None takes them all.
        seed: Of the drawing of pairs, points and crops.
        min_points: Fewest points drawn, as far as so many pixels move.
        smallest_crop: Least side of the random crop, in shorter sides of the frame: enlarging a small crop
            blurs it.

    Raises:
        ValueError: If `min_points` is not in 1..`max_points`, or `smallest_crop` not in [0, 1].
    """

    size: int = 256
    max_points: int = 20
    min_motion: Number = 2.0
    max_border_motion: Number = 0.5
    max_tracking_error: Number = 1.5
    margin: Number = 8
    estimator: str = "dis"
    fps: Number = 10
    max_interval: int = 8
    pairs_per_clip: int | None = 400
    seed: int = 0
    min_points: int = 1
    smallest_crop: Number = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_points <= self.max_points:
            raise ValueError(f"min_points must be in 1..{self.max_points}, got {self.min_points}")
        if not 0 <= self.smallest_crop <= 1:
            raise ValueError(f"smallest_crop must be in [0, 1], got {self.smallest_crop}")


def curate_lightning(
    clips: Iterable[Path],
    out: Path | str,
    settings: LightningSettings,
    *,
    identities: dict[str, str] | None = None,
    splits: dict[str, str] | None = None,
    progress: Callable[..., Iterable] = progress,
) -> Counter:
    """Turn clips into shards of LightningDrag's pairs; arguments and result as in `curate.curate_clips`."""
    counts: Counter = Counter()
    with ShardWriter(out) as writer:
        for path in map(Path, clips):
            clip = clip_name(path)
            identity = (identities or {}).get(clip, clip)
            place = {"clip": clip, "identity": identity, "split": (splits or {}).get(identity, "train")}
            generator = np.random.default_rng([settings.seed, *clip.encode()])
            count = len(sampled_times(path, fps=settings.fps))
            windows = sample_windows(count, settings.max_interval, settings.pairs_per_clip, generator)
            pending = [window for window in windows if pair_key(clip, *window) not in writer]
            runs = _runs(path, pending, settings)
            for (i, j), frames in progress(runs, description=clip, total=len(pending)):
                info = place | {"source_index": i, "target_index": j, "fps": float(settings.fps)}
                key = pair_key(clip, i, j)
                drawn = np.random.default_rng(
                    [settings.seed, *key.encode()]
                )  # the same after an interruption
                reason, pair = make_lightning_pair(frames, info, settings, drawn)
                counts[reason] += 1
                if pair is None:
                    writer.reject(info | {"key": key}, reason)
                else:
                    writer.write(pair)
    return counts


def _runs(
    path: Path, windows: Sequence[tuple[int, int]], settings: LightningSettings
) -> Iterator[tuple[tuple[int, int], list[Frame]]]:
    """Each window of a clip, sorted by its end, with all its frames."""
    recent: deque[Frame] = deque(maxlen=settings.max_interval + 1)
    queue = deque(windows)
    for index, _, frame in read_frames(path, fps=settings.fps):
        recent.append(frame)
        while queue and queue[0][1] == index:
            i, j = queue.popleft()
            yield (i, j), list(recent)[i - j - 1 :]
        if not queue:
            return


def make_lightning_pair(
    frames: Sequence[Frame],
    place: dict[str, Any],
    settings: LightningSettings,
    generator: np.random.Generator,
    *,
    still: bool = False,
) -> tuple[str, Pair | None]:
    """Turn a run of consecutive frames into a pair of its first and last one with drag points.

    Args:
        frames: At least two frames of one size, RGB; those between are used for tracking.
        place: `Pair.info` of the pair: clip, identity, split, source_index, target_index, fps.
        settings: The rules.
        generator: Source of randomness: number and place of the points, crop.
        still: Whether the camera is known to stand still; otherwise the border of the frames tells.

    Returns:
        The reason, a key of `REASONS` or `""`, and the pair if kept: square, with `handle_points` and
        `target_points`, lists of x, y in pixels of the stored frames, in `Pair.info`.
    """
    source, target = frames[0], frames[-1]
    forward, backward = (
        estimate_flow(a, b, settings.estimator) for a, b in ((source, target), (target, source))
    )
    known = {"threshold": settings.min_motion / 2, "still": still}
    mask = motion_mask(forward, (source, target), **known)
    if not still and border_motion(forward, mask, source) > settings.max_border_motion:
        return "moving_camera", None
    valid = consistent(forward, backward)
    handles = draw_handles(forward, mask * valid, settings, generator)
    if not len(handles):
        return "little_motion", None
    targets, error = track(handles, frames, settings.estimator)
    inside = ((targets >= 0) & (targets <= np.array(source.shape[1::-1]) - 1)).all(axis=1)
    kept = (error <= settings.max_tracking_error) & inside
    if not kept.any():
        return "lost_points", None
    handles, targets = _coverable(handles[kept], targets[kept], min(source.shape[:2]) - 2 * settings.margin)
    if not len(handles):
        return "lost_points", None
    points, smallest = np.concatenate([handles, targets]), settings.smallest_crop
    crop = draw_crop(source.shape[:2], points, settings.margin, generator, smallest=smallest)
    target_mask = motion_mask(backward, (target, source), **known)
    layers = (source, target, mask, target_mask)
    return "", _cropped(layers, forward, valid, (handles, targets), crop, place, settings)


def draw_handles(
    flow: FrameFlow,
    mask: UInt8[np.ndarray, "h w"],
    settings: LightningSettings,
    generator: np.random.Generator,
) -> Points:
    """Draw `min_points` to `max_points` different pixels of the mask, each as likely as its motion is long.

    Returns:
        `(n, 2)` x, y. Where too little moves by `min_motion`, n is smaller, and 0 where nothing does.
    """
    weight = flow_length(flow) * (mask > 0)
    weight = np.where(weight >= settings.min_motion, weight, 0).ravel().astype(np.float64)
    wanted = int(generator.integers(settings.min_points, settings.max_points + 1))
    count = min(wanted, int((weight > 0).sum()))
    if count == 0:
        return np.zeros((0, 2))
    drawn = generator.choice(weight.size, count, replace=False, p=weight / weight.sum())
    return np.stack([drawn % flow.shape[2], drawn // flow.shape[2]], axis=1).astype(np.float64)


def track(
    points: Points, frames: Sequence[Frame], estimator: str = "dis"
) -> tuple[Points, Float64[np.ndarray, " n"]]:
    """Follow points from the first frame to the last through the flows between neighbours.

    The paper tracks with CoTracker2; chained flow needs no weights and stays short of its drift over the
    fraction of a second that a pair spans.

    Returns:
        Where the points end, `(n, 2)` x, y in pixels, and how far from its start each point lands when it is
        followed back, in pixels.
    """
    ends = _follow(points, frames, estimator)
    return ends, np.hypot(*(_follow(ends, frames[::-1], estimator) - points).T)


def draw_crop(
    size: tuple[int, int],
    points: Points,
    margin: Number,
    generator: np.random.Generator,
    *,
    smallest: Number = 0,
) -> tuple[int, ...]:
    """Draw a square that covers all points: `(x, y, side)`, of random side and place.

    Its side is at least `smallest` times the shorter side of `(height, width)`, into which the points' span
    and twice the margin must fit.
    """
    h, w = size
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    low, high = np.clip(low, 0, [w - 1, h - 1]), np.clip(high, 0, [w - 1, h - 1])
    least = max(int(np.ceil((high - low).max())) + 1, int(np.ceil(smallest * min(h, w))))
    side = int(generator.integers(min(least, min(h, w)), min(h, w) + 1))
    corner = []
    for start, end, limit in zip(low, high, (w, h), strict=True):
        first = int(np.clip(np.ceil(end) + 1 - side, 0, limit - side))
        last = int(np.clip(np.floor(start), 0, limit - side))
        corner.append(int(generator.integers(first, max(first, last) + 1)))
    return (*corner, side)


def _coverable(handles: Points, targets: Points, span: Number) -> tuple[Points, Points]:
    """The drags, in the order drawn, that fit into one square of side `span` together with those before."""
    kept: list[int] = []
    for k in range(len(handles)):
        points = np.concatenate([handles[[*kept, k]], targets[[*kept, k]]])
        if np.ptp(points, axis=0).max() <= span:
            kept.append(k)
    return handles[kept], targets[kept]


def _follow(points: Points, frames: Sequence[Frame], estimator: str) -> Points:
    for first, second in zip(frames, frames[1:], strict=False):
        flow = estimate_flow(first, second, estimator)
        x, y = points.astype(np.float32).T
        step = [
            cv2.remap(c, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0] for c in flow
        ]
        points = points + np.stack(step, axis=1)
    return points


def _cropped(
    layers: tuple[np.ndarray, ...],
    flow: FrameFlow,
    valid: UInt8[np.ndarray, "h w"],
    points: tuple[Points, Points],
    crop: tuple[int, ...],
    place: dict[str, Any],
    settings: LightningSettings,
) -> Pair:
    """The pair inside the square `crop`, resized to `settings.size`; points follow the half-pixel rule."""
    x, y, side = crop
    scale = settings.size / side
    window = (slice(y, y + side), slice(x, x + side))

    def fit(image: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.resize(
            np.ascontiguousarray(image[window]), (settings.size,) * 2, interpolation=interpolation
        )

    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    moved = [(p - (x, y) + 0.5) * scale - 0.5 for p in points]
    drags = {name: np.round(p, 3).tolist() for name, p in zip(DRAGS, moved, strict=True)}
    return Pair(
        key=pair_key(place["clip"], place["source_index"], place["target_index"]),
        source=fit(layers[0], smooth),
        target=fit(layers[1], smooth),
        mask=fit(layers[2], cv2.INTER_NEAREST),
        target_mask=fit(layers[3], cv2.INTER_NEAREST),
        flow=np.stack([fit(channel, cv2.INTER_LINEAR) for channel in flow]) * np.float32(scale),
        valid=fit(valid, cv2.INTER_NEAREST),
        info=place | drags | {"estimator": settings.estimator},
    )
