"""Reading clips: what a file holds, its frames at a fixed rate, and a square crop that stays put.

A clip is resampled by time: frame `k` of the result is the first frame shown at or after `k / fps`
seconds. The crop of a clip is found once and used for all its frames, so that a static camera stays
static.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from dragstudy.data.estimators import Frame

Number = float | int
EPSILON_S = 1e-4  # containers round frame times to their own clock
FACE_MARGIN = 2.4  # side of a face-centred crop, in lengths of the face (brow to chin)


@dataclass(frozen=True)
class ClipInfo:
    """What the container says of a clip.

    Attributes:
        width: Pixels, as stored.
        height: Pixels, as stored.
        fps: Frames a second.
        frames: Number of frames.
        duration_s: Seconds.
        bits_per_pixel: Compressed bits a pixel and frame; low means blocky. h264 is good from about 0.05.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration_s: float
    bits_per_pixel: float


@dataclass(frozen=True)
class Crop:
    """A rectangle of whole pixels inside a frame: left edge, top edge, width and height."""

    x: int
    y: int
    width: int
    height: int

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return frame[self.y : self.y + self.height, self.x : self.x + self.width]


def clip_info(path: Path | str) -> ClipInfo:
    """Measure a clip from its packets, without decoding.

    Raises:
        ValueError: If the file is no video or holds no frames.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        packets = [(packet.pts, packet.size) for packet in container.demux(stream) if packet.pts is not None]
        if not packets:
            raise ValueError(f"clip {path} holds no frames")
        times = sorted(float(pts * stream.time_base) for pts, _ in packets)
        fps = float(stream.average_rate or len(times) / max(times[-1] - times[0], EPSILON_S))
        width, height = stream.codec_context.width, stream.codec_context.height
    bits = 8 * sum(size for _, size in packets)
    return ClipInfo(
        width=width,
        height=height,
        fps=fps,
        frames=len(times),
        duration_s=times[-1] - times[0] + 1 / fps,
        bits_per_pixel=bits / (len(times) * width * height),
    )


def sampled_times(path: Path | str, *, fps: Number = 10) -> list[float]:
    """Times in seconds of the frames that `read_frames` yields at this rate, from the packets alone."""
    with _open(path) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        times = [float((pts - stamps[0]) * stream.time_base) for pts in stamps]
    return [time for time, kept in zip(times, _keep(times, fps), strict=True) if kept]


def read_frames(
    path: Path | str, *, fps: Number = 10, size: tuple[int, int] | None = None, crop: Crop | None = None
) -> Iterator[tuple[int, float, Frame]]:
    """Decode a clip at `fps` frames a second.

    Args:
        path: Any file that FFmpeg's libraries read.
        fps: Frames a second of the result; a slower clip gives each of its frames once.
        size: `(height, width)` of the result; None keeps that of the crop or clip.
        crop: Part of each frame to keep, in pixels of the upright clip.

    Yields:
        The number of the frame in the result, its time in seconds from the clip's first frame, and the frame,
        RGB, turned upright where the file asks for it. A damaged end ends the clip.

    Raises:
        ValueError: If the file is no video.
    """
    index, due, start = 0, 0.0, None
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for decoded in _decodable(container.decode(stream)):
            start = decoded.time if start is None else start
            time = float(decoded.time - start)
            if time + EPSILON_S < due:
                continue
            due = _next_due(time, fps)
            frame = _upright(decoded)
            yield index, time, _fit(frame if crop is None else crop(frame), size)
            index += 1


def sample_frames(path: Path | str, count: int = 12) -> list[Frame]:
    """About `count` whole frames spread evenly over a clip, for looking at it before curating it."""
    info = clip_info(path)
    return [frame for _, _, frame in read_frames(path, fps=count / info.duration_s)]


def square_crop(size: tuple[int, int], centre: tuple[Number, Number], side: Number) -> Crop:
    """The square nearest to the wanted one that lies inside the frame.

    Args:
        size: `(height, width)` of the frame.
        centre: Wanted centre `(x, y)`, in pixels.
        side: Wanted side in pixels; cut to the frame's shorter side.
    """
    h, w = size
    side = max(1, min(round(side), h, w))
    x, y = (round(c + 0.5 - side / 2) for c in centre)
    return Crop(int(np.clip(x, 0, w - side)), int(np.clip(y, 0, h - side)), side, side)


def face_crop(size: tuple[int, int], faces: Sequence[np.ndarray], *, margin: Number = FACE_MARGIN) -> Crop:
    """A square around a face that moves: centred on where it is, wide enough for where it goes.

    Args:
        size: `(height, width)` of the frame.
        faces: Landmarks `(68, 2)` of a few frames, in pixels.
        margin: Side of the square in face lengths.
    """
    centres = np.stack([points.mean(axis=0) for points in faces])
    length = np.median([np.ptp(points[:, 1]) for points in faces])
    low, high = np.percentile(centres, [5, 95], axis=0)
    side = margin * length + (high - low).max()
    x, y = (low + high) / 2
    return square_crop(size, (float(x), float(y)), float(side))


def mask_crop(size: tuple[int, int], masks: Sequence[np.ndarray]) -> Crop:
    """The largest square centred on a person, given masks `(h, w)` of a few frames; else in the middle."""
    weight = np.mean(masks, axis=0)
    h, w = size
    if weight.sum() == 0:
        return square_crop(size, ((w - 1) / 2, (h - 1) / 2), min(h, w))
    centre = (
        np.average(np.arange(w), weights=weight.sum(0)),
        np.average(np.arange(h), weights=weight.sum(1)),
    )
    return square_crop(size, (float(centre[0]), float(centre[1])), min(h, w))


def _open(path: Path | str) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot read clip {path}: {error}") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"cannot read clip {path}: it has no video stream")
    return container


def _decodable(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Frames up to the first that cannot be decoded."""
    while True:
        try:
            yield next(frames)
        except (StopIteration, av.FFmpegError):
            return


def _next_due(time: float, fps: Number) -> float:
    return (math.floor((time + EPSILON_S) * fps) + 1) / fps


def _keep(times: Sequence[float], fps: Number) -> list[bool]:
    due, kept = 0.0, []
    for time in times:
        kept.append(time + EPSILON_S >= due)
        due = _next_due(time, fps) if kept[-1] else due
    return kept


def _upright(decoded: av.VideoFrame) -> Frame:
    frame = decoded.to_ndarray(format="rgb24")
    turns = round(getattr(decoded, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def _fit(frame: Frame, size: tuple[int, int] | None) -> UInt8[np.ndarray, "h2 w2 3"]:
    if size is None or frame.shape[:2] == tuple(size):
        return np.ascontiguousarray(frame)
    h, w = size
    shrinks = h * w < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
