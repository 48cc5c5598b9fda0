"""Dense flow by interpolation: through the drags, still at the border, rigid where it should be."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.drags import DragInstruction
from dragstudy.interpolation import (
    distance_to_drags,
    interpolate_drags,
    interpolate_sparse,
    spread_drags,
)

SIZE = (48, 64)
METHODS = ["thin_plate", "moving_least_squares"]
THREE = ([[12, 12], [40, 20], [24, 36]], [[18, 10], [36, 26], [24, 40]])
FEW = {
    "one drag": ([[20, 24]], [[26, 20]]),
    "two drags": ([[20, 24], [40, 12]], [[26, 20], [40, 16]]),
    "neighbours": ([[20, 24], [21, 24]], [[22, 24], [24, 24]]),
    "three on a line": ([[8, 8], [16, 16], [32, 32]], [[12, 8], [16, 20], [30, 30]]),
    "an anchor": ([[20, 24], [40, 24]], [[20, 24], [44, 28]]),
    "at the corner": ([[0, 0], [63, 47]], [[4, 4], [60, 40]]),
    "three": THREE,
}

both = pytest.mark.parametrize("method", METHODS)


def interpolate(drags, method: str, **options) -> torch.Tensor:
    return interpolate_drags(DragInstruction(*drags, image_size=SIZE[::-1]), SIZE, method, **options)


@both
@pytest.mark.parametrize("pin_border", [True, False])
@pytest.mark.parametrize("name", FEW)
def test_drags_are_hit_exactly(method, pin_border, name):
    handles, targets = (np.array(points) for points in FEW[name])
    flow = interpolate(FEW[name], method, pin_border=pin_border, stride=1)
    assert flow.shape == (1, 2, *SIZE) and flow.isfinite().all()
    x, y = handles.T
    assert_close(flow[0, :, y, x].T, torch.tensor(targets - handles).float(), atol=1e-3, rtol=0)


@both
def test_a_coarse_evaluation_is_close_to_a_fine_one(method):
    fine, coarse = (interpolate(THREE, method, stride=stride) for stride in (1, 4))
    assert_close(coarse[..., ::4, ::4], fine[..., ::4, ::4])
    assert (coarse - fine).abs().mean() < 0.1


@both
@pytest.mark.parametrize("name", ["one drag", "two drags", "three on a line", "three"])
def test_drags_that_agree_translate_the_whole_image(method, name):
    handles = np.array(FEW[name][0])
    flow = interpolate((handles, handles + [5, -3]), method, pin_border=False)
    assert_close(flow, torch.tensor([5.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, *SIZE), atol=1e-4, rtol=0)


def test_moving_least_squares_turns_without_shear():
    angle = 0.2
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    handles, centre = np.array(THREE[0], dtype=np.float64), np.array([30.0, 24.0])
    targets = (handles - centre) @ turn.T + centre
    flow = interpolate((handles, targets), "moving_least_squares", pin_border=False, stride=1)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    points = np.stack([x, y], axis=-1) - centre
    expected = torch.from_numpy(points @ turn.T - points).permute(2, 0, 1)[None].float()
    assert_close(flow, expected, atol=1e-3, rtol=0)


def test_the_thin_plate_reproduces_any_affine_motion():
    handles = np.array([*THREE[0], [50, 40]], dtype=np.float64)
    linear, shift = np.array([[1.1, 0.05], [-0.1, 0.9]]), np.array([0.5, 2.0])
    flow = interpolate((handles, handles @ linear.T + shift), "thin_plate", pin_border=False)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    points = np.stack([x, y], axis=-1)
    expected = torch.from_numpy(points @ linear.T + shift - points).permute(2, 0, 1)[None].float()
    assert_close(flow, expected, atol=1e-3, rtol=0)


@both
def test_the_border_is_pinned(method):
    flow = interpolate(FEW["one drag"], method, stride=1)[0]
    corners = flow[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.abs().max() < 1e-3
    border = torch.cat([flow[:, 0], flow[:, -1], flow[:, :, 0], flow[:, :, -1]], dim=1)
    assert border.norm(dim=0).mean() < 0.2 * flow[:, 24, 20].norm()


@both
def test_the_border_gives_way_to_a_drag_on_it(method):
    flow = interpolate(([[0, 0]], [[6, 4]]), method, stride=1)
    assert_close(flow[0, :, 0, 0], torch.tensor([6.0, 4.0]), atol=1e-3, rtol=0)


@both
def test_the_later_of_two_drags_from_one_point_wins(method):
    doubled = ([[20, 24], [40, 12], [20, 24]], [[30, 24], [40, 16], [26, 20]])
    assert_close(interpolate(doubled, method), interpolate(FEW["two drags"], method))


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (7, 5)])
def test_any_size_is_covered(method, size):
    drags = DragInstruction([[0, 0]], [[0.4, 0.2]], image_size=size[::-1])
    flow = interpolate_drags(drags, size, method)
    assert flow.shape == (1, 2, *size) and flow.isfinite().all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'thin_plate' or 'moving_least_squares', got 'spline'"):
        interpolate(THREE, "spline")


def scattered(generator, count=6, size=(32, 48)):
    sparse = torch.zeros(1, 2, *size)
    for _ in range(count):
        y, x = (int(torch.randint(side, (), generator=generator)) for side in size)
        sparse[0, :, y, x] = torch.randn(2, generator=generator)
    return sparse


def test_a_sparse_flow_is_interpolated_like_the_drags_it_holds(generator):
    sparse = torch.zeros(2, 2, 32, 48)
    points = torch.tensor([[5, 7], [30, 20], [41, 28], [12, 25]])
    moved = torch.randn(4, 2, generator=generator)
    sparse[0, :, points[:, 1], points[:, 0]] = moved.T
    drags = DragInstruction(points.numpy(), points.numpy() + moved.numpy())
    dense = interpolate_sparse(sparse, stride=4)
    assert_close(dense[:1], interpolate_drags(drags, (32, 48)))
    assert not dense[1].any()


def test_spread_drags_is_zero_without_drags_and_constant_for_one():
    sparse = torch.zeros(2, 2, 16, 24)
    sparse[1, :, 5, 7] = torch.tensor([0.25, -1.0])
    spread = spread_drags(sparse)
    assert spread[0].abs().max() == 0
    assert_close(spread[1], sparse[1, :, 5, 7, None, None].expand(2, 16, 24))


def test_spread_drags_stays_within_its_drags_and_nears_each(generator):
    sparse = scattered(generator)
    spread = spread_drags(sparse, softness=0.001, stride=1)
    assert spread.abs().max() <= sparse.abs().max() + 1e-5
    at_drags = sparse[0].any(dim=0)
    assert_close(spread[0][:, at_drags], sparse[0][:, at_drags], atol=0.05, rtol=0)


@pytest.mark.parametrize("axis", [2, 3])
def test_spread_drags_of_a_mirrored_flow_is_mirrored(generator, axis):
    sparse = scattered(generator)
    assert_close(spread_drags(sparse.flip(axis)), spread_drags(sparse).flip(axis))


def test_spread_drags_is_the_same_at_any_stride_up_to_the_interpolation(generator):
    sparse = scattered(generator, count=3)
    fine, coarse = spread_drags(sparse, softness=0.3, stride=1), spread_drags(sparse, softness=0.3, stride=4)
    assert_close(coarse, fine, atol=0.05, rtol=0)


def test_the_distance_to_drags_is_the_same_wherever_it_lies_in_memory_and_on_however_many_threads():
    sparse = torch.zeros(1, 2, 256, 256)
    places = torch.randint(0, 256, (9, 2), generator=torch.Generator().manual_seed(0))
    sparse[0, 0, places[:, 1], places[:, 0]] = 1.0
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    squared = (x[..., None] - places[:, 0]) ** 2 + (y[..., None] - places[:, 1]) ** 2
    expected = squared.amin(dim=-1).double().sqrt().float()
    threads = cv2.getNumThreads()
    try:
        for number in (1, threads):
            cv2.setNumThreads(number)
            for offset in range(4):
                moved = torch.empty(offset + sparse.numel())[offset:].view_as(sparse).copy_(sparse)
                assert torch.equal(distance_to_drags(moved)[0, 0], expected)
    finally:
        cv2.setNumThreads(threads)
