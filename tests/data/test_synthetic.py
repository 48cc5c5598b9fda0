"""Photographs under known motion: the flow is exact."""

import numpy as np
import pytest
import torch

from dragstudy.data.synthetic import smooth_motion, synthetic_pair
from dragstudy.flow import invert_flow, pixel_grid, sample_at


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth colourful pattern, so that resampling it is accurate."""
    y, x = np.mgrid[:96, :128]
    waves = [np.sin(x / 9 + k) * np.cos(y / 11 - k) for k in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_motions_rest_at_the_border_and_can_be_undone(seed):
    flow = smooth_motion((96, 128), torch.Generator().manual_seed(seed))
    for edge in (flow[..., 0, :], flow[..., -1, :], flow[..., :, 0], flow[..., :, -1]):
        assert edge.abs().max() == 0
    assert flow.norm(dim=1).max() > 0.1
    inverse = invert_flow(flow)
    there_and_back = inverse + sample_at(flow, pixel_grid(96, 128) + inverse)
    assert there_and_back.abs().max() < 1e-3


def test_the_content_of_the_source_lies_where_the_flow_says(photo):
    pair = synthetic_pair(photo, "waves-0", torch.Generator().manual_seed(1), largest=8.0)
    flow = torch.from_numpy(pair.flow)[None]
    target = torch.from_numpy(pair.target).permute(2, 0, 1)[None].float()
    moved = sample_at(target, pixel_grid(96, 128) + flow)[0].permute(1, 2, 0).numpy()
    assert np.abs(moved - photo).max() < 8  # grey levels: two resamplings of the pattern
    assert np.abs(pair.target.astype(float) - photo).max() > 30  # it did move


def test_the_mask_holds_all_motion_and_the_rest_of_the_picture_stays(photo):
    pair = synthetic_pair(photo, "waves-1", torch.Generator().manual_seed(2), bumps=1)
    assert 0 < (pair.mask > 0).mean() < 1
    assert np.linalg.norm(pair.flow, axis=0)[pair.mask == 0].max() <= 0.05
    still = (pair.mask == 0) & (pair.target_mask == 0)
    assert np.abs(pair.target[still].astype(int) - photo[still]).max() <= 3


def test_the_same_seed_gives_the_same_pair(photo):
    first, second = (synthetic_pair(photo, "waves", torch.Generator().manual_seed(5)) for _ in range(2))
    assert (first.target == second.target).all() and (first.flow == second.flow).all()
