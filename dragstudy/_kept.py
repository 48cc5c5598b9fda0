"""Kept rows: what the full profile measured, shown where a smaller one would have few rows of its own.

`results/rows/<notebook>/<id>.parquet` holds them, with the manifest of the run that made them beside it. A
notebook that measures a first part only says how that part agrees with what is kept.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PLACES = {"profile", "out_dir", "kept"}  # parameters that decide no number
CLOSE = 1e-6  # relative difference up to which numbers count as the same: another machine rounds otherwise


def kept_rows(folder: Path, id: str) -> tuple["pd.DataFrame", dict] | None:
    """The rows that are kept under an id and the manifest of their run, or None."""
    import pandas as pd

    if not (folder / f"{id}.parquet").is_file():
        return None
    record = json.loads((folder / f"{id}.json").read_text())
    return pd.read_parquet(folder / f"{id}.parquet"), record["run"]


def agreement(here: "pd.DataFrame", kept: "pd.DataFrame", by: Sequence[str]) -> tuple[int, int]:
    """How many rows of a table another one has, and how many of those with the same numbers.

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
    both = here.merge(kept, on=list(by), suffixes=("", " kept"))
    numbers = [
        name
        for name in here.select_dtypes("number").columns
        if name not in by and f"{name} kept" in both and not name.startswith(("seconds", "memory"))
    ]
    same = np.ones(len(both), bool)
    for name in numbers:
        same &= np.isclose(both[name], both[f"{name} kept"], rtol=CLOSE, atol=CLOSE, equal_nan=True)
    return len(both), int(same.sum())


def describe_kept(
    id: str, counts: tuple[int, int, int, int], params: Mapping[str, object], run: Mapping
) -> str:
    """Say which rows are shown.

    Args:
        id: Of the rows.
        counts: Rows that are kept, rows measured here, those of them that are kept, those with the same
            numbers.
        params: Parameters of this run.
        run: Manifest of the run that made the kept rows.
    """
    kept, here, found, same = counts
    commit = (run["commit"] or "unknown")[:7]
    text = f"{id}: shown are {kept} rows of the profile {run['profile']}, commit {commit}"
    others = {
        name: value
        for name, value in run["params"].items()
        if name not in PLACES and name in params and params[name] != value
    }
    if others:
        text += ", with " + ", ".join(f"{name}={value}" for name, value in others.items())
    return f"{text}. Of the {here} measured here they have {found}, {same} with the same numbers."
