"""Background consistency: which frame each pixel of the condition and of the target comes from."""

import pytest
import torch

from dragstudy.data.composite import composite_background, dilate


@pytest.fixture
def layers() -> tuple[torch.Tensor, ...]:
    """Source 1, target 2; the object is one pixel at (20, 20), then at (20, 40)."""
    source, target = torch.full((1, 3, 48, 64), 1.0), torch.full((1, 3, 48, 64), 2.0)
    mask, target_mask = torch.zeros(1, 1, 48, 64), torch.zeros(1, 1, 48, 64)
    mask[..., 20, 20] = target_mask[..., 20, 40] = 1
    return source, target, mask, target_mask


def test_dilation_is_a_15_px_square() -> None:
    point = torch.zeros(1, 1, 48, 64)
    point[..., 20, 20] = 1
    grown = dilate(point)
    assert grown.sum() == 15 * 15 and grown[..., 13:28, 13:28].all()
    with pytest.raises(ValueError, match="odd"):
        dilate(point, 4)


def test_first_approach_changes_the_condition(layers) -> None:
    condition, target = composite_background(*layers, approach=1)
    torch.testing.assert_close(target, layers[1])
    assert (condition == 1).sum() == 3 * 15 * 15 and (condition[..., 13:28, 13:28] == 1).all()


def test_second_approach_changes_the_target(layers) -> None:
    condition, target = composite_background(*layers, approach=2)
    torch.testing.assert_close(condition, layers[0])
    assert (target == 2).sum() == 3 * 15 * 15 and (target[..., 13:28, 33:48] == 2).all()


def test_third_approach_changes_nothing(layers) -> None:
    condition, target = composite_background(*layers, approach=3)
    torch.testing.assert_close(condition, layers[0])
    torch.testing.assert_close(target, layers[1])


@pytest.mark.parametrize("approach", [1, 2])
def test_backgrounds_agree_outside_both_masks(layers, approach: int) -> None:
    condition, target = composite_background(*layers, approach=approach)
    outside = (dilate(layers[2]) + dilate(layers[3]) == 0).expand_as(condition)
    torch.testing.assert_close(condition[outside], target[outside])


def test_both_regions_leave_no_ghost(layers) -> None:
    condition, _ = composite_background(*layers, approach=1, region="both")
    object_anywhere = (dilate(layers[2]) + dilate(layers[3]) > 0).expand_as(condition)
    assert (condition[object_anywhere] == 1).all() and (condition[~object_anywhere] == 2).all()
    _, target = composite_background(*layers, approach=2, region="both")
    assert (target[object_anywhere] == 2).all() and (target[~object_anywhere] == 1).all()


def test_unknown_approach(layers) -> None:
    with pytest.raises((TypeError, ValueError)):
        composite_background(*layers, approach=4)
    with pytest.raises((TypeError, ValueError)):
        composite_background(*layers, region="none")
