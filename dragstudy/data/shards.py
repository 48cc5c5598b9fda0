"""Writing frame pairs: WebDataset tars, a manifest of everything considered, and no loss on interruption.

A run writes `pairs-000000.tar.part` and, after each pair, one line of `journal.jsonl` that says where the
pair's bytes lie. Interrupted and opened again, the writer cuts a half-written pair off the tar and goes
on; a full shard is closed and loses its `.part`. `close()` turns the journal into `manifest.parquet`.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

MANIFEST = "manifest.parquet"
JOURNAL = "journal.jsonl"

COLUMNS: dict[str, str] = {
    "key": "str",  # `<clip>-<source_index>-<target_index>`, unique in a folder
    "clip": "str",
    "identity": "str",
    "split": "str",
    "source_index": "int64",  # frame numbers in the resampled clip
    "target_index": "int64",
    "fps": "float64",
    "estimator": "str",
    "reason": "str",  # "" = kept, otherwise a key of dragstudy.data.curate.REASONS
    "mean_difference": "float64",  # mean absolute difference of the two frames, grey levels 0-255
    "mean_motion": "float64",  # mean length of the flow inside the mask, px
    "max_motion": "float64",  # 99th percentile of the same
    "border_motion": "float64",  # how far the image border moves, px: see dragstudy.data.frames
    "valid_share": "float64",  # part of the mask whose flow passes the forward-backward check
    "mask_share": "float64",  # part of the image inside the source mask
    "height": "int64",
    "width": "int64",
    "shard": "str",  # "" = not kept
    "offset": "int64",  # first byte of the pair's members in the shard
    "length": "int64",  # bytes of all its members, headers included
}
DEFAULTS: dict[str, Any] = {"str": "", "int64": -1, "float64": float("nan")}


def tar_members(members: Mapping[str, bytes], key: str) -> bytes:
    """The bytes of one pair in a tar: each member `<key>.<suffix>` with its header, no end marker.

    Times and owners are zero, so that the same pair gives the same bytes.
    """
    blocks = io.BytesIO()
    for suffix, content in members.items():
        header = tarfile.TarInfo(f"{key}.{suffix}")
        header.size = len(content)
        blocks.write(header.tobuf(format=tarfile.USTAR_FORMAT))
        blocks.write(content)
        blocks.write(bytes(-len(content) % tarfile.BLOCKSIZE))
    return blocks.getvalue()


def read_manifest(folder: Path | str) -> pd.DataFrame:
    """One row a considered pair, with the columns of `COLUMNS`.

    Raises:
        FileNotFoundError: If the folder has no manifest, or holds a run that was interrupted.
    """
    folder = Path(folder)
    if (folder / JOURNAL).exists():
        raise FileNotFoundError(
            f"the pairs in {folder} are not finished: run the same command again to go on"
        )
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"no {MANIFEST} in {folder}: make it with `dragstudy curate CLIP... --out {folder}`"
        )
    return pd.read_parquet(folder / MANIFEST)


def as_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table with exactly `COLUMNS` and their types, missing values filled with `DEFAULTS`."""
    rows = list(rows)
    columns = {
        name: pd.Series([row.get(name, DEFAULTS[kind]) for row in rows], dtype=kind)
        for name, kind in COLUMNS.items()
    }
    return pd.DataFrame(columns)


class ShardWriter:
    """Adds pairs to a folder of shards; may be interrupted at any moment and opened again.

    Args:
        out: Folder, made if absent. An earlier unfinished or finished run in it is continued.
        pairs_per_shard: Pairs in one tar.
    """

    def __init__(self, out: Path | str, pairs_per_shard: int = 1000) -> None:
        if pairs_per_shard < 1:
            raise ValueError(f"pairs_per_shard must be at least 1, got {pairs_per_shard}")
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.pairs_per_shard = pairs_per_shard
        self.rows: dict[str, dict[str, Any]] = {}
        if (self.out / MANIFEST).exists():
            stored = pd.read_parquet(self.out / MANIFEST).to_dict("records")
            self.rows = {row["key"]: row for row in stored}
        self._number = 1 + max((_shard_number(row["shard"]) for row in self.rows.values()), default=-1)
        self._tar: io.BufferedIOBase | None = None
        self._in_shard = 0
        self._recover()
        self._journal = (self.out / JOURNAL).open("a", encoding="utf-8")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # leave everything as an interruption would
            self.abandon()

    def __contains__(self, key: str) -> bool:
        """Whether this pair was considered already, kept or not."""
        return key in self.rows

    def add(self, members: Mapping[str, bytes], row: Mapping[str, Any]) -> None:
        """Keep a pair: its members (suffix to bytes) go into the shard, `row` into the manifest."""
        self._check(row)
        if self._tar is None:
            self._tar = self._part.open("ab")
        record = tar_members(members, row["key"])
        offset = self._tar.tell()
        self._tar.write(record)
        self._tar.flush()
        self._note({**row, "reason": "", "shard": self._name, "offset": offset, "length": len(record)})
        self._in_shard += 1
        if self._in_shard == self.pairs_per_shard:
            self._seal()

    def reject(self, row: Mapping[str, Any], reason: str) -> None:
        """Record a pair that is not kept, and why."""
        self._check(row)
        if not reason:
            raise ValueError(f"pair {row['key']} is rejected without a reason")
        self._note({**row, "reason": reason})

    def close(self) -> pd.DataFrame:
        """Seal the last shard, write the manifest and return it."""
        if self._tar is not None:
            self._seal()
        manifest = as_frame(self.rows.values())
        partial = self.out / f"{MANIFEST}.part"
        manifest.to_parquet(partial, index=False)
        os.replace(partial, self.out / MANIFEST)
        self._journal.close()
        (self.out / JOURNAL).unlink()
        return manifest

    def abandon(self) -> None:
        """Let go of the files without finishing; what was added so far stays and is found again."""
        if self._tar is not None:
            self._tar.close()
        self._journal.close()

    @property
    def _name(self) -> str:
        return f"pairs-{self._number:06d}.tar"

    @property
    def _part(self) -> Path:
        return self.out / f"{self._name}.part"

    def _check(self, row: Mapping[str, Any]) -> None:
        if unknown := set(row) - set(COLUMNS):
            raise ValueError(f"unknown manifest columns {sorted(unknown)}, known are {list(COLUMNS)}")
        if row["key"] in self.rows:
            raise ValueError(f"pair {row['key']} is in the manifest already")

    def _note(self, row: dict[str, Any]) -> None:
        self.rows[row["key"]] = row
        self._journal.write(json.dumps(row) + "\n")
        self._journal.flush()

    def _seal(self) -> None:
        """Close the open shard with the two empty blocks that end a tar, and give it its final name."""
        self._tar.write(bytes(2 * tarfile.BLOCKSIZE))
        self._tar.close()
        os.replace(self._part, self.out / self._name)
        self._tar, self._in_shard, self._number = None, 0, self._number + 1

    def _recover(self) -> None:
        """Take up the journal of an interrupted run: keep what lies whole on disk, cut off the rest."""
        rows = [row for row in _read_lines(self.out / JOURNAL) if row["key"] not in self.rows]
        kept = []
        for row in rows:
            path = self.out / row.get("shard", "")
            held = max(
                (p.stat().st_size for p in (path, path.with_name(path.name + ".part")) if p.is_file()),
                default=0,
            )
            if row["reason"] or row["offset"] + row["length"] <= held:
                kept.append(row)
        self.rows |= {row["key"]: row for row in kept}
        shards = [row["shard"] for row in kept if not row["reason"]]
        self._number = max([self._number, *(_shard_number(name) for name in shards)])
        self._in_shard = shards.count(self._name)
        with (self.out / f"{JOURNAL}.part").open("w", encoding="utf-8") as journal:
            journal.writelines(json.dumps(row) + "\n" for row in kept)
        os.replace(self.out / f"{JOURNAL}.part", self.out / JOURNAL)
        if (self.out / self._name).exists():  # sealed, but the journal still names it
            self._in_shard, self._number = 0, self._number + 1
        end = max(
            (row["offset"] + row["length"] for row in kept if row.get("shard") == self._name), default=0
        )
        if self._part.exists():
            os.truncate(self._part, end)
            self._tar = self._part.open("ab")
            if self._in_shard == self.pairs_per_shard:
                self._seal()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; an interrupted last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _shard_number(name: str) -> int:
    """7 for `pairs-000007.tar`, -1 for the empty name of a rejected pair."""
    return int(name.removeprefix("pairs-").removesuffix(".tar")) if name else -1
