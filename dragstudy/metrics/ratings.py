"""Ratings by people, as in the papers' user studies: what is asked, the file of answers, what they come to.

InstantDrag (Sec. 4.3) has each edit rated from 1 (very poor) to 5 (very good) for following the instruction,
for identity and overall. Whoever rates is not told which method made an edit, and sees the edits in an order
of their own.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd
import torch
from PIL import Image

from dragstudy._provenance import now
from dragstudy.drags import DragInstruction
from dragstudy.metrics.comparison_folder import edited_file
from dragstudy.metrics.intervals import summarize
from dragstudy.metrics.mean_distance import generator_for

if TYPE_CHECKING:
    from dragstudy.data.samples import Benchmark

CRITERIA: Mapping[str, str] = MappingProxyType(
    {
        "instruction": "Is what lay where the lines start now where their dots are?",
        "identity": "Is it still the same person or thing, apart from what was dragged?",
        "overall": "All in all, would you use this edit?",
    }
)
MARKS = (1, 2, 3, 4, 5)
COLUMNS = ("rater", "key", "method", *CRITERIA, "at")


@dataclass(frozen=True, eq=False)
class RatedEdit:
    """One edit to be rated.

    Attributes:
        key: Id of the sample.
        method: Who made it; whoever rates does not learn it.
        photograph: What was edited.
        drags: What was asked.
        edit: The picture, or its file.
    """

    key: str
    method: str
    photograph: Image.Image
    drags: DragInstruction
    edit: Image.Image | Path


def edits_to_rate(
    benchmark: "Benchmark", folder: Path | str, methods: Sequence[str], *, seed: int = 0
) -> list[RatedEdit]:
    """The pictures of a comparison: every sample by every method; edits that raised are left out.

    Args:
        benchmark: Whose samples.
        folder: What `comparison.compare` filled.
        methods: Names of its rows.
        seed: Which of a sample's edits.
    """
    found = []
    for key in benchmark.ids:
        sample = benchmark.sample(key)
        for method in methods:
            path = edited_file(folder, method, key, seed)
            if path.is_file():
                found.append(RatedEdit(key, method, sample.image, sample.drags, path))
    return found


def order_for(edits: Sequence[RatedEdit], rater: str, *, seed: int = 0) -> list[RatedEdit]:
    """The edits in the order in which somebody sees them: at random, and the same each time for a name."""
    chance = generator_for(f"rater/{rater}", seed)
    return [edits[place] for place in torch.randperm(len(edits), generator=chance).tolist()]


class RatingFile:
    """A CSV file to which each rating is added as soon as it is made; of the same edit the last one counts.

    Args:
        path: The file; it and its folder appear with the first rating. Several people may use it, one after
            the other.

    Raises:
        ValueError: If the file is something else.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.read()

    def add(self, rater: str, edit: RatedEdit, marks: Mapping[str, int]) -> None:
        """Add one rating, on the disk when this returns.

        Raises:
            ValueError: If there is not one of `MARKS` for each of `CRITERIA`.
        """
        check_marks(marks)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._whole_lines()
        with self.path.open("r+" if self.path.exists() else "w", encoding="utf-8", newline="") as file:
            file.truncate(kept)  # a line that a crash left unfinished
            file.seek(kept)
            writer = csv.writer(file, lineterminator="\n")
            if not kept:
                writer.writerow(COLUMNS)
            writer.writerow([rater, edit.key, edit.method, *(marks[name] for name in CRITERIA), now()])
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> pd.DataFrame:
        """All ratings that count, one row an edit and rater, in the order in which they were first made."""
        content = self.path.read_bytes()[: self._whole_lines()] if self.path.is_file() else b""
        lines = list(csv.reader(content.decode("utf-8").splitlines()))
        if lines and (tuple(lines[0]) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines)):
            raise ValueError(f"{self.path} is no file of ratings: its columns must be {', '.join(COLUMNS)}")
        last = {tuple(line[:3]): line for line in lines[1:]}
        return pd.DataFrame(list(last.values()), columns=list(COLUMNS)).astype(dict.fromkeys(CRITERIA, int))

    def marks(self, rater: str) -> dict[tuple[str, str], dict[str, int]]:
        """What somebody has rated so far, by sample and method."""
        mine = self.read().query("rater == @rater").set_index(["key", "method"])[list(CRITERIA)]
        return {name: {str(k): int(v) for k, v in row.items()} for name, row in mine.iterrows()}

    def _whole_lines(self) -> int:
        """Bytes up to the end of the last line that was finished."""
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.is_file() else 0


def check_marks(marks: Mapping[str, int]) -> None:
    """Refuse what is not one of `MARKS` for each of `CRITERIA`.

    Raises:
        ValueError: If it is not.
    """
    whole = all(type(mark) is int and mark in MARKS for mark in marks.values())
    if not whole or set(marks) != set(CRITERIA):
        wanted = ", ".join(CRITERIA)
        raise ValueError(f"a rating has a whole number from 1 to 5 for each of {wanted}, got {dict(marks)}")


def rating_table(frame: pd.DataFrame, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean of each criterion by method with its bootstrap interval over samples.

    Several people who rate the same edit are no further sample: their marks are averaged first. So the
    interval says how the means would differ with other photographs, not with other people.

    Args:
        frame: What `RatingFile.read` gave, or several of them concatenated.
        confidence: Of the intervals.
        seed: Of the resamples.

    Returns:
        A frame of one row a method and criterion: `method`, `metric`, `n` samples, `mean`, `low`, `high`, and
        `raters`, how many people rated that method.
    """
    table = summarize(frame, metrics=tuple(CRITERIA), confidence=confidence, seed=seed)
    return table.assign(raters=table["method"].map(frame.groupby("method")["rater"].nunique()))
