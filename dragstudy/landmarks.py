"""What is known of dlib's 68 face landmarks: which belong together, and how a face lies in the picture."""

import numpy as np
from jaxtyping import Float, Float64

# which landmark each of dlib's 68 becomes in a mirror: jaw, brows, nose, eyes, outer and inner lips
MIRRORED_LANDMARKS = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39,
    38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip

OUTER_EYE_CORNERS = (36, 45)


def face_reflection(landmarks: Float[np.ndarray, "68 2"]) -> Float64[np.ndarray, "2 2"]:
    """The matrix that mirrors a displacement at a face's own axis, however the head is tilted.

    The axis is at right angles to the direction that most of the way between mirrored landmarks goes along:
    the first principal direction of these differences.

    Args:
        landmarks: dlib's 68 points, (x, y) in pixels.

    Returns:
        `I - 2 n n^T` with the unit vector n across the face.

    Example:
        >>> upright = np.stack([np.arange(68.0), np.zeros(68)], axis=1)
        >>> face_reflection(upright) @ [3.0, 2.0]
        array([-3.,  2.])
    """
    points = np.asarray(landmarks, dtype=np.float64)
    across = points[MIRRORED_LANDMARKS] - points
    _, directions = np.linalg.eigh(across.T @ across)  # ascending; the sign of a direction does not matter
    n = directions[:, -1]
    return np.eye(2) - 2 * np.outer(n, n)
