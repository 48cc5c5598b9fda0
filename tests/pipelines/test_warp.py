"""The warp baseline: it keeps the contract, moves what is dragged and fills what is uncovered."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dragstudy.pipelines import WarpPipeline, load
from dragstudy.pipelines.warp import warp_and_inpaint

from ..tiny import picture
from .contract import PipelineContract, pixels


class TestWarpPipeline(PipelineContract):
    steps = 1
    is_random = False

    @classmethod
    def make(cls) -> WarpPipeline:
        return WarpPipeline(working_area=64 * 64)


class TestMovingLeastSquares(TestWarpPipeline):
    @classmethod
    def make(cls) -> WarpPipeline:
        return WarpPipeline("moving_least_squares", working_area=64 * 64)


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="thin_plate"):
        WarpPipeline("cubic")(picture(64, 64), [[10, 10]], [[14, 10]])


def test_what_is_dragged_arrives():
    image = Image.new("RGB", (128, 128), (40, 60, 80))
    image.paste((250, 200, 50), (50, 50, 59, 59))
    output = load("warp")(image, [[54, 54]], [[74, 64]])
    assert output.images[0].getpixel((74, 64)) == pytest.approx((250, 200, 50), abs=12)
    assert_close(output.flow[0][0, :, 54, 54], torch.tensor([20.0, 10.0]), atol=0.5, rtol=0)


def test_a_given_flow_is_used_in_pixels_of_its_own_grid():
    image, pipe = picture(100, 75), WarpPipeline(working_area=64 * 64)
    first = pipe(image, [[50, 40]], [[58, 36]])
    again = pipe(image, [[50, 40]], [[50, 40]], flow=first.flow[0])
    assert np.abs(pixels(again.images[0]) - pixels(first.images[0])).mean() < 1.5
    assert_close(again.flow[0], first.flow[0], atol=0.2, rtol=0.05)


def test_holes_are_filled_from_around_them():
    image = torch.full((1, 3, 32, 32), 100 / 255)
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0, :, 16:] = 5
    assert_close(warp_and_inpaint(image, flow), image, atol=2.01 / 255, rtol=0)


def test_no_motion_gives_the_image_back():
    image = torch.rand(1, 3, 16, 16)
    assert_close(warp_and_inpaint(image, torch.zeros(1, 2, 16, 16)), image, atol=0.51 / 255, rtol=0)
