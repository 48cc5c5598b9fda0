"""Clips of things that are no people: shots are cut without loss."""

import cv2
import numpy as np
import pytest

from dragstudy import assets
from dragstudy.data.general_clips import GENERAL_CLIPS, cut_shot, general_clip
from dragstudy.data.video import clip_info, read_frames


@pytest.fixture
def film(tmp_path):
    """Two seconds of noise at 10 frames a second."""
    path, rng = tmp_path / "film.avi", np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 32))
    for _ in range(20):
        writer.write(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    writer.release()
    return path


def test_a_shot_has_the_films_frames_bit_for_bit(film, tmp_path):
    shot = cut_shot(film, tmp_path / "shot.mkv", 0.5, 1.2)
    whole = [frame for _, _, frame in read_frames(film, fps=100)]
    part = [frame for _, _, frame in read_frames(shot, fps=100)]
    assert len(whole) == 20 and np.array_equal(part, whole[5:12])
    assert clip_info(shot).fps == clip_info(film).fps


def test_a_shot_without_frames_is_refused(film, tmp_path):
    with pytest.raises(ValueError, match="shows no frame from 5 to 6 s: it lasts 2 s"):
        cut_shot(film, tmp_path / "shot.mkv", 5, 6)
    with pytest.raises(ValueError, match="clip must be one of cockatoo, rabbit, koala, got 'dog'"):
        general_clip("dog")


@pytest.mark.parametrize("name", GENERAL_CLIPS)
def test_a_clip_lasts_for_some_seconds_without_a_cut(name):
    clip = GENERAL_CLIPS[name]
    if not assets.list_assets()[clip.asset].present:
        pytest.skip(f"{clip.asset} was not fetched")
    path = general_clip(name)
    assert general_clip(name) == path
    assert 3 < clip_info(path).duration_s < 60 and clip.fps <= clip_info(path).fps + 0.1
    small = [frame.astype(float) for _, _, frame in read_frames(path, size=(32, 32))]
    assert max(np.abs(a - b).mean() for a, b in zip(small, small[1:], strict=False)) < 60
