"""Runs: a notebook with its parameters, executed strictly, and the record of what it found.

Inside a notebook, `start` gives a `Run` that takes figures, tables and numbers. Outside, `execute` runs one
notebook and `study` all of them, each into `results/runs/<notebook>/<profile>/<hash8>/`. The hash is that of
the code, the parameters, the library and the weights: the same question has the same folder, and an answered
one is not asked again.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import yaml

from dragstudy import _notebooks, _results
from dragstudy._environment import environment_variables
from dragstudy._kept import shows_kept
from dragstudy._provenance import ROOT, describe, now, sha256, tree_sha256, write_json, write_text
from dragstudy._record import Run, start
from dragstudy.progress import HEADLESS, progress

__all__ = ["Outcome", "Run", "execute", "progress", "refresh", "start", "study"]

# the running interpreter's kernel, without its remarks about transport on the progress lines
KERNEL = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}


@dataclass(frozen=True)
class Outcome:
    """How an execution ended.

    Attributes:
        notebook: Name of the notebook.
        profile: Name of the profile.
        folder: The run's folder.
        status: `"skipped"` if the run was already there.
        seconds: Wall time of this call.
        exception: Kind and text of the error, if it failed.
    """

    notebook: str
    profile: str
    folder: Path
    status: Literal["finished", "failed", "skipped"]
    seconds: float
    exception: str = ""


def execute(
    notebook: str,
    profile: str = "smoke",
    overrides: Mapping[str, object] | None = None,
    *,
    force: bool = False,
    root: Path = ROOT,
) -> Outcome:
    """Run one notebook into its folder, unless it was run before.

    A notebook that fails is kept as far as it came, with the status `"failed"` and the error in its manifest.

    Args:
        notebook: Name or number of the notebook.
        profile: Name of a file in `notebooks/profiles/`.
        overrides: Parameters that come before the profile's.
        force: Run it even if it was run before.
        root: The clone.

    Raises:
        ValueError: If the notebook or the profile does not exist, or a parameter does not exist or is of
            another type.
    """
    with _headless():
        return _execute(_plan(notebook, profile, overrides or {}, _inputs(root), root), force)


def study(
    profile: str = "tiny",
    only: Iterable[str] = (),
    *,
    force: bool = False,
    overrides: Mapping[str, object] | None = None,
    jobs: int | None = None,
    root: Path = ROOT,
    report: Callable[..., None] = print,
) -> list[Outcome]:
    """Run the numbered notebooks, publish what they found, and write the index of `results/`.

    Those that took longest when they were published last begin first, so that no core is idle at the end.
    Those whose code, parameters, library and weights are as before are skipped. One that fails does not stop
    the others. Figures and tables of the smoke profile are not published.

    Args:
        profile: Name of a file in `notebooks/profiles/`.
        only: Names or numbers of the notebooks to run; none means all.
        force: Run also those that are up to date.
        overrides: Parameters that come before the profile's, for every notebook.
        jobs: Notebooks that run at a time, sharing the cores; two by default: small networks keep a single
            core busier than two.
        root: The clone.
        report: Takes a line on each notebook as it ends, as `print` does.

    Returns:
        How each ended, in the order of the notebooks.

    Raises:
        ValueError: Before anything runs, if a name, a profile or a parameter is wrong.
    """
    everything, inputs = _notebooks.notebook_paths(root), _inputs(root)
    wanted = {_notebooks.find_notebook(name, root).stem for name in only} or set(everything)
    if not wanted:
        raise ValueError(f"no notebooks in {root}: install dragstudy from its clone with `pip install -e .`")
    plans = [_plan(name, profile, overrides or {}, inputs, root) for name in everything if name in wanted]
    outcomes = {}
    with (
        _shared_cores(jobs := jobs or min(2, os.cpu_count() or 1)),
        ProcessPoolExecutor(jobs, get_context("spawn")) as pool,
    ):
        # processes: papermill's client leaves an event loop open in every thread but the main one
        took = _results.published_seconds(root / "results")
        longest_first = sorted(plans, key=lambda plan: -took.get(plan.path.stem, 0.0))
        report(f"{len(plans)} notebooks, {jobs} at a time, the longest first", flush=True)
        running = [pool.submit(_execute, plan, force) for plan in longest_first]
        try:
            for number, future in enumerate(as_completed(running), 1):
                outcome = future.result()
                said = f"{profile} {outcome.status:>8} {outcome.seconds:7.1f} s  {outcome.exception}"
                report(f"[{number}/{len(plans)}] {outcome.notebook:<30} {said}".rstrip(), flush=True)
                if outcome.status != "failed" and profile != "smoke":
                    _results.publish(outcome.folder, root / "results")
                outcomes[outcome.notebook] = outcome
                _results.write_index(root)
        except BaseException:  # else leaving the pool would first run all the others
            pool.shutdown(cancel_futures=True)
            raise
    return [outcomes[plan.path.stem] for plan in plans]


def refresh(notebook: str, *, root: Path = ROOT) -> None:
    """Run a notebook with its own parameters and keep the outputs in it; if it fails, it stays as it was.

    Args:
        notebook: Name or number of the notebook.
        root: The clone.

    Raises:
        ValueError: If the notebook does not exist, or its parameters cell is malformed.
        CellExecutionError: If a cell fails (nbclient).
    """
    from nbclient import NotebookClient

    path = _notebooks.find_notebook(notebook, root)
    content = _notebooks.read_notebook(path)
    _notebooks.parameters(content)
    options = {**KERNEL, "timeout": None, "record_timing": False, "coalesce_streams": True}
    with _headless():
        NotebookClient(content, **options, resources={"metadata": {"path": str(path.parent)}}).execute()
    _notebooks.write_notebook(path, content)


@dataclass(frozen=True)
class _Plan:
    """One execution to be: the notebook, its checked parameters, and what names and decides the run."""

    path: Path
    profile: str
    params: dict[str, object]
    inputs: dict[str, str]
    id: str
    folder: Path


def _plan(
    notebook: str, profile: str, overrides: Mapping[str, object], inputs: dict[str, str], root: Path
) -> _Plan:
    path = _notebooks.find_notebook(notebook, root)
    content = _notebooks.read_notebook(path)
    try:
        asked = {**_notebooks.profile_overrides(profile, path.stem, root), **overrides}
        params = _notebooks.with_overrides(content, asked)
    except ValueError as error:
        raise ValueError(f"{path.stem}, profile {profile}: {error}") from None
    if shows_kept(params):
        inputs = inputs | {"rows": tree_sha256(root / "results" / "rows" / path.stem, (".parquet",))}
    id = f"{path.stem}/{profile}/{_notebooks.run_hash(content, params, inputs)}"
    return _Plan(path, profile, params, inputs, id, root / "results" / "runs" / id)


def _inputs(root: Path) -> dict[str, str]:
    """Digests of what decides results besides a notebook's code and parameters."""
    return {
        "library": tree_sha256(Path(__file__).parent, (".py", ".js", ".css")),
        "assets": tree_sha256(root / "data", ("assets.toml",)),
        # not the cards, which quote the results; the logs, since notebooks draw them
        "weights": tree_sha256(root / "data" / "weights", (".safetensors", "config.json", "metrics.jsonl")),
    }


def _execute(plan: _Plan, force: bool) -> Outcome:
    begin = time.perf_counter()
    record = plan.folder / "manifest.json"
    if not force and record.is_file() and json.loads(record.read_text())["status"] == "finished":
        return Outcome(plan.path.stem, plan.profile, plan.folder, "skipped", time.perf_counter() - begin)
    params = {name: value for name, value in plan.params.items() if name != "out_dir"}
    manifest = {"id": plan.id, "notebook_sha256": sha256(plan.path), "inputs": plan.inputs}
    write_json(record, describe(plan.path.stem, params) | {"profile": plan.profile} | manifest)
    write_text(plan.folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    exception = _run_papermill(plan)
    seconds = time.perf_counter() - begin
    outputs = {
        path.relative_to(plan.folder).as_posix(): sha256(path)
        for path in sorted(plan.folder.glob("*/*"))
        if path.parent.name in _results.KINDS and path.suffix != ".json"
    }
    status = "failed" if exception else "finished"
    ended = {"status": status, "ended": now(), "seconds": round(seconds, 1), "exception": exception}
    write_json(record, json.loads(record.read_text()) | ended | {"outputs": outputs})
    return Outcome(plan.path.stem, plan.profile, plan.folder, status, seconds, exception)


def _run_papermill(plan: _Plan) -> str:
    """Execute a notebook into its run's folder; return the error's kind and text, empty if there was none."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of annotations that it cannot read
    target, error = plan.folder / "executed.ipynb", ""
    params = plan.params | {"out_dir": str(plan.folder)} if "out_dir" in plan.params else plan.params
    # relative paths are the notebook's, as in JupyterLab
    options = {**KERNEL, "language": "python", "progress_bar": False, "cwd": str(plan.path.parent)}
    try:
        papermill.execute_notebook(plan.path, target, params, **options)
    except papermill.PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:  # a kernel that died or did not start is a failed run as well
        error = f"{type(failure).__name__}: {failure}"
    if target.is_file():
        _notebooks.write_notebook(target, _notebooks.read_notebook(target))
    return " ".join(error.split())


def _headless() -> AbstractContextManager[None]:
    """Tell the kernels that start meanwhile that nobody watches their progress bars."""
    return environment_variables({HEADLESS: "1"})


def _shared_cores(jobs: int) -> AbstractContextManager[None]:
    """Give each of `jobs` kernels that run at a time its part of the cores, unless the user says how many."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    return environment_variables({HEADLESS: "1", "OMP_NUM_THREADS": threads})
