"""The bidirectional warp: it keeps the contract, carries the masked region and fills what it uncovers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dragstudy.drags import DragInstruction
from dragstudy.pipelines import BidirectionalWarpPipeline, load
from dragstudy.pipelines.bidirectional import deform_and_inpaint, deformed_region, look_up, region_flow

from ..tiny import picture
from .contract import PipelineContract, pixels


class TestBidirectionalWarpPipeline(PipelineContract):
    steps = 1
    is_random = False

    @classmethod
    def make(cls) -> BidirectionalWarpPipeline:
        return BidirectionalWarpPipeline(working_area=64 * 64)


def box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    region = np.zeros(size, bool)
    region[top:bottom, left:right] = True
    return region


def constant(dx: float, dy: float, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.broadcast_to(np.array([dx, dy], dtype=np.float64), (*size, 2))


def test_the_flow_at_a_handle_is_its_drag_and_between_two_it_is_between_them():
    drags = DragInstruction([[10, 20], [50, 20]], [[14, 20], [50, 28]], image_size=(64, 64))
    flow = region_flow(drags, np.ones((64, 64), bool))[0]
    assert_close(flow[:, 20, 10], torch.tensor([4.0, 0.0]))
    assert_close(flow[:, 20, 50], torch.tensor([0.0, 8.0]))
    assert_close(flow[:, 40, 30], torch.tensor([2.0, 4.0]))  # as far from one as from the other


def test_a_part_of_the_region_answers_only_to_the_drags_that_begin_in_it():
    region = box(5, 5, 25, 60) | box(35, 5, 60, 60)
    drags = DragInstruction([[10, 20], [30, 30]], [[16, 20], [30, 50]], image_size=(64, 64))
    flow = region_flow(drags, region)[0].permute(1, 2, 0).numpy()
    assert (flow[box(5, 5, 25, 60)] == (6, 0)).all()
    assert not flow[~box(5, 5, 25, 60)].any()


@pytest.mark.parametrize(("dx", "dy"), [(7, -4), (0, 5), (-12, 0)])
def test_a_translated_region_lands_where_it_should_and_every_pixel_finds_its_source(dx, dy):
    region = box(20, 16, 40, 44)
    covered = deformed_region(region, constant(dx, dy))
    assert np.array_equal(covered, np.roll(region, (dy, dx), axis=(0, 1)))
    back = look_up(region, constant(dx, dy), covered)[0].permute(1, 2, 0).numpy()
    y, x = np.nonzero(covered)
    np.testing.assert_allclose(back[covered], np.stack([x - dx, y - dy], axis=1), atol=1e-4)
    y, x = np.nonzero(~covered)
    assert np.array_equal(back[~covered], np.stack([x, y], axis=1))


def test_a_hole_of_the_region_is_carried_with_it():
    region = box(10, 10, 40, 40) & ~box(20, 20, 30, 30)
    covered = deformed_region(region, constant(6, 0))
    assert not covered[22:28, 28:34].any() and covered[12:18, 18:44].all()


def test_a_stretched_region_has_no_gaps():
    y, x = np.mgrid[:64, :64]
    motion = np.stack([2.0 * (x - 20), 0.0 * y], axis=-1)  # three times as wide
    region = box(10, 10, 30, 50)
    covered = deformed_region(region, motion)
    assert covered[12:48, :47].all()
    back = look_up(region, motion, covered)[0, 0].numpy()
    assert np.abs(back[12:48, 2:46] - (x[12:48, 2:46] - 20) / 3 - 20).max() < 0.7


def test_what_is_dragged_arrives_and_what_it_leaves_is_filled_from_around():
    image = Image.new("RGB", (128, 128), (40, 60, 80))
    image.paste((250, 200, 50), (46, 46, 63, 63))
    mask = np.zeros((128, 128))
    mask[30:100, 40:100] = 1
    pipe = BidirectionalWarpPipeline(working_area=128 * 128)
    output = pipe(image, [[54, 54]], [[74, 64]], mask)
    assert output.images[0].getpixel((74, 64)) == (250, 200, 50)
    assert output.images[0].getpixel((50, 50)) == pytest.approx((40, 60, 80), abs=3)
    assert_close(output.flow[0][0, :, 54, 54], torch.tensor([20.0, 10.0]))


def test_what_leaves_the_mask_is_cut_off():
    image, mask = picture(64, 64), np.zeros((64, 64))
    mask[10:50, 10:30] = 1
    edited = BidirectionalWarpPipeline(working_area=64 * 64)(image, [[20, 30]], [[40, 30]], mask).images[0]
    change = np.abs(pixels(edited) - pixels(image)).max(axis=2)
    assert not change[:, 30:].any() and change[10:50, 10:30].mean() > 10


def test_without_a_mask_the_rim_of_the_picture_is_held():
    flow = load("bidirectional-warp")(picture(96, 64), [[40, 30]], [[48, 30]]).flow[0][0]
    assert flow[:, 30, 40].tolist() == pytest.approx([8, 0], abs=0.2)
    assert flow.norm(dim=0)[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.1


def test_no_motion_gives_the_very_image_back():
    image = torch.rand(1, 3, 16, 16)
    still = torch.zeros(1, 2, 16, 16)
    assert torch.equal(deform_and_inpaint(image, np.ones((16, 16), bool), still), image)


def test_an_edge_that_stays_has_no_seam():
    """The left half moves, the right half of the same region does not."""
    image, flow = torch.rand(1, 3, 64, 64), torch.zeros(1, 2, 64, 64)
    flow[:, 1, :, :28] = 5
    edited = deform_and_inpaint(image, box(8, 8, 56, 56), flow, seam=2)
    assert_close(edited[..., 36:], image[..., 36:], atol=0.51 / 255, rtol=0)


def test_a_given_flow_is_used_in_pixels_of_its_own_grid():
    image, pipe = picture(100, 75), BidirectionalWarpPipeline(working_area=64 * 64)
    first = pipe(image, [[50, 40]], [[58, 36]])
    again = pipe(image, [[50, 40]], [[50, 40]], flow=first.flow[0])
    assert np.abs(pixels(again.images[0]) - pixels(first.images[0])).mean() < 1.5
