"""Numbers that are there already: the papers' own tables, and this study's comparisons of whole benchmarks.

A comparison of a whole benchmark takes hours. `dragstudy evaluate --out data/benchmarks/results/NAME` makes
one or goes on with it; its rows, distances of sets and manifest are kept with the code, its pictures are not.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dragstudy._kept import agreement
from dragstudy.data.samples import MANIFESTS

PAPERS, RESULTS = MANIFESTS / "papers", MANIFESTS / "results"


@dataclass(frozen=True, eq=False)
class Published:
    """A comparison that was kept.

    Attributes:
        name: Name of its folder.
        rows: What `comparison.compare` gave.
        sets: What `comparison_tables.set_distances` gave; without rows if nothing was kept of it.
        manifest: Which benchmark, rows, weights, versions and commit made it.
        folder: Where it lies.
    """

    name: str
    rows: pd.DataFrame
    sets: pd.DataFrame
    manifest: dict[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        """What it is, in a line."""
        count = self.rows["key"].nunique()
        commit = (self.manifest.get("commit") or "unknown")[:7]
        dirty = " with changes" if self.manifest.get("dirty") else ""
        return f"{self.name}: {count} samples, {self.rows['method'].nunique()} rows, commit {commit}{dirty}"

    def agreement(self, frame: pd.DataFrame) -> str:
        """Say how many rows of a comparison were kept, and how near their numbers are."""
        agreed = agreement(frame, self.rows, ["method", "key", "seed"])
        return f"Of the {len(frame)} rows computed here {agreed.found} were kept, {agreed}."


def published_comparison(name: str, folder: Path = RESULTS) -> Published | None:
    """The comparison of this name; None where none was made yet."""
    path = folder / name
    if not (path / "rows.parquet").is_file():
        return None
    sets = path / "sets.csv"
    return Published(
        name=name,
        rows=pd.read_parquet(path / "rows.parquet"),
        sets=pd.read_csv(sets) if sets.is_file() else pd.DataFrame(columns=["images", "reference", "n"]),
        manifest=json.loads((path / "manifest.json").read_text(encoding="utf-8")),
        folder=path,
    )


def paper_table(name: str) -> pd.DataFrame:
    """A table as a paper prints it, and no number of ours: a file of `data/benchmarks/papers`.

    Raises:
        ValueError: If there is none of this name.

    Example:
        >>> table = paper_table("instantdrag-table-1")
        >>> table.set_index("method").loc["InstantDrag", "lpips_edit"].item()
        0.224
    """
    path = PAPERS / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PAPERS.glob("*.csv")))
        raise ValueError(f"a paper's table must be one of {known}, got {name!r}")
    return pd.read_csv(path)
