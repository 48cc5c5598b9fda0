"""Clips are resampled by time, cropped once, and refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from dragstudy.data.video import (
    Crop,
    clip_info,
    face_crop,
    mask_crop,
    read_frames,
    sample_frames,
    sampled_times,
    square_crop,
)


def test_frames_come_back(write_clip, moving_square) -> None:
    frames = moving_square(5)
    read = list(read_frames(write_clip(frames)))
    assert [index for index, _, _ in read] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([time for _, time, _ in read], [0, 0.1, 0.2, 0.3, 0.4], atol=2e-3)
    assert (
        max(np.abs(got.astype(int) - frame).max() for (_, _, got), frame in zip(read, frames, strict=True))
        <= 1
    )


@pytest.mark.parametrize(("rate", "wanted"), [(25, range(0, 25, 3)), (30, range(0, 25, 3)), (5, range(25))])
def test_resampled_to_ten_a_second(write_clip, rate: int, wanted: range) -> None:
    """25 frames a second: the first at or after each tenth; 5: every frame once, none twice."""
    clip = write_clip([np.full((32, 32, 3), 10 * k, np.uint8) for k in range(25)], fps=rate)
    read = list(read_frames(clip, fps=10))
    shown = [round(float(frame.mean()) / 10) for _, _, frame in read]
    expected = [0, 3, 5, 8, 10, 13, 15, 18, 20, 23] if rate == 25 else list(wanted)
    assert shown == expected
    np.testing.assert_allclose([time for _, time, _ in read], sampled_times(clip, fps=10), atol=1e-9)


def test_crop_and_size(write_clip, moving_square) -> None:
    frames = moving_square(2)
    (_, _, cropped), _ = read_frames(write_clip(frames), crop=Crop(10, 20, 40, 30))
    assert np.abs(cropped.astype(int) - frames[0][20:50, 10:50]).max() <= 1
    (_, _, small), _ = read_frames(write_clip(frames), crop=Crop(0, 0, 64, 64), size=(32, 48))
    assert small.shape == (32, 48, 3)


def test_clip_info(write_clip, moving_square) -> None:
    clip = write_clip(moving_square(12), fps=12)
    info = clip_info(clip)
    assert (info.width, info.height, info.frames) == (96, 96, 12)
    assert info.fps == pytest.approx(12) and info.duration_s == pytest.approx(1, abs=0.01)
    assert 0.9 * clip.stat().st_size < info.bits_per_pixel * 12 * 96 * 96 / 8 < clip.stat().st_size


def test_samples_are_spread(write_clip, textured) -> None:
    assert len(sample_frames(write_clip([textured(32, 32)] * 40), 8)) == 8


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip")
    for path in (tmp_path / "text.mp4", tmp_path / "absent.mp4"):
        with pytest.raises(ValueError, match="cannot read clip"):
            clip_info(path)
        with pytest.raises(ValueError, match="cannot read clip"):
            list(read_frames(path))


def test_a_damaged_clip_gives_what_it_has(write_clip, moving_square) -> None:
    clip = write_clip(moving_square(20, step=2))
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    assert 5 < len(list(read_frames(clip))) < 15


def test_square_crop_stays_inside() -> None:
    for centre, side in [((0, 0), 50), ((99, 59), 50), ((50, 30), 500), ((-20, 90), 1)]:
        crop = square_crop((60, 100), centre, side)
        assert crop.width == crop.height == min(side, 60)
        assert 0 <= crop.x <= 100 - crop.width and 0 <= crop.y <= 60 - crop.height
    assert square_crop((60, 100), (50, 30), 11) == Crop(45, 25, 11, 11)  # pixels 45 to 55 around pixel 50


def test_face_crop_covers_the_path() -> None:
    face = np.random.default_rng(0).uniform(0, 40, (68, 2))
    crop = face_crop((300, 400), [face + (x, 100) for x in (100, 150, 200)])
    assert crop.x <= 100 and crop.x + crop.width >= 240 and crop.width == crop.height


def test_mask_crop_centres_on_the_person() -> None:
    mask = np.zeros((60, 100), np.uint8)
    mask[:, 80:90] = 255
    assert mask_crop((60, 100), [mask]) == Crop(40, 0, 60, 60)
    assert mask_crop((60, 100), [np.zeros((60, 100), np.uint8)]) == Crop(20, 0, 60, 60)
