"""Kept rows: what the full profile measured, shown where a smaller one would have few rows of its own.

`results/rows/<notebook>/<id>.parquet` holds them, with the manifest of the run that made them beside it. A
notebook that measures a first part only says how that part agrees with what is kept; one that was told to
`extend` adds its rows to them, such as those of a further training seed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PLACES = {"profile", "out_dir", "kept", "extend"}  # parameters that decide no number
CLOSE = 1e-6  # relative difference up to which numbers count as the same: another machine rounds otherwise


@dataclass(frozen=True)
class Agreement:
    """How a table agrees with a larger one.

    Attributes:
        found: Rows that the larger one has too.
        same: Those of them with the same numbers.
        apart: Of the numbers that differ, the median relative difference; NaN if none does.
    """

    found: int
    same: int
    apart: float

    def __str__(self) -> str:
        text = f"{self.same} with the same numbers"
        if self.same == self.found:
            return text
        return f"{text}; numbers that differ do so by {100 * self.apart:.2g} % (median)"


def shows_kept(params: Mapping[str, object]) -> bool:
    """Whether a run of these parameters goes on with kept rows."""
    return params.get("kept") is True or params.get("extend") is True


def kept_rows(folder: Path, id: str) -> tuple["pd.DataFrame", dict] | None:
    """The rows that are kept under an id and the manifest of their run, or None."""
    import pandas as pd

    if not (folder / f"{id}.parquet").is_file():
        return None
    record = json.loads((folder / f"{id}.json").read_text())
    return pd.read_parquet(folder / f"{id}.parquet"), record["run"]


def extended(whole: "pd.DataFrame", here: "pd.DataFrame", by: Sequence[str]) -> "pd.DataFrame":
    """The rows of both tables, in the order of the first; of those that both have, the second's numbers.

    Raises:
        ValueError: If they have not the same columns.
    """
    import pandas as pd

    if set(whole.columns) != set(here.columns):
        raise ValueError(f"kept rows have the columns {', '.join(whole)}, not {', '.join(here)}")
    if here.empty:  # whose columns may have other types
        return whole
    both = pd.concat([whole, here[whole.columns]], ignore_index=True)
    first = both.drop_duplicates(list(by))[list(by)]
    return first.merge(both.drop_duplicates(list(by), keep="last"), on=list(by))[whole.columns]


def agreement(here: "pd.DataFrame", kept: "pd.DataFrame", by: Sequence[str]) -> Agreement:
    """How many rows of a table another one has, and how near their numbers are.

    Args:
        here: The smaller table.
        kept: The larger one.
        by: Columns that name a row. All other columns of numbers are compared, except those of seconds and
            memory, which no two runs share.

    Raises:
        ValueError: If `by` does not tell rows apart.
    """
    for frame in (here, kept):
        if frame.duplicated(list(by)).any():
            raise ValueError(f"the columns {', '.join(by)} do not tell rows apart")
    if here.empty:  # whose columns may have other types
        return Agreement(0, 0, float("nan"))
    both = here.merge(kept, on=list(by), suffixes=("", " kept"))
    numbers = [
        name
        for name in here.select_dtypes("number").columns
        if name not in by and f"{name} kept" in both and not name.startswith(("seconds", "memory"))
    ]
    same, apart = np.ones(len(both), bool), []
    for name in numbers:
        one, other = (both[column].to_numpy(np.float64) for column in (name, f"{name} kept"))
        close = np.isclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True)
        with np.errstate(invalid="ignore"):
            far = np.abs(one - other)[~close] / np.fmax(np.abs(one), np.abs(other))[~close]
        apart.append(np.where(np.isfinite(far), far, 1.0))  # 1: there is no number, or none that is finite
        same &= close
    apart = np.concatenate(apart) if apart else np.empty(0)
    return Agreement(len(both), int(same.sum()), float(np.median(apart)) if apart.size else float("nan"))


def describe_kept(
    id: str, counts: tuple[int, int], agreed: Agreement, params: Mapping[str, object], run: Mapping
) -> str:
    """Say which rows are shown.

    Args:
        id: Of the rows.
        counts: Rows that are kept, and rows measured here.
        agreed: How these agree with those.
        params: Parameters of this run.
        run: Manifest of the run that made the kept rows.
    """
    kept, here = counts
    commit = (run["commit"] or "unknown")[:7]
    text = f"{id}: shown are {kept} rows of the profile {run['profile']}, commit {commit}"
    if run["params"].get("extend") is True:
        text += " and earlier"
    others = {
        name: value
        for name, value in run["params"].items()
        if name not in PLACES and name in params and params[name] != value
    }
    if others:
        text += ", with " + ", ".join(f"{name}={value}" for name, value in others.items())
    return f"{text}. Of the {here} measured here they have {agreed.found}, {agreed}."
