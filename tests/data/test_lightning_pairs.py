"""LightningDrag's pairs: drawn where things move, tracked to where they went, inside a square crop."""

from pathlib import Path

import numpy as np
import pytest

from dragstudy.data.frames import border_motion, motion_mask
from dragstudy.data.lightning_pairs import (
    LightningSettings,
    curate_lightning,
    draw_crop,
    draw_handles,
    make_lightning_pair,
    track,
)
from dragstudy.data.pairs import PairDataset
from dragstudy.data.shards import read_manifest

SETTINGS = LightningSettings(size=64, pairs_per_clip=8, max_interval=3, margin=4)
PLACE = {"clip": "a", "identity": "b", "split": "train", "source_index": 0, "target_index": 3, "fps": 10.0}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_points_follow_the_object(moving_square, rng: np.random.Generator) -> None:
    frames = moving_square(4, size=96, step=3)
    reason, pair = make_lightning_pair(frames, PLACE, SETTINGS, rng)
    assert reason == ""
    handles, targets = (np.array(pair.info[name]) for name in ("handle_points", "target_points"))
    assert 1 <= len(handles) == len(targets) <= SETTINGS.max_points
    for points in (handles, targets):
        assert (points >= 0).all() and (points <= 63).all()
    moved = targets - handles
    scale = np.median(moved[:, 0]) / 9  # the crop's side is random, its enlargement not known here
    assert 64 / 96 - 0.1 < scale < 8
    assert np.median(np.abs(moved - [9 * scale, 0])) < scale and moved[:, 0].min() > 0
    x, y = handles[0].round().astype(int)
    assert pair.mask[y, x] == 255
    assert pair.flow[:, y, x] == pytest.approx(moved[0], abs=2.5 * scale)


def test_reasons(moving_square, textured, rng: np.random.Generator) -> None:
    still = moving_square(1) * 3
    assert make_lightning_pair(still, PLACE, SETTINGS, rng) == ("little_motion", None)
    panned = [np.roll(textured(96, 96), 3 * k, axis=1) for k in range(3)]
    assert make_lightning_pair(panned, PLACE, SETTINGS, rng) == ("moving_camera", None)


def test_static_camera_test(textured) -> None:
    flow = np.zeros((2, 60, 80), np.float32)
    flow[0, 20:40, 20:60] = 5
    assert border_motion(flow) == 0
    assert border_motion(flow + np.float32(2)) == pytest.approx(8**0.5)
    noise = np.random.default_rng(0).normal(0, 3, flow.shape).astype(np.float32)
    assert border_motion(noise) < 0.7  # a wall without texture is not a pan
    everything = np.full((60, 80), 255, np.uint8)
    assert border_motion(flow, everything) == 0


def test_motion_mask_ignores_the_camera() -> None:
    flow = np.zeros((2, 80, 80), np.float32)
    flow[1, 30:50, 30:50] = 4
    for camera in (0, 3):
        mask = motion_mask(flow + np.float32(camera), dilation=1)
        assert (mask[32:48, 32:48] == 255).all() and (mask[:28] == 0).all() and (mask[53:] == 0).all()


def test_handles_are_drawn_in_proportion(rng: np.random.Generator) -> None:
    flow = np.zeros((2, 40, 40), np.float32)
    flow[0, 10:20, 10:20], flow[0, 25:35, 10:20] = 2.5, 7.5
    mask = np.full((40, 40), 255, np.uint8)
    drawn = np.concatenate([draw_handles(flow, mask, SETTINGS, rng) for _ in range(200)])
    fast = (drawn[:, 1] >= 25).mean()
    assert 0.7 < fast < 0.8 and ((drawn[:, 0] >= 10) & (drawn[:, 0] < 20)).all()
    counts = [len(draw_handles(flow, mask, SETTINGS, rng)) for _ in range(200)]
    assert min(counts) == 1 and max(counts) == 20
    assert len(draw_handles(flow, mask * 0, SETTINGS, rng)) == 0


def test_at_least_so_many_handles_are_drawn_as_far_as_so_many_pixels_move(rng: np.random.Generator) -> None:
    flow = np.zeros((2, 40, 40), np.float32)
    flow[1, 10:20, 10:20] = 5
    settings, mask = LightningSettings(min_points=5, max_points=8), np.full((40, 40), 255, np.uint8)
    assert {len(draw_handles(flow, mask, settings, rng)) for _ in range(100)} == {5, 6, 7, 8}
    mask[:, 13:] = mask[11:] = 0
    assert len(draw_handles(flow, mask, settings, rng)) == 3
    with pytest.raises(ValueError, match=r"min_points must be in 1\.\.8, got 9"):
        LightningSettings(min_points=9, max_points=8)


def test_a_camera_known_to_stand_still_is_not_suspected(textured, rng: np.random.Generator) -> None:
    """A body that fills most of the border takes it along; the mask is on the body, not on the wall."""
    wall, body = textured(96, 96, 1), textured(76, 110, 2)
    frames = [np.concatenate([wall[:20], body[:, 8 - x : 104 - x]]) for x in (0, 5)]
    assert make_lightning_pair(frames, PLACE, SETTINGS, rng) == ("moving_camera", None)
    settings = LightningSettings(size=96, smallest_crop=1)
    reason, pair = make_lightning_pair(frames, PLACE, settings, rng, still=True)
    assert reason == "" and pair.mask[50:].mean() > 200 and pair.mask[:8].max() == 0


def test_tracking(moving_square) -> None:
    frames = moving_square(5, step=3)
    points = np.array([[25.0, 45.0], [80.0, 10.0]])
    ends, error = track(points, frames)
    np.testing.assert_allclose(ends, points + [[12, 0], [0, 0]], atol=0.7)
    assert (error < 0.5).all()


def test_crops_cover_the_points(rng: np.random.Generator) -> None:
    for _ in range(300):
        points = rng.uniform(0, [100, 60], (3, 2)) * rng.uniform(0.1, 0.5)
        x, y, side = draw_crop((64, 104), points, 3, rng)
        assert 0 <= x <= 104 - side and 0 <= y <= 64 - side
        assert (points >= (x, y)).all() and (points <= (x + side - 1, y + side - 1)).all()


def test_crops_are_no_smaller_than_wanted(rng: np.random.Generator) -> None:
    points = np.array([[30.0, 20.0], [34.0, 22.0]])
    sides = [draw_crop((64, 104), points, 3, rng, smallest=0.5)[2] for _ in range(300)]
    assert min(sides) == 32 and max(sides) == 64
    assert draw_crop((64, 104), points, 3, rng, smallest=1)[2] == 64


def test_clips_to_shards(tmp_path: Path, write_clip, moving_square) -> None:
    clip = write_clip(moving_square(8, step=3))
    counts = curate_lightning([clip], tmp_path / "out", SETTINGS)
    assert sum(counts.values()) == len(read_manifest(tmp_path / "out")) == 8
    assert curate_lightning([clip], tmp_path / "out", SETTINGS) == {}
    item = PairDataset(tmp_path / "out", max_points=20)[0]
    known = item["handle_points"].isfinite().all(dim=1)
    assert known.sum() >= 1 and item["target_points"][known].isfinite().all()
    assert item["source"].shape == (3, 64, 64)
