"""Moving heads: the maps are inverses, and picture, mask and landmarks go the same way."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dragstudy.data.frames import FrameFacts
from dragstudy.data.motion import (
    Framing,
    HeadMotion,
    draw_framing,
    draw_head_motion,
    fill_background,
    shake,
    view,
)

SIZE = 128
STILL = Framing()


def facts_of_a_dot(x: float = 70, y: float = 50) -> FrameFacts:
    """A bright person with a dark dot on a grey background; 68 landmarks, all on the dot."""
    frame, mask = np.full((SIZE, SIZE, 3), 90, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(mask, (64, 60), (30, 40), 0, 0, 360, 255, -1)
    frame[mask > 0] = 200
    cv2.circle(frame, (int(x), int(y)), 3, (20, 20, 20), -1)
    facts = FrameFacts(frame, None)
    facts.__dict__.update(mask=mask, landmarks=np.full((68, 2), (x, y), float), faces=1, hands=0)
    return facts


def centre_of_the_dot(frame: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(frame[..., 0] < 50)
    return np.array([xs.mean(), ys.mean()])


@pytest.mark.parametrize("seed", range(5))
def test_forward_undoes_backward(seed):
    rng = np.random.default_rng(seed)
    motion, points = draw_head_motion(rng), rng.uniform(0, SIZE, (50, 2))
    assert_allclose(motion.backward(motion.forward(points, SIZE), SIZE), points, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_framing_lies_inside_the_frame_and_back_again(seed):
    rng = np.random.default_rng(seed)
    framing = shake(draw_framing(rng), rng)
    corners = framing.to_frame(np.array([[-0.5, -0.5], [SIZE - 0.5, SIZE - 0.5]]), SIZE)
    assert corners.min() >= -0.5 - 1e-9 and corners.max() <= SIZE - 0.5 + 1e-9
    points = rng.uniform(0, SIZE, (50, 2))
    assert_allclose(framing.to_picture(framing.to_frame(points, SIZE), SIZE), points)


def test_without_motion_the_whole_frame_is_the_frame():
    facts = facts_of_a_dot()
    seen = view(facts, STILL)
    assert_array_equal(seen.frame, facts.frame)
    assert_array_equal(seen.mask, facts.mask)
    assert_allclose(seen.landmarks, facts.landmarks)
    assert (seen.faces, seen.hands) == (1, 0)


def test_without_a_face_there_are_no_landmarks_to_move():
    facts = facts_of_a_dot()
    facts.__dict__["landmarks"] = None
    assert view(facts, STILL).landmarks is None


@pytest.mark.parametrize("seed", range(5))
def test_the_landmarks_stay_on_what_they_mark(seed):
    rng = np.random.default_rng(seed)
    facts, framing, motion = facts_of_a_dot(), Framing(0.1, 0.05, 0.8), draw_head_motion(rng)
    seen = view(facts, framing, motion, fill_background(facts))
    assert_allclose(seen.landmarks[0], centre_of_the_dot(seen.frame), atol=0.6)
    assert seen.mask[tuple(seen.landmarks[0].round().astype(int)[::-1])] == 255


def test_the_background_stays_when_the_head_moves():
    facts, motion = facts_of_a_dot(), HeadMotion(shift=(0.1, 0.0))
    seen = view(facts, STILL, motion, fill_background(facts))
    away = cv2.dilate(facts.mask | seen.mask, np.ones((13, 13), np.uint8)) == 0
    assert away.mean() > 0.3
    assert_array_equal(seen.frame[away], facts.frame[away])
    assert np.abs(seen.frame[facts.mask > 0].astype(int) - 200).max() > 100  # the head has left some of it
    assert_allclose(centre_of_the_dot(seen.frame) - centre_of_the_dot(facts.frame), [12.8, 0], atol=0.6)


def test_nothing_of_the_person_is_left_in_the_filled_background():
    background = fill_background(facts_of_a_dot())
    assert np.abs(background.astype(int) - 90).max() <= 12
