"""Distances in pixels: of flows, of landmarks, and of what was dragged."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dragstudy.flow import backward_warp
from dragstudy.metrics.distance import EndPointError, drag_distance, end_point_error, landmark_distance


def flows(count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    flow, target = torch.randn(2, count, 2, 12, 16, generator=generator)
    return flow, target, (torch.rand(count, 1, 12, 16, generator=generator) > 0.6).float()


def speckle(h: int = 64, w: int = 80, seed: int = 0) -> torch.Tensor:
    """A smooth random texture `(1, 3, h, w)` in [0, 1], different everywhere."""
    noise = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 5, stride=1, padding=2)


# Flows


def test_the_end_point_error_is_the_length_of_the_difference():
    zero = torch.zeros(2, 2, 5, 7)
    off = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1).expand(2, 2, 5, 7)
    assert_close(end_point_error(zero, off), torch.tensor([5.0, 5.0]))
    assert_close(end_point_error(off, off), torch.zeros(2))


def test_only_what_the_mask_marks_counts():
    flow, target, mask = flows()
    masked = end_point_error(flow, target, mask)
    assert_close(end_point_error(flow + 9 * (1 - mask), target, mask), masked)
    for k in range(2):
        chosen = (flow - target)[k].norm(dim=0)[mask[k, 0] > 0]
        assert_close(masked[k], chosen.mean())
    assert end_point_error(flow, target, torch.zeros_like(mask)).isnan().all()


@pytest.mark.parametrize("masked", [True, False])
def test_the_metric_pools_all_pixels_of_all_batches(masked):
    metric, distances = EndPointError(), []
    for seed, count in ((0, 1), (1, 3)):
        flow, target, mask = flows(count, seed)
        metric.update(flow, target, mask if masked else None)
        chosen = mask[:, 0] > 0 if masked else torch.ones_like(mask[:, 0], dtype=torch.bool)
        distances.append((flow - target).norm(dim=1)[chosen])
    assert_close(metric.compute(), torch.cat(distances).mean())


def test_the_metric_starts_anew_after_a_reset_and_adds_up_across_processes():
    flow, target, mask = flows()
    metric, half = EndPointError(), [EndPointError(), EndPointError()]
    value = metric(flow, target, mask)
    assert_close(metric.compute(), value)
    for k, part in enumerate(half):
        part.update(flow[k : k + 1], target[k : k + 1], mask[k : k + 1])
    half[0].merge_state(half[1])
    assert_close(half[0].compute(), value)
    metric.reset()
    metric.update(target, target)
    assert metric.compute() == 0


def test_the_metric_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(N, 2, H, W\)"):
        EndPointError().update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))


# Landmarks


def test_landmarks_are_compared_where_both_are_known():
    frame, truth = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 2))
    found = np.array([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [1.0, 0.0]])
    assert landmark_distance(frame, truth, lambda _: found) == pytest.approx(4.0)
    assert landmark_distance(frame, truth, lambda _: found, points=[0, 2]) == pytest.approx(7.5)
    truth[2] = np.nan
    assert landmark_distance(frame, truth, lambda _: found) == pytest.approx(2.0)


def test_no_face_or_no_landmark_gives_nan():
    frame = np.zeros((8, 8, 3), np.uint8)
    assert np.isnan(landmark_distance(frame, np.zeros((4, 2)), lambda _: None))
    assert np.isnan(landmark_distance(frame, np.full((4, 2), np.nan), lambda _: np.zeros((4, 2))))


# Drags

HANDLES = np.array([[30.0, 20.0], [50.4, 44.6], [12.0, 50.0]])
SHIFT = np.array([6.0, -4.0])


def moved(image: torch.Tensor) -> torch.Tensor:
    """The image moved by `SHIFT`."""
    flow = -torch.tensor(SHIFT).float().view(1, 2, 1, 1).expand(1, 2, *image.shape[-2:])
    return backward_warp(image, flow.contiguous())


def local_features(image: torch.Tensor) -> torch.Tensor:
    """Colours of a neighbourhood, at half the resolution."""
    return F.avg_pool2d(F.unfold(image - 0.5, 9, padding=4).view(1, -1, *image.shape[-2:]), 2)


@pytest.mark.parametrize(("features", "allowed"), [(None, 0.0), (local_features, 1.5)])
def test_what_was_moved_to_its_target_is_there(features, allowed):
    source = speckle()
    distances = drag_distance(source, moved(source), HANDLES, HANDLES + SHIFT, features=features)
    assert distances.shape == (3,) and (distances <= allowed + 1e-6).all()


@pytest.mark.parametrize(("features", "allowed"), [(None, 0.0), (local_features, 1.5)])
def test_an_untouched_image_misses_by_the_length_of_the_drag(features, allowed):
    source = speckle()
    distances = drag_distance(source, source, HANDLES, HANDLES + SHIFT, features=features)
    assert_close(distances, np.full(3, np.linalg.norm(SHIFT)), atol=allowed + 1e-6, rtol=0)


def test_a_change_of_light_does_not_mislead_the_search():
    source = speckle()
    distances = drag_distance(source, 0.6 * moved(source) + 0.2, HANDLES, HANDLES + SHIFT)
    assert_close(distances, np.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("corner", [[-0.5, -0.5], [79.5, -0.5], [79.5, 63.5], [0.0, 63.0]])
def test_points_on_the_border_are_found(corner):
    source, point = speckle(), np.array([corner])
    assert drag_distance(source, source, point, point)[0] == 0


def test_a_square_of_one_colour_says_nothing():
    grey = torch.full((1, 3, 40, 40), 0.5)
    assert np.isnan(drag_distance(grey, grey, np.array([[20.0, 20.0]]), np.array([[22.0, 20.0]]))).all()
