"""The folder of a comparison: a file for each part of it, which is there as a whole or not at all."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from filelock import FileLock, Timeout

from dragstudy.metrics.rows import Row

PHOTOGRAPH, TARGET = "photograph", "target"  # sets of features beside the rows'


@dataclass(frozen=True, eq=False)
class Task:
    """One row of the table: this sample, edited so, from this seed."""

    row: Row
    key: str
    seed: int

    def file(self, folder: Path, kind: str, suffix: str) -> Path:
        """Where its part of some kind lies."""
        return part_file(folder, kind, self.row.name, f"{self.key}-{self.seed}", suffix)


def edited_file(folder: Path | str, method: str, key: str, seed: int = 0) -> Path:
    """Where the picture of an edit lies; there is none if the edit raised."""
    return part_file(Path(folder), "edits", method, f"{key}-{seed}", "png")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within it no other process writes to the folder.

    Raises:
        ValueError: If one does already.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is writing to {folder}") from None
    try:
        yield
    finally:
        lock.release()


def load_features(folder: Path, name: str, pictures: Sequence[str]) -> torch.Tensor:
    """Inception features `(n, d)` of the pictures of a set that have some."""
    files = [part_file(folder, "features", name, picture, "npy") for picture in pictures]
    return torch.from_numpy(np.array([np.load(file) for file in files if file.is_file()]))


def part_file(folder: Path, kind: str, row: str, name: str, suffix: str) -> Path:
    """Where a part lies: of a kind (`edits`, `measures`, `features`), a row or set, and a picture."""
    return folder / kind / file_name(row) / f"{file_name(name)}.{suffix}"


def file_name(text: str) -> str:
    """A name as one part of a path."""
    return quote(text.replace(" ", "-"), safe="")


def write_features(path: Path, features: np.ndarray) -> None:
    """Write an array as `numpy.save` does, so that it is there as a whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, features)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(content)
    partial.replace(path)
