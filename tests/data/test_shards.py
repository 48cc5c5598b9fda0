"""An interrupted and resumed run leaves exactly the bytes of an uninterrupted one."""

import os
from pathlib import Path

import pandas as pd
import pytest

from dragstudy.data.pairs import ShardWriter, pair_row
from dragstudy.data.shards import COLUMNS, JOURNAL, read_manifest

COUNT = 11


def run(folder: Path, make_pair, *, stop_after: int = COUNT) -> ShardWriter:
    """Consider pairs 0 to 10 in shards of three, every fourth rejected; stop without closing after some."""
    writer = ShardWriter(folder, pairs_per_shard=3)
    new = 0
    for k in range(COUNT):
        pair = make_pair(k)
        if pair.key in writer:
            continue
        if new == stop_after:
            writer.abandon()
            return writer
        new += 1
        if k % 4 == 1:
            writer.reject(pair_row(pair), "little_motion")
        else:
            writer.write(pair, mean_motion=k / 2)
    writer.close()
    return writer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".parquet"}


@pytest.fixture
def whole(tmp_path: Path, make_pair) -> Path:
    run(tmp_path / "whole", make_pair)
    return tmp_path / "whole"


def assert_same(folder: Path, whole: Path) -> None:
    assert contents(folder) == contents(whole)
    pd.testing.assert_frame_equal(read_manifest(folder), read_manifest(whole))


@pytest.mark.parametrize("stop_after", range(COUNT))
def test_resumed_equals_uninterrupted(tmp_path: Path, make_pair, whole: Path, stop_after: int) -> None:
    run(tmp_path / "cut", make_pair, stop_after=stop_after)
    with pytest.raises(FileNotFoundError, match="not finished"):
        read_manifest(tmp_path / "cut")
    run(tmp_path / "cut", make_pair)
    assert_same(tmp_path / "cut", whole)


def test_interrupted_many_times(tmp_path: Path, make_pair, whole: Path) -> None:
    for _ in range(COUNT):
        run(tmp_path / "cut", make_pair, stop_after=1)
    run(tmp_path / "cut", make_pair)
    assert_same(tmp_path / "cut", whole)


def test_torn_in_the_middle_of_a_pair(tmp_path: Path, make_pair, whole: Path) -> None:
    """Bytes of a pair whose journal line was never written, and half a journal line."""
    run(tmp_path / "cut", make_pair, stop_after=6)
    (part,) = (tmp_path / "cut").glob("*.part")
    with part.open("ab") as file:
        file.write(b"half a pair")
    with (tmp_path / "cut" / JOURNAL).open("a") as file:
        file.write('{"key": "clip-0000')
    run(tmp_path / "cut", make_pair)
    assert_same(tmp_path / "cut", whole)


def test_journal_ahead_of_the_shard(tmp_path: Path, make_pair, whole: Path) -> None:
    """A power cut may lose the last bytes of a shard, though the journal has the pair."""
    run(tmp_path / "cut", make_pair, stop_after=7)
    (part,) = (tmp_path / "cut").glob("*.part")
    os.truncate(part, part.stat().st_size - 700)
    run(tmp_path / "cut", make_pair)
    assert_same(tmp_path / "cut", whole)


def test_killed_between_manifest_and_journal(tmp_path: Path, make_pair, whole: Path) -> None:
    run(tmp_path / "cut", make_pair, stop_after=COUNT - 1)
    journal = (tmp_path / "cut" / JOURNAL).read_bytes()
    run(tmp_path / "cut", make_pair)
    (tmp_path / "cut" / JOURNAL).write_bytes(journal)
    run(tmp_path / "cut", make_pair)
    assert_same(tmp_path / "cut", whole)


def test_a_finished_folder_grows(tmp_path: Path, make_pair, whole: Path) -> None:
    before = contents(whole)
    with ShardWriter(whole, pairs_per_shard=3) as writer:
        writer.write(make_pair(50))
    after, manifest = contents(whole), read_manifest(whole)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    assert manifest["key"].is_unique and len(manifest) == COUNT + 1


def test_an_error_inside_keeps_what_was_written(tmp_path: Path, make_pair) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path) as writer:
        writer.write(make_pair(0))
        raise KeyboardInterrupt
    with ShardWriter(tmp_path) as writer:
        assert make_pair(0).key in writer


def test_manifest_columns(whole: Path) -> None:
    manifest = read_manifest(whole)
    assert list(manifest.columns) == list(COLUMNS)
    assert (manifest["reason"] == "little_motion").sum() == 3
    assert (manifest.loc[manifest["reason"] != "", "shard"] == "").all()


def test_refused_rows(tmp_path: Path, make_pair) -> None:
    row = pair_row(make_pair(0))
    with ShardWriter(tmp_path) as writer:
        writer.reject(row, "no_face")
        with pytest.raises(ValueError, match="in the manifest already"):
            writer.reject(row, "no_face")
        with pytest.raises(ValueError, match="unknown manifest columns"):
            writer.reject({"key": "a", "colour": 1}, "no_face")
        with pytest.raises(ValueError, match="without a reason"):
            writer.reject({"key": "a"}, "")
    with pytest.raises(ValueError, match="at least 1"):
        ShardWriter(tmp_path, pairs_per_shard=0)
