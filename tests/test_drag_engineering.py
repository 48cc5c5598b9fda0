"""Drag engineering: suggested drags say what the given ones mean, and rounds add up to them."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.drag_engineering import augment_from_flow, augment_symmetric, split_drags
from dragstudy.drags import DragInstruction, resize_points
from dragstudy.flow import compose_flows, pixel_grid
from dragstudy.landmarks import MIRRORED_LANDMARKS, face_reflection


def make_drags(**changes) -> DragInstruction:
    """Two drags and an anchor."""
    points = {
        "handle_points": [[10.0, 20.0], [40.5, 30.0], [5.0, 5.0]],
        "target_points": [[17.0, 14.0], [33.3, 31.1], [5.0, 5.0]],
        "image_size": (64, 48),
    }
    return DragInstruction(**points | changes)


def half_moving(h: int = 48, w: int = 64) -> torch.Tensor:
    """A flow that turns, and only in the right half of the picture."""
    x, y = pixel_grid(h, w)[0]
    flow = torch.stack([2 + y / h, 1 - x / w])
    return flow * (x >= w / 2)


# Rounds


@pytest.mark.parametrize("rounds", [1, 2, 3, 7, 64])
def test_rounds_follow_each_other_in_equal_steps_from_handles_to_targets(rounds):
    mask = np.zeros((48, 64))
    mask[10:30] = 0.3
    drags = make_drags(mask=mask)
    parts = split_drags(drags, rounds)
    assert len(parts) == rounds
    joined = DragInstruction(parts[0].handle_points, parts[-1].target_points, parts[0].mask, (64, 48))
    assert joined == drags
    for before, after in zip(parts[:-1], parts[1:], strict=True):
        assert np.array_equal(before.target_points, after.handle_points)
    for part in parts:
        assert np.array_equal(part.anchors, drags.anchors)
        assert np.array_equal(part.mask, drags.mask) and part.image_size == (64, 48)
        assert_close(part.displacements, drags.displacements / rounds, atol=1e-9, rtol=0)


def test_one_round_is_the_drags_themselves():
    assert split_drags(make_drags(), 1) == [make_drags()]


def test_drags_along_the_border_are_split_inside_the_image():
    drags = DragInstruction([[-0.5, 47.5], [63.5, -0.5]], [[63.5, 47.5], [63.5, 47.5]], image_size=(64, 48))
    assert len(split_drags(drags, 97)) == 97


def test_rounds_of_no_length_and_no_rounds_are_refused():
    step = float(np.nextafter(10.0, 11.0))
    with pytest.raises(ValueError, match="too short for 4 rounds"):
        split_drags(DragInstruction([[10.0, 0.0]], [[step, 0.0]]), 4)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        split_drags(make_drags(), 0)


# Suggestions from a flow


def test_suggestions_come_after_the_given_drags_and_follow_the_flow():
    drags, flow = make_drags(), half_moving()
    found = augment_from_flow(drags, flow, 5)
    assert np.array_equal(found.handle_points[:3], drags.handle_points)
    assert np.array_equal(found.target_points[:3], drags.target_points)
    assert len(found.handle_points) == 8
    x, y = found.handle_points[3:].astype(int).T
    assert (x >= 32).all()
    assert_close(torch.from_numpy(found.displacements[3:].T).float(), flow[:, y, x])


def test_suggestions_keep_away_from_every_handle_and_from_each_other():
    found = augment_from_flow(make_drags(), half_moving(), 1000, min_distance=7)
    distances = np.linalg.norm(found.handle_points[:, None] - found.handle_points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert 10 < len(distances) < 40 and distances[3:].min() >= 7


def test_more_suggestions_begin_with_the_fewer():
    few, many = (augment_from_flow(make_drags(), half_moving(), count) for count in (3, 6))
    assert np.array_equal(many.handle_points[:6], few.handle_points)
    assert augment_from_flow(make_drags(), half_moving(), 0) == make_drags()


def test_suggestions_stay_inside_the_mask_and_the_image():
    mask = np.zeros((48, 64))
    mask[:, 40:52] = 1
    flow = torch.tensor([30.0, 0.0]).view(2, 1, 1).expand(2, 48, 64)
    found = augment_from_flow(make_drags(mask=mask), flow, 100, min_distance=1)
    assert len(found.handle_points) == 3  # from there all of it leaves the picture
    found = augment_from_flow(make_drags(mask=mask), flow / 3, 100, min_distance=1)
    x, y = found.handle_points[3:].astype(int).T
    assert len(x) == 100 and mask[y, x].all() and (found.target_points <= (63.5, 47.5)).all()


def test_what_hardly_moves_is_not_suggested():
    flow = half_moving()
    flow[:, :, :32] = 0.2
    assert (augment_from_flow(make_drags(), flow, 20).handle_points[3:, 0] >= 32).all()
    assert (augment_from_flow(make_drags(), flow, 20, moving_share=0.0).handle_points[3:, 0] < 32).any()


def test_a_flow_on_another_grid_gives_the_drags_of_the_resized_image():
    flow = half_moving()
    small = augment_from_flow(make_drags(), flow, 4)
    large = augment_from_flow(make_drags().resize((128, 144)), flow, 4, min_distance=1)
    x, y = resize_points(large.handle_points[3:], (128, 144), (64, 48)).T
    assert_close(np.stack([x, y]), np.stack([x, y]).round())  # pixel centres of the flow's grid
    moved = torch.from_numpy(large.displacements[3:].T).float() / torch.tensor([[2.0], [3.0]])
    assert_close(moved, flow[:, y.round().astype(int), x.round().astype(int)])
    assert len(small.handle_points) == len(large.handle_points) == 7


@pytest.mark.parametrize("flow", [torch.zeros(2, 48, 64), torch.zeros(1, 2, 1, 1)])
def test_without_motion_nothing_is_suggested(flow):
    assert augment_from_flow(make_drags(), flow, 4) == make_drags()


def test_what_is_no_flow_and_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 2, 8, 8\)"):
        augment_from_flow(make_drags(), torch.zeros(2, 2, 8, 8), 1)
    for augment in (
        lambda: augment_from_flow(make_drags(), half_moving(), -1),
        lambda: augment_symmetric(make_drags(), face(), -1),
    ):
        with pytest.raises(ValueError, match="at least 0, got -1"):
            augment()


# Suggestions from a face


def face(angle: float = 0.0, centre: tuple[float, float] = (128.0, 120.0), seed: int = 0) -> np.ndarray:
    """68 landmarks that are symmetric about an axis through `centre`, tilted by `angle`."""
    points = np.random.default_rng(seed).uniform(-60, 60, (68, 2))
    points = (points + points[MIRRORED_LANDMARKS] * [-1, 1]) / 2
    points[[36, 45]] = [[-45, -20], [45, -20]]
    points[[48, 54]] = [[-22, 30], [22, 30]]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + centre


def mirrored(points: np.ndarray, angle: float) -> np.ndarray:
    """Points about the axis of `face(angle)`."""
    across = np.array([np.cos(angle), np.sin(angle)])
    offset = points - (128, 120)
    return points - 2 * (offset @ across)[..., None] * across


@pytest.mark.parametrize("angle", [0.0, 0.4, -0.9, 2.0])
def test_the_mirrored_drag_is_the_mirror_image_of_the_given_one(angle):
    points = face(angle)
    handles = points[[48]] + [[1.5, -2.0]]  # near the corner of the mouth
    drags = DragInstruction(handles, handles + [[-7.0, -9.0]], image_size=(256, 256))
    found = augment_symmetric(drags, points)
    assert len(found.handle_points) == 2
    assert_close(found.handle_points[1], mirrored(drags.handle_points[0], angle))
    assert_close(found.target_points[1], mirrored(drags.target_points[0], angle))
    assert augment_symmetric(found, points) == found  # the other half is dragged already


def test_the_reflection_undoes_itself_and_swaps_the_sides():
    points = face(0.3)
    reflection = face_reflection(points)
    assert_close(reflection @ reflection, np.eye(2), atol=1e-12, rtol=0)
    assert_close((points[0] - points[8]) @ reflection, points[16] - points[8])


def test_nothing_is_suggested_for_the_midline_anchors_and_points_far_from_the_face():
    points = face()
    for handle, displacement in ((points[30], (20, 0)), (points[48], (0, 0)), ((250.0, 250.0), (-5, 0))):
        drags = DragInstruction([handle], [np.add(handle, displacement)], image_size=(256, 256))
        assert augment_symmetric(drags, points) == drags


def test_the_mask_the_border_and_the_count_limit_what_is_mirrored():
    points = face()
    handles = points[[48, 36]]
    drags = DragInstruction(handles, handles - [[5.0, 0.0]], image_size=(256, 256))
    assert len(augment_symmetric(drags, points).handle_points) == 4
    one = augment_symmetric(drags, points, 1)
    assert_close(one.handle_points[2:], points[[54]])
    mask = np.zeros((256, 256))
    mask[:, :128] = 1
    left = DragInstruction(handles, handles - [[5.0, 0.0]], mask)
    assert augment_symmetric(left, points) == left
    points, handles = points + (200 - 128, 0), handles + (200 - 128, 0)  # 245 + 20 lies beyond the border
    long = DragInstruction(handles, handles - [[20.0, 0.0]], image_size=(256, 256))
    assert_close(augment_symmetric(long, points).handle_points[2:], points[[54]])


@pytest.mark.parametrize("landmarks", [np.zeros((17, 2)), np.full((68, 2), np.nan)])
def test_landmarks_must_be_68_points(landmarks):
    with pytest.raises(ValueError, match="68 finite points"):
        augment_symmetric(make_drags(), landmarks)


# Flows of several rounds


def affine_flow(matrix: list, shift: list) -> torch.Tensor:
    """The flow of `p -> matrix p + shift` about the middle of 64 x 64 pixels."""
    grid = pixel_grid(64, 64) - 31.5
    moved = torch.einsum("ij,bjhw->bihw", torch.tensor(matrix), grid) + torch.tensor(shift).view(1, 2, 1, 1)
    return moved - grid


def test_composed_flows_are_the_flow_of_the_composed_maps():
    a, s = [[1.05, 0.1], [-0.1, 0.95]], [2.0, -1.0]
    b, t = [[0.9, -0.05], [0.1, 1.1]], [-3.0, 2.0]
    both = torch.tensor(b) @ torch.tensor(a), torch.tensor(b) @ torch.tensor(s) + torch.tensor(t)
    found = compose_flows(affine_flow(a, s), affine_flow(b, t))
    expected = affine_flow(*(one.tolist() for one in both))
    inner = (..., slice(12, 52), slice(12, 52))  # what leaves the picture on the way is clamped
    assert_close(found[inner], expected[inner], atol=1e-3, rtol=0)


def test_no_motion_before_or_after_changes_nothing():
    flow, still = half_moving()[None], torch.zeros(1, 2, 48, 64)
    assert_close(compose_flows(flow, still), flow)
    assert_close(compose_flows(still, flow), flow, atol=1e-5, rtol=0)
