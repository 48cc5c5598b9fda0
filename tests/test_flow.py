"""One flow convention: grids, warps, splats, resizing, normalising, storing."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragstudy.drags import resize_points
from dragstudy.flow import (
    backward_warp,
    consistency_mask,
    dequantize_flow,
    fill_holes,
    flow_to_rgb,
    forward_splat,
    hold_anchors,
    normalize_flow,
    pixel_grid,
    quantize_flow,
    rescale_to_drags,
    resize_flow,
    sample_at,
)

SIZES = [(1, 1), (1, 7), (8, 8), (13, 6), (48, 64)]


def random_flow(h: int, w: int, *, batch: int = 1, size: float = 3.0, seed: int = 0) -> Tensor:
    return size * torch.randn(batch, 2, h, w, generator=torch.Generator().manual_seed(seed))


def constant_flow(x: float, y: float, h: int = 8, w: int = 10) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, h, w)


def random_image(h: int = 8, w: int = 10, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, h, w, generator=torch.Generator().manual_seed(1))


# Sampling and warping


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_sampling_a_grid_at_its_own_coordinates_is_the_identity(h, w):
    grid = pixel_grid(h, w)
    torch.testing.assert_close(sample_at(grid, grid), grid, atol=1e-4, rtol=0)


def test_sampling_between_pixels_is_bilinear_and_outside_is_clamped():
    image = torch.tensor([[0.0, 1.0], [10.0, 11.0]])[None, None]
    coords = torch.tensor([[0.5, 0.5], [1.0, 0.25], [-9.0, 0.0], [9.0, 9.0]]).T.view(1, 2, 1, 4)
    torch.testing.assert_close(sample_at(image, coords).flatten(), torch.tensor([5.5, 3.5, 0.0, 11.0]))


def test_half_precision_images_are_sampled_at_full_precision_coordinates():
    image = torch.arange(1024.0).view(1, 1, 1, 1024).remainder(7)
    sampled = sample_at(image.bfloat16(), pixel_grid(1, 1024))
    assert sampled.dtype == torch.bfloat16
    torch.testing.assert_close(sampled.float(), image, atol=2e-2, rtol=0)


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_identity_warps(h, w):
    image, still = random_image(h, w), torch.zeros(1, 2, h, w)
    torch.testing.assert_close(backward_warp(image, still), image, atol=1e-4, rtol=0)
    splatted, coverage = forward_splat(image, still)
    torch.testing.assert_close(splatted, image)
    torch.testing.assert_close(coverage, torch.ones(1, 1, h, w))


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, -3), (-4, 1)])
def test_translations_roll_the_image(x, y):
    image, flow = random_image(), constant_flow(float(x), float(y))
    splatted, coverage = forward_splat(image, flow)
    rolled = image.roll((y, x), dims=(2, 3))
    torch.testing.assert_close(splatted, rolled * coverage)
    assert coverage.sum() == (8 - abs(y)) * (10 - abs(x))
    # pulling the moved image back along the flow gives the source, where it was not pushed out
    stayed = consistency_mask(flow, -flow)
    torch.testing.assert_close(backward_warp(splatted, flow) * stayed, image * stayed, atol=1e-4, rtol=0)


# Splatting


def inward_flow(h: int, w: int, seed: int) -> Tensor:
    """A rough flow that moves nothing out of the frame."""
    grid = pixel_grid(h, w)
    last = torch.tensor([w - 1.0, h - 1.0]).view(1, 2, 1, 1)
    return (grid + random_flow(h, w, seed=seed)).clamp(torch.zeros_like(last), last) - grid


@pytest.mark.parametrize("seed", range(5))
def test_splatting_conserves_mass_while_nothing_leaves(seed):
    image = random_image(24, 32).double()
    splatted, _ = forward_splat(image, inward_flow(24, 32, seed).double(), mode="sum")
    torch.testing.assert_close(splatted.sum(dim=(2, 3)), image.sum(dim=(2, 3)))


def test_mass_that_leaves_is_lost_by_its_share():
    splatted, coverage = forward_splat(torch.ones(1, 1, 1, 4), constant_flow(0.25, 0.0, 1, 4), mode="sum")
    torch.testing.assert_close(splatted.flatten(), torch.tensor([0.75, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(coverage, splatted)


@pytest.mark.parametrize("mode", ["average", "softmax"])
def test_a_constant_stays_itself_where_anything_arrives(mode):
    importance = random_flow(24, 32, size=30.0)[:, :1] if mode == "softmax" else None
    image = torch.full((1, 3, 24, 32), 0.7)
    splatted, coverage = forward_splat(image, random_flow(24, 32), mode=mode, importance=importance)
    covered = (coverage > 1e-6).expand_as(splatted)
    assert 0 < covered.float().mean() < 1
    torch.testing.assert_close(splatted[covered], image[covered])
    assert not splatted[~covered].any()
    assert coverage.max() <= 1


def test_softmax_lets_the_important_pixel_hide_the_other():
    image = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    flow = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).view(1, 2, 1, 3)  # all land on the last pixel
    importance = torch.tensor([0.0, 90.0, 0.0]).view(1, 1, 1, 3)
    assert forward_splat(image, flow)[0][..., -1].item() == pytest.approx(2.0)
    assert forward_splat(image, flow + 0, mode="softmax", importance=importance)[0][..., -1].item() == 2.0
    first = forward_splat(image, flow, mode="softmax", importance=importance.roll(-1, dims=3))
    assert first[0][..., -1].item() == pytest.approx(1.0)


def test_splatting_ignores_what_is_not_finite_in_the_flow():
    flow = constant_flow(0.0, 0.0).clone()
    flow[0, :, 2, 3] = torch.nan
    splatted, coverage = forward_splat(random_image(), flow)
    assert splatted.isfinite().all()
    assert coverage[0, 0, 2, 3] == 0


def test_splatting_has_gradients():
    image, flow = random_image(3, 3, 1).double(), random_flow(3, 3).double()
    inputs = (image.requires_grad_(), flow.requires_grad_())
    assert torch.autograd.gradcheck(lambda image, flow: forward_splat(image, flow, mode="sum")[0], inputs)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"mode": "softmax"}, "importance belongs to mode 'softmax' and only to it, got mode 'softmax'."),
        ({"importance": torch.ones(1, 1, 8, 10)}, "importance belongs to .* got mode 'average'."),
    ],
)
def test_splatting_refuses_what_does_not_fit(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        forward_splat(random_image(), constant_flow(0.0, 0.0), **kwargs)


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (
            forward_splat,
            (random_image(), constant_flow(0.0, 0.0)),
            "'average', 'softmax' or 'sum', got 'max'",
        ),
        (resize_flow, (constant_flow(0.0, 0.0), (4, 4)), "'bilinear', 'bicubic' or 'area', got 'max'"),
        (normalize_flow, (constant_flow(0.0, 0.0),), "'fixed' or 'sample', got 'max'"),
    ],
)
def test_unknown_modes_are_refused_by_name(function, arguments, sentence):
    unchecked = inspect.unwrap(function)  # past the checker of types that only tests use
    with pytest.raises(ValueError, match=f"^mode must be {sentence}[.]$"):
        unchecked(*arguments, mode="max")


# Resizing


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(16, 20), (4, 5), (8, 10), (3, 40)])
def test_a_resized_flow_keeps_its_share_of_the_frame(mode, size):
    resized = resize_flow(constant_flow(3.0, -2.0), size, mode=mode)
    torch.testing.assert_close(resized, constant_flow(3.0 * size[1] / 10, -2.0 * size[0] / 8, *size))
    back = resize_flow(resized, (8, 10), mode=mode)
    torch.testing.assert_close(back, constant_flow(3.0, -2.0))


def test_a_smooth_flow_comes_back_from_being_resized():
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 48), indexing="ij")
    flow = torch.stack([x.sin() * 4, y.cos() * 2])[None]
    back = resize_flow(resize_flow(flow, (128, 96)), (32, 48), mode="area")
    assert (back - flow).abs().max() < 0.05


@pytest.mark.parametrize(("width", "new_width"), [(10, 20), (20, 10), (32, 48), (256, 64)])
def test_resizing_an_image_agrees_with_the_mapping_of_points(width, new_width):
    ramp = pixel_grid(1, width)[:, :1]  # every pixel holds its own x
    resized = F.interpolate(ramp, size=(1, new_width), mode="bilinear", align_corners=False).flatten()
    points = torch.stack([resized, torch.zeros(new_width)], dim=1).double().numpy()
    moved = resize_points(points, (width, 1), (new_width, 1))[:, 0]
    inside = slice(new_width // width, new_width - new_width // width)  # the border is clamped
    torch.testing.assert_close(
        torch.from_numpy(moved)[inside], torch.arange(new_width).double()[inside], atol=1e-4, rtol=0
    )


def test_warping_and_resizing_commute():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    image = ((x / 5).sin() + (y / 7).cos())[None, None]
    flow = constant_flow(3.0, -1.5, 32, 32)
    big = F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False)
    warped_big = backward_warp(big, resize_flow(flow, (64, 64)))
    big_warped = F.interpolate(
        backward_warp(image, flow), size=(64, 64), mode="bilinear", align_corners=False
    )
    inner = (..., slice(8, -8), slice(8, -8))
    assert (warped_big - big_warped)[inner].abs().max() < 0.02


# Normalising


@pytest.mark.parametrize("mode", ["fixed", "sample"])
def test_the_scale_undoes_the_normalisation(mode):
    flow = random_flow(12, 20, batch=3)
    normed, scale = normalize_flow(flow, mode)
    torch.testing.assert_close(normed * scale, flow)
    if mode == "sample":
        torch.testing.assert_close(normed.abs().amax(dim=(2, 3)), torch.ones(3, 2))


def test_sample_wise_normalisation_of_no_motion_is_no_motion():
    normed, _ = normalize_flow(torch.zeros(1, 2, 4, 4), "sample")
    assert not normed.any()


def test_rescaled_flows_reach_as_far_as_the_drags_on_each_axis():
    flow, drags = random_flow(16, 16, batch=2), torch.zeros(2, 2, 16, 16)
    drags[0, :, 3, 4] = torch.tensor([5.0, -2.0])
    drags[1, :, 8, 8] = torch.tensor([-7.0, 0.0])
    rescaled = rescale_to_drags(flow, drags)
    torch.testing.assert_close(rescaled.abs().amax(dim=(2, 3)), torch.tensor([[5.0, 2.0], [7.0, 0.0]]))
    assert (rescaled[0] * flow[0] >= 0).all()  # directions stay


def test_rescaling_follows_the_size_of_the_grid_and_survives_zeros():
    drags = torch.zeros(1, 2, 64, 64)
    drags[0, 0, 1, 1] = 8.0
    assert rescale_to_drags(random_flow(16, 16), drags).abs().max().item() == pytest.approx(2.0)
    assert not rescale_to_drags(torch.zeros(1, 2, 16, 16), drags).any()


# Anchors


def test_anchors_hold_and_handles_move():
    flow = random_flow(64, 64) + 10
    anchors, moving = torch.tensor([[20.0, 20.0], [30.4, 41.7]]), torch.tensor([[26.0, 20.0], [50.0, 50.0]])
    held = hold_anchors(flow, anchors, moving)
    at = lambda points: sample_at(held, points.T.view(1, 2, 1, -1))  # noqa: E731
    assert not at(anchors).any()
    torch.testing.assert_close(held[0, :, 50, 50], flow[0, :, 50, 50])
    share = held / flow
    assert share.min() >= 0
    assert share.max() <= 1
    assert (share[0, 0, 20, 20:27].diff() >= 0).all()


def test_anchors_alone_without_handles_reach_their_radius():
    held = hold_anchors(
        constant_flow(1.0, 1.0, 32, 32), torch.tensor([[4.0, 4.0]]), torch.zeros(0, 2), radius=6
    )
    assert held[0, 0, 4, 4] == 0
    assert held[0, 0, 4, 10] == 1
    assert held[0, 0, 20, 20] == 1


def test_no_anchors_change_nothing_and_numpy_points_will_do():
    flow = random_flow(8, 8)
    assert torch.equal(hold_anchors(flow, torch.zeros(0, 2).numpy(), torch.ones(1, 2).double().numpy()), flow)


# Storing


@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("seed", range(3))
def test_quantising_errs_by_half_a_step_at_most_and_keeps_zero(size, seed):
    flow = random_flow(32, 32, batch=2, size=size, seed=seed)
    flow[..., :8] = 0
    codes, scale = quantize_flow(flow)
    back = dequantize_flow(codes, scale)
    assert ((back - flow).abs() <= scale / 254 * (1 + 1e-4)).all()
    assert not back[..., :8].any()
    assert codes.min() >= 1
    torch.testing.assert_close(back.abs().amax(dim=(2, 3), keepdim=True), scale)


def test_quantising_no_motion_gives_no_motion():
    codes, scale = quantize_flow(torch.zeros(1, 2, 4, 4))
    assert not dequantize_flow(codes, scale).any()


def test_quantising_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match=r"^The flow to quantise must be finite, got NaN or infinity\.$"):
        quantize_flow(torch.full((1, 2, 4, 4), torch.nan))


# Consistency and colour


def test_a_translation_is_consistent_but_for_what_leaves():
    flow = constant_flow(3.0, 0.0)
    mask = consistency_mask(flow, -flow)
    assert mask[..., :7].all()
    assert not mask[..., 7:].any()


def test_disagreeing_flows_are_inconsistent():
    flow = constant_flow(0.0, 0.0)
    assert consistency_mask(flow, constant_flow(0.6, 0.0)).all()  # 0.36 < beta
    assert not consistency_mask(flow, constant_flow(0.8, 0.0)).any()


def test_colours_show_direction_and_length():
    still, right, left = (
        flow_to_rgb(constant_flow(x, 0.0), max_flow=4)[0, :, 0, 0] for x in (0.0, 4.0, -4.0)
    )
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() != left.tolist()
    both = flow_to_rgb(torch.cat([constant_flow(2.0, 0.0), constant_flow(4.0, 0.0)]), max_flow=4)
    assert torch.equal(both[1, :, 0, 0], right)
    assert torch.equal(both[0], flow_to_rgb(constant_flow(2.0, 0.0), max_flow=4)[0])
    assert torch.equal(flow_to_rgb(constant_flow(40.0, 0.0), max_flow=4)[0, :, 0, 0], right)
    assert flow_to_rgb(constant_flow(1.0, 0.0)).shape == (1, 3, 8, 10)


def test_golden_number():
    flow = random_flow(16, 16)
    splatted, coverage = forward_splat(random_image(16, 16), flow)
    assert f"{splatted.sum():.2f} {coverage.sum():.2f}" == "358.44 146.91"


def test_holes_are_filled_from_around_them_and_nothing_else_changes():
    image = random_image(24, 17)
    coverage = torch.ones(1, 1, 24, 17)
    coverage[..., 5:20, 4:12] = 0
    filled = fill_holes(torch.where(coverage > 0, image, -100.0), coverage)
    known = coverage.expand_as(image) > 0
    torch.testing.assert_close(filled[known], image[known])
    assert filled.min() >= image.min() and filled.max() <= image.max()
    one_colour = torch.where(coverage > 0, torch.full_like(image, 0.25), -100.0)
    torch.testing.assert_close(fill_holes(one_colour, coverage), torch.full_like(image, 0.25))


def test_nothing_fills_what_has_no_surroundings():
    assert not fill_holes(random_image(37, 50), torch.zeros(1, 1, 37, 50)).any()
