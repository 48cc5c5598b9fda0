"""The comparison: methods on the samples of a benchmark, one row a sample, so that it can stop at any time.

A folder holds it. `edits/` has the picture of each edit and what is known of it, `measures/` its numbers,
`features/` what FID and KID need; each is a file of its own, which appears when it is complete. What is there
is not made again, and `rows.parquet` is what is there, in a fixed order. So neither the order of the jobs nor
the number of processes nor a kill shows in the table. Seconds and memory alone differ from run to run.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dragstudy._fingerprints import code_sha256, weights_sha256
from dragstudy._provenance import ROOT, device, git_state, now, versions, write_json
from dragstudy.metrics.comparison_folder import (
    PHOTOGRAPH,
    TARGET,
    Task,
    alone,
    file_name,
    part_file,
    write_bytes,
    write_features,
)
from dragstudy.metrics.comparison_tables import KNOWN
from dragstudy.metrics.editing import EditJob, edit, failed, sentence
from dragstudy.metrics.measures import Tools, all_tools
from dragstudy.metrics.measuring import FeatureJob, MeasureJob, measure_edit, picture_features
from dragstudy.metrics.rows import Row
from dragstudy.metrics.workers import Mapper, WorkerDied, in_this_process
from dragstudy.pipelines.weights import WEIGHTS
from dragstudy.progress import progress

if TYPE_CHECKING:
    from dragstudy.data.samples import Benchmark, Sample

_EDITING = ("dragstudy.metrics.editing",)
_MEASURING = ("dragstudy.metrics.measuring",)


@dataclass(frozen=True)
class Settings:
    """What decides the edits beside rows and samples.

    Attributes:
        weights: By method, as in `dragstudy.load`; `"tiny"` for those that are not named.
        device: Such as `"cuda"`; where the weights are loaded by default.
        options: Arguments of every row's call, in place of the row's own.
        threads: Threads of each process, on which the last bits depend.
    """

    weights: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1


def compare(
    rows: Sequence[Row],
    benchmark: "Benchmark",
    folder: Path | str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Settings | None = None,
    tools: Callable[[], Tools] = all_tools,
    mapper: Mapper = in_this_process,
    anew: bool = False,
) -> pd.DataFrame:
    """Edit every sample with every row and measure it; the same call goes on where one was stopped.

    Args:
        rows: What `find_rows` gave.
        benchmark: What `open_benchmark` gave.
        folder: Where the results are and go.
        seeds: Each edit is made once from each; those of rows that are not `random` from the first alone.
        settings: See `Settings`.
        tools: Makes what measures; a function of a module, so that other processes can call it.
        mapper: Where the jobs run, see `dragstudy.metrics.workers`.
        anew: Whether to drop edits that other code, weights or settings made, instead of refusing to go on.

    Returns:
        A frame of one row a sample, method and seed, also in `rows.parquet`: `method`, `key` (the sample),
        `seed`, `inputs` of the row, `masked` (whether the sample had a mask for it), `drags` (their number),
        `error` (of an edit that raised: its metrics are NaN), `seconds`, `memory` in MiB, `flow_error`, and
        what `measures.measure` gives.

    Raises:
        ValueError: If the folder holds another benchmark, or edits of rows that are made otherwise now, or
            another process is writing to it, or a row cannot be loaded.
        AssetMissing: If a network is missing.
    """
    folder, settings = Path(folder), settings or Settings()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        Task(row, key, seed)
        for row in rows
        for key in benchmark.ids
        for seed in (seeds if row.random else seeds[:1])
    ]
    read = lru_cache(maxsize=2)(benchmark.sample)
    with alone(folder):
        _begin(folder, rows, benchmark, settings, tools, anew)
        _make_edits(folder, tasks, read, settings, mapper)
        _make_measures(folder, tasks, read, settings, mapper, tools)
        _make_references(folder, tasks, read, settings, mapper, tools)
        frame = _merge(folder, tasks)
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_bytes(folder / "rows.parquet", buffer.getvalue())
    return frame


Reader = Callable[[str], "Sample"]


def _make_edits(folder: Path, tasks: list[Task], read: Reader, settings: Settings, mapper: Mapper) -> None:
    """Make the edits that are missing."""
    pending = [task for task in tasks if not task.file(folder, "edits", "json").is_file()]
    bar = progress(total=len(pending), description="edits")

    def keep(task: Task, picture: bytes | None, record: dict[str, Any]) -> None:
        if picture is not None:
            write_bytes(task.file(folder, "edits", "png"), picture)
        write_json(task.file(folder, "edits", "json"), record)  # last: with it the edit is complete
        bar.update()

    def wanted() -> Iterator[tuple[Task, EditJob]]:
        for task in pending:
            try:
                sample = read(task.key)
            except Exception as error:
                keep(task, None, failed(f"sample: {sentence(error)}"))
                continue
            weights = settings.weights.get(task.row.method, "tiny")
            options = settings.options if task.row.method else {}
            where = settings.device, settings.threads
            yield task, EditJob(task.row, sample, task.seed, options, weights, *where)

    with bar:
        for task, outcome in mapper(edit, wanted()):
            died = isinstance(outcome, WorkerDied)
            keep(task, *((None, failed(sentence(outcome))) if died else outcome))


def _make_measures(
    folder: Path,
    tasks: list[Task],
    read: Reader,
    settings: Settings,
    mapper: Mapper,
    tools: Callable[[], Tools],
) -> None:
    """Measure the edits that were not, sample by sample."""
    edited = [task for task in tasks if task.file(folder, "edits", "png").is_file()]
    pending = [task for task in edited if not task.file(folder, "measures", "json").is_file()]
    place = {key: number for number, key in enumerate(dict.fromkeys(task.key for task in tasks))}
    pending.sort(key=lambda task: place[task.key])

    def wanted() -> Iterator[tuple[Task, MeasureJob]]:
        for task in pending:
            picture = task.file(folder, "edits", "png").read_bytes()
            yield task, MeasureJob(read(task.key), picture, tools, settings.threads)

    with progress(total=len(pending), description="measures") as bar:
        for task, outcome in mapper(measure_edit, wanted()):
            if isinstance(outcome, WorkerDied):
                outcome = {"error": f"measuring: {sentence(outcome)}"}, None
            record, features = outcome
            if features is not None:
                write_features(task.file(folder, "features", "npy"), features)
            write_json(task.file(folder, "measures", "json"), record)
            bar.update()


def _make_references(
    folder: Path,
    tasks: list[Task],
    read: Reader,
    settings: Settings,
    mapper: Mapper,
    tools: Callable[[], Tools],
) -> None:
    """The features of photographs and true edits."""

    def wanted() -> Iterator[tuple[Path, FeatureJob]]:
        for key in dict.fromkeys(
            task.key for task in tasks if task.file(folder, "features", "npy").is_file()
        ):
            files = {name: part_file(folder, "features", name, key, "npy") for name in (PHOTOGRAPH, TARGET)}
            missing = [name for name, file in files.items() if not file.is_file()]
            sample = read(key) if missing else None
            pictures = {PHOTOGRAPH: sample.image, TARGET: sample.target} if missing else {}
            for name in missing:
                if pictures[name] is not None:
                    yield files[name], FeatureJob(pictures[name], tools, settings.threads)

    for file, features in progress(mapper(picture_features, wanted()), description="references"):
        if isinstance(features, np.ndarray):
            write_features(file, features)


def _merge(folder: Path, tasks: list[Task]) -> pd.DataFrame:
    """The table of what is there, in the order of the tasks."""
    records = []
    for task in tasks:
        known = {"method": task.row.name, "key": task.key, "seed": task.seed, "inputs": task.row.inputs}
        record = json.loads(task.file(folder, "edits", "json").read_text())
        measured = task.file(folder, "measures", "json")
        if measured.is_file():
            found = json.loads(measured.read_text())
            record |= found | {"error": record["error"] or found["error"]}
        records.append(known | record)
    frame = pd.DataFrame(records)
    first = [name for name in KNOWN if name in frame.columns]
    return frame[[*first, *(name for name in frame.columns if name not in first)]]


def _begin(
    folder: Path,
    rows: Sequence[Row],
    benchmark: "Benchmark",
    settings: Settings,
    tools: Callable[[], Tools],
    anew: bool,
) -> None:
    """Hold what is in the folder against what is asked for now, drop what is to be made again, write it down.

    Numbers are made again from the pictures whenever the code that measures has changed; pictures only where
    `anew` says so.
    """
    for unfinished in folder.glob("*/*/.*"):  # of a process that was killed
        unfinished.unlink()
    path = folder / "manifest.json"
    asked = {"name": benchmark.name, "first": benchmark.ids[0], "sha256": _digest(benchmark)}
    before = json.loads(path.read_text()) if path.is_file() else {"rows": {}, "benchmark": asked}
    if before["benchmark"] != asked:
        held = before["benchmark"]["name"]
        raise ValueError(
            f"{folder} holds other samples or drags ({held}) than are asked for ({benchmark.name}): "
            "take another folder"
        )
    shared = {"code": code_sha256(*_EDITING), "versions": versions(), "threads": settings.threads}
    made = {row.name: _made_by(row, settings, shared) for row in rows}
    changed = [name for name, by in made.items() if before["rows"].get(name, by) != by]
    if changed and not anew:
        was, now_ = before["rows"][changed[0]], made[changed[0]]
        what = ", ".join(name for name in now_ if was.get(name) != now_[name])
        raise ValueError(
            f"{folder} holds edits of {', '.join(changed)} that were made otherwise ({what} changed): "
            "take another folder, or drop them by asking for them anew"
        )
    for name in changed:
        for kind in ("edits", "measures", "features"):
            shutil.rmtree(folder / kind / file_name(name), ignore_errors=True)
    measured_by = {"tools": _name(tools), "code": code_sha256(*_MEASURING), "versions": shared["versions"]}
    if before.get("measured_by", measured_by) != measured_by:
        for kind in ("measures", "features"):
            shutil.rmtree(folder / kind, ignore_errors=True)
    commit, dirty = git_state(ROOT)
    about = {"benchmark": asked, "commit": commit, "dirty": dirty, "device": device()}
    about |= {"started": now(), "measured_by": measured_by, "rows": before["rows"] | made}
    write_json(path, about)


def _name(function: Callable) -> str:
    """A function with the arguments that it was given already."""
    given = ()
    if isinstance(function, partial):
        function, given = function.func, (*function.args, *sorted(function.keywords.items()))
    return f"{function.__module__}.{function.__qualname__}({', '.join(map(repr, given))})"


def _digest(benchmark: "Benchmark") -> str:
    """Hex digest of a benchmark's first sample: other drags or pictures under the same ids show in it."""
    sample = benchmark.sample(benchmark.ids[0])
    digest = hashlib.sha256(sample.image.convert("RGB").tobytes())
    for array in (sample.drags.handle_points, sample.drags.target_points, sample.drags.mask):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _made_by(row: Row, settings: Settings, shared: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides a row's edits, as the manifest keeps it."""
    weights = settings.weights.get(row.method, "tiny")
    own = {"method": row.method, "mask": row.mask, "few_steps": row.few_steps, "inputs": row.inputs}
    if row.method:
        own["options"] = {name: repr(value) for name, value in (row.options | settings.options).items()}
        own |= {"weights": weights, "weights_sha256": weights_sha256(weights, WEIGHTS)}
        own["device"] = settings.device or "cpu"
    return own | shared
