"""Motion supervision and tracking against references of a few lines, in double precision."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.supervision import motion_supervision_loss, patch_features, patches, track_points


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear(features, x, y):
    """The feature vector at one point inside the map, from its four neighbours."""
    left, top = int(x), int(y)
    u, v = x - left, y - top
    corner = features[0]
    return (
        (1 - u) * (1 - v) * corner[:, top, left]
        + u * (1 - v) * corner[:, top, left + 1]
        + (1 - u) * v * corner[:, top + 1, left]
        + u * v * corner[:, top + 1, left + 1]
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("step", [1.0, 2.5])
def test_the_loss_is_equation_2(reduction, step):
    features = rand(1, 5, 20, 24)
    handles = torch.tensor([[6.0, 7.0], [12.3, 9.6]], dtype=torch.float64)
    targets = torch.tensor([[10.0, 10.0], [9.0, 13.5]], dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for (x, y), (gx, gy) in zip(handles.tolist(), targets.tolist(), strict=True):
        length = ((gx - x) ** 2 + (gy - y) ** 2) ** 0.5
        dx, dy = step * (gx - x) / length, step * (gy - y) / length
        for j in (-1, 0, 1):
            for i in (-1, 0, 1):
                ahead = bilinear(features, x + i + dx, y + j + dy)
                expected += (ahead - bilinear(features, x + i, y + j)).abs().sum()
    found = motion_supervision_loss(features, handles, targets, reduction=reduction, step_length=step)
    assert_close(found, expected if reduction == "sum" else expected / 5)


def test_the_gradient_stops_at_what_is_moved():
    """Only the features ahead are pulled: those that lie behind the handle keep still."""
    features = rand(1, 3, 16, 16).requires_grad_()
    loss = motion_supervision_loss(
        features,
        torch.tensor([[5.0, 8.0]], dtype=torch.float64),
        torch.tensor([[12.0, 8.0]], dtype=torch.float64),
        radius=1,
    )
    (gradient,) = torch.autograd.grad(loss, features)
    columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten().tolist()
    assert columns == [5, 6, 7]  # the patch 4..6, one further


def test_arrived_points_are_left_alone_and_anchors_are_held():
    features, unedited = rand(1, 3, 16, 16), rand(1, 3, 16, 16, seed=1)
    points = torch.tensor([[5.0, 5.0], [9.0, 9.0]], dtype=torch.float64)
    targets = torch.tensor([[5.0, 6.5], [9.0, 9.0]], dtype=torch.float64)
    assert motion_supervision_loss(features, points, targets, stop_distance=2.0) == 0
    references = patch_features(unedited, points, 1)
    anchors = torch.tensor([False, True])
    held = motion_supervision_loss(
        features, points, targets, stop_distance=2.0, references=references, referenced=anchors
    )
    x, y = 9, 9
    expected = (features - unedited)[0, :, y - 1 : y + 2, x - 1 : x + 2].abs().sum()
    assert_close(held, expected)
    same = motion_supervision_loss(
        unedited, points, targets, stop_distance=2.0, references=references, referenced=anchors
    )
    assert same == 0


def test_with_references_the_photograph_is_wanted_one_step_ahead():
    """A map that already is the photograph, moved along, costs nothing."""
    photo = rand(1, 3, 24, 24)
    moved = photo.roll(3, dims=3)
    handle = torch.tensor([[10.0, 10.0]], dtype=torch.float64)
    options = {
        "radius": 2,
        "step_length": 3.0,
        "references": patch_features(photo, handle, 2),
        "referenced": torch.tensor([True]),
    }
    assert motion_supervision_loss(moved, handle, handle + torch.tensor([3.0, 0]), **options) < 1e-12
    assert motion_supervision_loss(photo, handle, handle + torch.tensor([3.0, 0]), **options) > 1


def test_an_unknown_reduction_is_refused():
    point = torch.zeros(1, 2)
    with pytest.raises((TypeError, ValueError)):
        motion_supervision_loss(torch.zeros(1, 1, 4, 4), point, point, reduction="max")


def test_tracking_is_equation_4():
    features, reference = rand(1, 6, 30, 30), rand(2, 6, seed=3)
    handles = torch.tensor([[10.0, 12.0], [20.0, 7.0]], dtype=torch.float64)
    found = track_points(features, reference, handles, radius=3)
    for k, (x, y) in enumerate(handles.int().tolist()):
        best = min(
            ((i, j) for j in range(y - 3, y + 4) for i in range(x - 3, x + 4)),
            key=lambda q: (features[0, :, q[1], q[0]] - reference[k]).abs().sum().item(),
        )
        assert found[k].tolist() == list(best)


def test_what_moved_is_found_again():
    photo = rand(1, 8, 32, 32)
    handles = torch.tensor([[10.0, 10.0], [20.0, 15.0]], dtype=torch.float64)
    references = patch_features(photo, handles)[:, :, 0]
    moved = photo.roll((2, -1), dims=(2, 3))
    assert_close(track_points(moved, references, handles), handles + torch.tensor([-1.0, 2.0]))
    assert torch.equal(track_points(photo, references, handles), handles)


def test_the_search_stops_at_the_border_and_ties_stay():
    flat = torch.zeros(1, 2, 8, 8)
    corner = torch.tensor([[0.0, 0.0], [7.0, 7.0]])
    assert torch.equal(track_points(flat, torch.zeros(2, 2), corner), corner)
    rim = torch.tensor(
        [[-0.25, 3.0], [7.25, 5.0]]
    )  # the picture's outermost pixels, on a map of half its size
    textured = rand(1, 4, 8, 8).float()
    references = patch_features(textured, rim)[:, :, 0]
    assert torch.equal(track_points(textured, references, rim), rim)


def test_patches_are_squares_row_by_row():
    patch = patches(torch.tensor([[2.5, 4.0]]), 2)
    assert patch.shape == (1, 25, 2)
    assert patch[0, 0].tolist() == [0.5, 2.0] and patch[0, -1].tolist() == [4.5, 6.0]
    assert patches(torch.tensor([[2.5, 4.0]]), 0)[0].tolist() == [[2.5, 4.0]]
