"""Parts of data sets and pairs of another size: nested, decided by the seed, flows in their own pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dragstudy.training.subsets import Resized, drawn, drawn_indices, resize_pair

from ..tiny import pair_batch


def one(size: int = 64) -> dict:
    return {name: value[0] for name, value in pair_batch(1, size).items()} | {"key": "pair"}


@given(size=st.integers(1, 60), few=st.integers(1, 30), more=st.integers(0, 30), seed=st.integers(0, 9))
def test_a_smaller_part_lies_within_a_larger_one(size, few, more, seed):
    small, large = (drawn_indices(size, count, seed) for count in (few, few + more))
    assert large[: len(small)] == small and len(small) == min(size, few)
    assert sorted(drawn_indices(size, 0, seed)) == list(range(size))


def test_parts_follow_the_seed_and_all_is_all():
    numbers = list(range(50))
    parts = [tuple(drawn(numbers, 8, seed)) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2] and len(set(parts[0])) == 8
    assert drawn(numbers, 0, 3) is numbers


@pytest.mark.parametrize("size", [16, 32, 128])
def test_resized_pairs_move_as_far_in_their_own_pixels(size):
    item = one()
    item["flow"] = torch.tensor([8.0, -4.0]).view(2, 1, 1).expand(2, 64, 64)
    resized = resize_pair(item, size)
    share = size / 64
    assert_close(resized["flow"], torch.tensor([8.0, -4.0]).view(2, 1, 1).expand(2, size, size) * share)
    way = item["target_landmarks"] - item["landmarks"]
    assert_close(resized["target_landmarks"] - resized["landmarks"], way * share)
    # a landmark in the middle of the picture stays there, pixel centres being integers
    middle = one() | {"landmarks": torch.full((68, 2), 31.5)}
    assert_close(resize_pair(middle, size)["landmarks"], torch.full((68, 2), size / 2 - 0.5))


def test_resized_pairs_have_the_same_members_and_masks_of_0_and_1():
    item = one()
    resized = Resized([item], 32)[0]
    assert set(resized) == set(item) and resized["key"] == "pair"
    for name in ("mask", "target_mask", "valid"):
        assert resized[name].shape == (1, 32, 32) and set(resized[name].unique().tolist()) <= {0.0, 1.0}
    assert abs(resized["mask"].mean() - item["mask"].mean()) < 0.03
    assert_close(resized["source"].mean(dim=(1, 2)), item["source"].mean(dim=(1, 2)))
    same = resize_pair(item, 64)
    for name in ("source", "flow", "mask", "landmarks"):
        assert_close(same[name], item[name])
    with pytest.raises(ValueError, match="size must be at least 1 px, got 0"):
        Resized([item], 0)
