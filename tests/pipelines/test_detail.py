"""Composing the moved photograph with the edit."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.images import to_tensor
from dragstudy.pipelines.detail import check_detail, compose, gaussian_blur

from ..tiny import picture


@pytest.fixture
def photo():
    return to_tensor(picture(96, 80))


def test_without_motion_the_photograph_itself_comes_back(photo):
    assert_close(compose(photo, torch.zeros_like(photo), torch.zeros(1, 2, 80, 96)), photo)


def test_a_moved_photograph_shows_its_own_pixels_where_they_went(photo):
    flow = torch.zeros(1, 2, 80, 96)
    flow[:, 0] = 6
    result = compose(photo, torch.zeros_like(photo), flow)
    assert_close(result[..., 12:90], photo[..., 6:84], atol=1e-4, rtol=0)


def test_what_the_motion_uncovers_is_the_edits(photo):
    flow = torch.zeros(1, 2, 80, 96)
    flow[:, 0, :, 48:] = 20  # the right half leaves, a gap opens
    result = compose(photo, torch.full_like(photo, 0.123), flow)
    assert (result[:, :, 20:60, 54:60] - 0.123).abs().max() < 0.02


def test_blur_keeps_the_mean_of_a_constant_and_a_ramps_middle():
    assert_close(gaussian_blur(torch.full((1, 2, 9, 9), 0.7), 1.5), torch.full((1, 2, 9, 9), 0.7))
    ramp = torch.arange(21.0).expand(1, 1, 5, 21)
    assert_close(gaussian_blur(ramp, 1.0)[..., 5:-5], ramp[..., 5:-5])


def test_an_unknown_detail_is_refused():
    with pytest.raises(ValueError, match="detail must be one of none, compose, got 'more'"):
        check_detail("more")
