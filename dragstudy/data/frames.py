"""What curation asks of single frames and of the flow between two: masks, counts, motion."""

import functools
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from dragstudy.data.estimators import Frame, FrameFlow
from dragstudy.flow import consistency_mask

MaskName = Literal["person", "flow", "none"]
FrameMask = UInt8[np.ndarray, "h w"]

BORDER = 0.04  # width of the image border that tells the camera's motion, in shorter sides
CHEEK = 0.45  # widths of a face: no palm in front of it is smaller
LEAST_CHANGE = 8  # grey levels of 255
LEAST_SLOPE = 4  # grey levels a pixel; compression leaves about one in flat walls
SMALLEST_PART = 0.002  # connected parts of a motion mask below this share of the image are noise


@runtime_checkable
class Analyser(Protocol):
    """What can be found in one frame; `PeopleAnalyser` is the real one."""

    def mask(self, frame: Frame) -> FrameMask: ...

    def landmarks(self, frame: Frame) -> Float[np.ndarray, "68 2"] | None: ...

    def faces(self, frame: Frame) -> int: ...

    def hands(self, frame: Frame) -> int: ...


class PeopleAnalyser:
    """MediaPipe's person mask, face and palm detectors and dlib's landmarks, each loaded when first asked."""

    @functools.cached_property
    def _segmenter(self):
        from dragstudy.data.people import PersonSegmenter

        return PersonSegmenter()

    @functools.cached_property
    def _landmarks(self):
        from dragstudy.data.people import FaceLandmarks

        return FaceLandmarks()

    def mask(self, frame: Frame) -> FrameMask:
        """255 on people, else 0."""
        return np.where(self._segmenter(frame) > 0.5, 255, 0).astype(np.uint8)

    def landmarks(self, frame: Frame) -> Float[np.ndarray, "68 2"] | None:
        """dlib's 68 points of the largest face, x, y in pixels, or None."""
        return self._landmarks(frame)

    def faces(self, frame: Frame) -> int:
        """Number of faces."""
        from dragstudy.data.people import count_faces

        return count_faces(frame)

    def hands(self, frame: Frame) -> int:
        """Number of hands; small palms inside a face are cheeks, which the detector likes."""
        from dragstudy.data.people import detect_faces, detect_hands

        palms = detect_hands(frame)
        faces = detect_faces(frame) if len(palms) else []
        return sum(not any(_inside_face(palm, face) for face in faces) for palm in palms)


def _inside_face(palm: Float[np.ndarray, "5"], face: Float[np.ndarray, "5"]) -> bool:
    """Whether a palm's box (left, top, right, bottom, score) lies in a face's and is much narrower."""
    inside = (palm[:2] >= face[:2]).all() and (palm[2:4] <= face[2:4]).all()
    return bool(inside and palm[2] - palm[0] < CHEEK * (face[2] - face[0]))


@functools.cache
def people_analyser() -> PeopleAnalyser:
    """The one `PeopleAnalyser` of this process: dlib's predictor takes a second to load."""
    return PeopleAnalyser()


@dataclass(frozen=True, eq=False)
class FrameFacts:
    """A frame and what is found in it; each thing is looked for once, when first asked."""

    frame: Frame
    analyser: Analyser

    @functools.cached_property
    def mask(self) -> FrameMask:
        return self.analyser.mask(self.frame)

    @functools.cached_property
    def landmarks(self) -> Float[np.ndarray, "68 2"] | None:
        return self.analyser.landmarks(self.frame)

    @functools.cached_property
    def faces(self) -> int:
        return self.analyser.faces(self.frame)

    @functools.cached_property
    def hands(self) -> int:
        return self.analyser.hands(self.frame)

    @functools.cached_property
    def histogram(self) -> Float32[np.ndarray, "512"]:
        """Shares of the pixels in 8 x 8 x 8 colours."""
        counts = cv2.calcHist([self.frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
        return counts.ravel() / counts.sum()


def consistent(forward: FrameFlow, backward: FrameFlow) -> FrameMask:
    """1 where the backward flow leads back to where the forward flow started, else 0."""
    agrees = consistency_mask(torch.from_numpy(forward)[None], torch.from_numpy(backward)[None])
    return (agrees[0, 0] > 0.5).numpy().astype(np.uint8)


def flow_length(flow: FrameFlow) -> Float32[np.ndarray, "h w"]:
    """Length of the flow, in pixels."""
    return np.hypot(flow[0], flow[1])


def border_strips(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The top, bottom, left and right strip of an image of this `(height, width)`, as rows and columns."""
    width = max(1, round(BORDER * min(size)))
    first, last, everything = slice(0, width), slice(-width, None), slice(None)
    return [(first, everything), (last, everything), (everything, first), (everything, last)]


def border_motion(flow: FrameFlow, mask: FrameMask | None = None, frame: Frame | None = None) -> float:
    """How far the image border moves, in pixels: near 0 when the camera stands still.

    The median over the four strips along the border of the length of their median vector: a wall without
    texture has a random flow of some length whose median is small, a pan or a zoom moves every strip.
    Strips of which mask and texture leave less than a twentieth are left out; 0 if none remain.

    Args:
        flow: Forward flow, in pixels.
        mask: Where the object is.
        frame: The flow's first frame, RGB; where it has no texture, its flow says nothing.
    """
    usable = np.ones(flow.shape[1:], bool) if frame is None else has_texture(frame)
    usable &= True if mask is None else mask == 0
    lengths = []
    for rows, columns in border_strips(flow.shape[1:]):
        strip = flow[:, rows, columns].reshape(2, -1)
        chosen = usable[rows, columns].ravel()
        if chosen.mean() > 0.05:
            lengths.append(np.hypot(*np.median(strip[:, chosen], axis=1)))
    return float(np.median(lengths)) if lengths else 0.0


def has_texture(frame: Frame) -> np.ndarray:
    """True near edges and texture, where a flow estimator has something to match."""
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    return cv2.dilate((slope > LEAST_SLOPE).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def changed(source: Frame, target: Frame) -> FrameMask:
    """1 in and around places that look different in both frames, beyond noise and exposure; else 0."""
    difference = cv2.GaussianBlur(cv2.absdiff(source, target).max(axis=2), (0, 0), 1.5)
    seen = (difference > LEAST_CHANGE).astype(np.uint8)
    seen = cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return cv2.morphologyEx(seen, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (25, 25)))


def motion_mask(
    flow: FrameFlow,
    frames: tuple[Frame, Frame] | None = None,
    *,
    threshold: float | int = 1.0,
    dilation: int = 7,
    still: bool = False,
) -> FrameMask:
    """Mask of what moves against the camera: for objects that no person segmenter finds.

    LightningDrag, Sec. 4.1, marks motion by frame differences. Here the flow must say so too; alone it would
    believe the random flow of a wall without texture.

    Args:
        flow: Forward flow, in pixels.
        frames: The two frames of the flow, RGB; where they look the same, nothing counts as moving.
        threshold: Smallest motion that counts, in pixels, after the border's median vector is taken off.
        dilation: Side of the square that the mask grows by, so that it covers the object's outline.
        still: Whether the camera is known to stand still: nothing is taken off.

    Returns:
        255 where something moves, else 0, without small holes and parts.
    """
    border = np.concatenate([flow[:, r, c].reshape(2, -1) for r, c in border_strips(flow.shape[1:])], axis=1)
    camera = np.median(border, axis=1).astype(np.float32)[:, None, None]
    moving = (flow_length(flow if still else flow - camera) > threshold).astype(np.uint8)
    if frames is not None:
        moving &= changed(*frames)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    moving = cv2.morphologyEx(cv2.morphologyEx(moving, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    count, labels, parts, _ = cv2.connectedComponentsWithStats(moving)
    large = [k for k in range(1, count) if parts[k, cv2.CC_STAT_AREA] >= SMALLEST_PART * moving.size]
    kept = np.isin(labels, large).astype(np.uint8) * 255
    return cv2.dilate(kept, np.ones((dilation, dilation), np.uint8))
