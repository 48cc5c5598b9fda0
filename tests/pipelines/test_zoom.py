"""A window holds mask and points, and the way there and back changes nothing outside of it."""

import numpy as np
import pytest

from dragstudy.drags import DragInstruction
from dragstudy.pipelines.base import make_request
from dragstudy.pipelines.zoom import LARGEST, find_window, zoom_in, zoom_out

from ..tiny import picture


def drags(size, box, handle, target) -> DragInstruction:
    mask = np.zeros(size[::-1])
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return DragInstruction([handle], [target], mask, size)


@pytest.mark.parametrize("seed", range(60))
def test_a_window_covers_mask_and_points_and_has_the_image_s_shape(seed):
    rng = np.random.default_rng(seed)
    size = width, height = rng.integers(8, 300, 2).tolist()
    (x0, x1), (y0, y1) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in size)
    points = rng.random((2, 2)) * size - 0.5
    left, upper, right, lower = find_window(drags(size, (x0, y0, x1, y1), *points))
    assert 0 <= left <= x0 and x1 <= right <= width
    assert 0 <= upper <= y0 and y1 <= lower <= height
    for x, y in points:
        assert left - 0.5 <= x <= right - 0.5 and upper - 0.5 <= y <= lower - 0.5
    shares = (right - left) / width, (lower - upper) / height
    assert abs(shares[0] - shares[1]) <= max(1 / width, 1 / height)
    assert min(shares) >= 1 / LARGEST


@pytest.mark.parametrize("mask", [None, np.ones((60, 90))])
def test_where_everything_may_change_the_window_is_the_image(mask):
    asked = DragInstruction([[10, 10]], [[20, 10]], mask, (90, 60))
    assert find_window(asked) == (0, 0, 90, 60)


def test_a_zoomed_request_shows_the_same_content_larger():
    mask = np.zeros((128, 128))
    mask[40:72, 40:72] = 1
    request = make_request(picture(128, 128), [[50, 60]], [[58, 60]], mask, 64 * 64)
    window = find_window(request.drags)
    zoomed = zoom_in(request, window)
    assert zoomed.working_image.shape == request.working_image.shape
    assert zoomed.image.tobytes() == request.image.crop(window).tobytes()
    assert np.array_equal(zoomed.drags.handle_points, [[50 - window[0], 60 - window[1]]])
    length = np.linalg.norm(zoomed.working_drags.displacements)
    assert length == pytest.approx(8 * 64 / (window[2] - window[0]))
    assert zoomed.drags.mask.sum() == mask.sum()


def test_back_in_its_place_an_unchanged_window_changes_nothing():
    photo, window = picture(90, 60), (20, 10, 50, 40)
    assert zoom_out(photo, window, photo.crop(window)).tobytes() == photo.tobytes()
    changed = np.asarray(zoom_out(photo, window, picture(30, 30, 3.0))) != np.asarray(photo)
    assert not changed[:10].any() and not changed[:, :20].any() and changed[10:40, 20:50].any()
