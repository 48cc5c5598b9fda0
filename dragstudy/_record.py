"""The record of one run: the figures, tables and numbers that a notebook hands in, and what made them."""

import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dragstudy._claims import claims_table
from dragstudy._kept import agreement, describe_kept, extended, kept_rows, shows_kept
from dragstudy._provenance import ROOT, describe, now, sha256, tree_sha256, write_json
from dragstudy._results import markdown_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURE_BYTES = 150_000  # a figure that is larger as PNG is stored as JPEG
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


@dataclass
class Run:
    """What one execution of a notebook found; in memory only, unless it has a folder.

    Attributes:
        manifest: What made the results: parameters, versions, device, commit, times, status.
        folder: Where it is written, or None.
        figures: The figures so far, by id.
        tables: The tables so far, by id.
        claimed: The judged claims so far, by id.
        metrics: The numbers so far, by name.
        kept: Folder of the rows that an earlier, larger run measured, or None.
        extend: Whether this run's rows are added to those.
    """

    manifest: dict[str, object]
    folder: Path | None = None
    figures: dict[str, "Figure"] = field(default_factory=dict)
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    claimed: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    kept: Path | None = None
    extend: bool = False

    def figure(self, id: str, fig: "Figure", message: str) -> None:
        """Record a figure.

        Args:
            id: Name of the file, of lower-case letters, digits and hyphens; unique among the notebooks.
            fig: The figure.
            message: One sentence that says what it shows.

        Raises:
            ValueError: If the id is malformed or the message empty.
        """
        _check_id(id)
        if not message.strip():
            raise ValueError(f"figure {id!r} needs a message: one sentence that says what it shows")
        self.figures[id] = fig
        if self.folder:
            suffix, content = encode(fig)
            self._write("figure", id, message, {suffix: content}, list(self.figures).index(id))

    def table(self, id: str, frame: "pd.DataFrame", message: str = "") -> None:
        """Record a table, as CSV and as Markdown.

        Args:
            id: Name of the files, of lower-case letters, digits and hyphens; unique among the notebooks.
            frame: The table; an index without a name is left out.
            message: One sentence that says what it shows.

        Raises:
            ValueError: If the id is malformed.
        """
        _check_id(id)
        self.tables[id] = frame
        if self.folder:
            csv = frame.to_csv(index=frame.index.names != [None], lineterminator="\n")
            files = {".csv": csv.encode(), ".md": markdown_table(frame).encode()}
            self._write("table", id, message, files, list(self.tables).index(id))

    def rows(self, id: str, frame: "pd.DataFrame", by: Sequence[str]) -> "pd.DataFrame":
        """Record the rows behind tables and figures, and go on with the kept ones where there are some.

        What `full` measures in hours is kept in `results/rows/`; a smaller profile measures a first part of
        it, says here how the two agree, and shows the whole. A run that extends what is kept, by a seed or a
        variant, records and shows both.

        Args:
            id: Name of the file, of lower-case letters, digits and hyphens.
            frame: The rows that were measured here, with plain columns.
            by: Columns that name a row.

        Returns:
            The kept rows of this id, with those of this run if it extends them; where nothing is kept or
            asked for, the frame itself.

        Raises:
            ValueError: If the id is malformed, or `by` does not tell rows apart, or a run that extends kept
                rows has other columns.
        """
        _check_id(id)
        frame = frame.reset_index(drop=True)
        found = kept_rows(self.kept, id) if self.kept else None
        if found is None:
            self._write_rows(id, frame, "")
            return frame
        kept, run = found
        agreed, counts = agreement(frame, kept, by), (len(kept), len(frame))
        text = describe_kept(id, counts, agreed, self.manifest["params"], run)
        if self.extend:
            kept = extended(kept, frame, by)
            text += f" Both are shown and kept, {len(kept)} in all."
            self._write_rows(id, kept, text)
        else:
            self._write_rows(id, frame, "")
        print(text)
        return kept

    def claims(
        self,
        id: str,
        judged: "pd.DataFrame | Mapping[str, pd.DataFrame]",
        paper: str | Sequence[str],
        *,
        seeds: int = 1,
    ) -> "pd.DataFrame":
        """Record judged claims for the page that collects those of all notebooks, `results/CLAIMS.md`.

        Args:
            id: Name of the files, of lower-case letters, digits and hyphens; unique among the notebooks.
            judged: What `dragstudy.metrics.claims.judge` gave; or several of them by name, such as methods.
            paper: The paper's evidence, for all claims or for each: `"InstantDrag, Fig. 7"`.
            seeds: Trainings, or samplings, of each method.

        Returns:
            The claims with the columns that the page has.

        Raises:
            ValueError: If the id is malformed, or the table not that of `judge`.
        """
        _check_id(id)
        frame = self.claimed[id] = claims_table(judged, paper, seeds)
        if self.folder:
            files = {".csv": frame.to_csv(index=False, lineterminator="\n").encode()}
            self._write("claim", id, "", files, list(self.claimed).index(id))
        return frame

    def metric(self, name: str, value: float) -> None:
        """Record one number; written at once, so that a run that fails later keeps it."""
        self.metrics[name] = float(value)
        if self.folder:
            write_json(self.folder / "metrics.json", self.metrics)

    def input(self, path: str | Path) -> None:
        """Record the digest of a file, or of all files of a folder, that the run reads."""
        path = Path(path)
        digest = tree_sha256(path) if path.is_dir() else sha256(path)
        self.manifest.setdefault("inputs", {})[path.name] = digest

    def finish(self) -> None:
        """Close the record: the last code cell of a notebook."""
        self.manifest |= {"status": "finished", "ended": now()}
        if self.folder:
            write_json(self.folder / "manifest.json", self.manifest)

    def _write_rows(self, id: str, frame: "pd.DataFrame", message: str) -> None:
        if self.folder:
            content = io.BytesIO()
            frame.to_parquet(content, index=False)
            self._write("row", id, message, {".parquet": content.getvalue()}, 0)

    def _write(self, kind: str, id: str, message: str, files: Mapping[str, bytes], order: int) -> None:
        """Write the files of a figure, table, rows or claims, by suffix, and their manifest beside them."""
        folder = self.folder / f"{kind}s"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{id}.*"):
            old.unlink()
        for suffix, content in files.items():
            (folder / f"{id}{suffix}").write_bytes(content)
        first = folder / f"{id}{next(iter(files))}"
        record = {"id": id, "kind": kind, "message": message, "file": first.name, "sha256": sha256(first)}
        write_json(folder / f"{id}.json", record | {"order": order, "run": self.manifest})

    def __repr__(self) -> str:
        run = self.manifest
        place = f"run {run['id']}" if "id" in run else str(self.folder or "kept in memory")
        packages = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        commit = (run["commit"] or "unknown")[:7] + (" with changes" if run["dirty"] else "")
        head = f"{run['notebook']}, profile {run['profile']}, {place}"
        return f"{head}\n{packages}\n{run['device']}, commit {commit}"


def start(notebook: str, params: Mapping[str, object]) -> Run:
    """Begin the record of a notebook; the last expression of its third code cell, so that it is shown.

    From here on the notebook shows figures as small JPEGs, so that its file stays small.

    Args:
        notebook: Name of the notebook, such as `"03_flowgen"`.
        params: Its parameters; `globals()` will do, everything but plain values is left out. `out_dir` says
            where to write; empty or absent keeps everything in memory. `kept` says whether `Run.rows` may
            show the rows of the full profile.
    """
    _show_figures_as_jpeg()
    extend = params.get("extend") is True
    kept = ROOT / "results" / "rows" / notebook if shows_kept(params) else None
    folder = Path(params["out_dir"]) if params.get("out_dir") else None
    if folder and (folder / "manifest.json").is_file():
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["status"] == "running":  # written by `runs.execute`, which knows more
            return Run(manifest, folder, kept=kept, extend=extend)
    plain = {
        name: value
        for name, value in params.items()
        if isinstance(value, _PLAIN) and not name.startswith("_") and name not in ("In", "Out", "out_dir")
    }
    return Run(describe(notebook, plain), folder, kept=kept, extend=extend)


def encode(fig: "Figure") -> tuple[str, bytes]:
    """A figure as PNG, or as JPEG where it holds photographs and would be larger than 150 kB.

    Returns:
        The suffix, such as `".png"`, and the file's content.
    """
    content = io.BytesIO()
    fig.savefig(content, format="png", metadata={"Software": None})
    if content.tell() <= FIGURE_BYTES:
        return ".png", content.getvalue()
    for quality in (92, 85, 75, 60, 45):
        content = io.BytesIO()
        fig.savefig(content, format="jpeg", pil_kwargs={"quality": quality, "optimize": True})
        if content.tell() <= FIGURE_BYTES:
            break
    return ".jpg", content.getvalue()


def _check_id(id: str) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ValueError(f"an id has lower-case letters, digits and hyphens only, got {id!r}")


def _show_figures_as_jpeg() -> None:
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("jpeg", dpi=80, pil_kwargs={"quality": 70, "optimize": True})
