"""Sweeps: trainings over a grid of parameters, each made once and measured, in any order and on any machine.

A folder holds them, for all sweeps alike. A training lies in `<task>-<digest of its parameters>/`, so that
sweeps share what is the same, with its log, its newest checkpoint until it is complete, and then its weights
and `training.json`: parameters, digests of code, data and starting weights, versions, commit, seconds. What
was measured on it lies below that in `measured-<digest>/`: one parquet file a table, and `record.json`. Both
records appear last, and what has one is not made again. So neither the order of the jobs nor the number of
processes nor a kill shows in the tables: a training that was interrupted goes on from its checkpoint.

A measurement whose code or input has changed is made again from the weights. A training that would now be
made otherwise is not: that takes hours, so going on is refused, unless it is to be made anew or kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from dragstudy._provenance import versions, write_json
from dragstudy.metrics.editing import sentence
from dragstudy.metrics.workers import Mapper, WorkerDied, in_this_process
from dragstudy.sweep_jobs import (
    BEGUN,
    FAILED,
    MEASURED,
    TRAINED,
    Job,
    Parameters,
    Task,
    digest,
    read_record,
    work,
)

__all__ = ["Parameters", "Task", "Trial", "collect", "grid", "listing", "only", "overview", "run_trials"]

Otherwise = Literal["refuse", "anew", "keep"]


@dataclass(frozen=True, eq=False)
class Trial:
    """One training of a sweep, and how it is measured.

    Attributes:
        variant: What it is called within its sweep; equal but for the seed means the same name.
        task: What is trained.
        training: Its parameters, JSON values, `seed` among them: all that decides the training.
        measuring: How it is measured, JSON values.
    """

    variant: str
    task: Task
    training: Parameters
    measuring: Parameters

    @property
    def name(self) -> str:
        """Its name within its sweep, such as `"flowgen/fixed/0"`."""
        return f"{self.task.name}/{self.variant}/{self.training['seed']}"

    @property
    def folder(self) -> str:
        """Name of the training's folder."""
        return f"{self.task.name}-{digest(self.training)}"

    @property
    def tables(self) -> str:
        """Name of the folder of its tables, in the training's."""
        return f"measured-{digest(self.measuring)}"


def grid(
    task: Task,
    base: Parameters,
    variants: Mapping[str, Parameters],
    seeds: Sequence[int],
    measuring: Parameters,
) -> list[Trial]:
    """A trial for each variant, which changes some parameters of `base`, and seed.

    All variants of a seed come before the next seed: a part of the work is a smaller study, not half of one.
    """
    return [
        Trial(variant, task, {**base, **changed, "seed": seed}, measuring)
        for seed in seeds
        for variant, changed in variants.items()
    ]


def run_trials(
    trials: Sequence[Trial],
    folder: Path | str,
    *,
    mapper: Mapper = in_this_process,
    threads: int = 1,
    minutes: float | None = None,
    otherwise: Otherwise = "refuse",
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train and measure what is missing; the same call goes on where one was stopped.

    Several calls may work on one folder at once: each training is one process's at a time.

    Args:
        trials: In the order in which they are made.
        folder: Where everything is and goes; workers of a cluster must see it under the same name.
        mapper: Where the jobs run, see `dragstudy.metrics.workers`.
        threads: Threads of each process, on which the last bits depend.
        minutes: Begin nothing after so many minutes, and stop trainings at a checkpoint.
        otherwise: What becomes of trainings that other code, data or versions made: `"refuse"` to go on with
            them, make them `"anew"`, or `"keep"` them, whose records say what made them.
        report: Takes a line on each training that has ended.

    Returns:
        What `overview` gives; a trial that failed has its error there.

    Raises:
        ValueError: If trainings in the folder were made otherwise than they would be now (and see above).
    """
    if otherwise not in get_args(Otherwise):
        raise ValueError(f"otherwise must be one of {', '.join(get_args(Otherwise))}, got {otherwise!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = _jobs(trials, folder, threads, minutes, otherwise == "anew")
    if otherwise == "refuse":
        _refuse_changed(jobs)
    begun = time.monotonic()
    for number, (job, outcome) in enumerate(mapper(work, ((job, job) for job in jobs)), 1):
        if isinstance(outcome, WorkerDied):
            write_json(job.folder / FAILED, {"error": sentence(outcome)})
            outcome = f"FAILED: {sentence(outcome)}"
        report(f"[{number}/{len(jobs)}, {(time.monotonic() - begun) / 60:.1f} min] {job.names}: {outcome}")
    return overview(trials, folder)


def collect(trials: Sequence[Trial], folder: Path | str) -> dict[str, pd.DataFrame]:
    """All tables of the trials that are complete, by name.

    Rows are in the order of the trials, whenever and wherever they were made, and begin with columns `task`,
    `variant` and `seed`. The table `"trials"` is what `overview` gives.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for trial in trials:
        place = Path(folder) / trial.folder / trial.tables
        if not (place / MEASURED).is_file():
            continue
        known = {"task": trial.task.name, "variant": trial.variant, "seed": trial.training["seed"]}
        for path in sorted(place.glob("*.parquet")):
            frame = pd.read_parquet(path)
            for position, (name, value) in enumerate(known.items()):
                frame.insert(position, name, value)
            parts.setdefault(path.stem, []).append(frame)
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return tables | {"trials": overview(trials, folder)}


def only(trials: Sequence[Trial], wanted: Sequence[str]) -> list[Trial]:
    """The trials of some names: whole ones, a first or last part, or patterns such as `flowgen/*/0`.

    Raises:
        ValueError: If there is none of a name.
    """
    found = set()
    for name in wanted:
        forms = name, f"{name}/*", f"*/{name}", f"*/{name}/*"
        of = [k for k, trial in enumerate(trials) if any(fnmatch(trial.name, form) for form in forms)]
        if not of:
            names = ", ".join(dict.fromkeys(trial.name.rpartition("/")[0] for trial in trials))
            raise ValueError(f"there is no trial {name!r}, only {names}, each followed by its seed")
        found.update(of)
    return [trial for k, trial in enumerate(trials) if k in found or not wanted]


def listing(trials: Sequence[Trial], folder: Path | str | None = None) -> str:
    """Lines about trials: minutes of their trainings on one core, what is there, how they are told apart."""
    states = overview(trials, folder or Path("nowhere"))
    lines, seen = [], set()
    for trial, row in zip(trials, states.itertuples(), strict=True):
        again = "as above" if row.folder in seen else f"{row.estimate:.1f} min"
        seen.add(row.folder)
        lines.append(f"{trial.name:<36} {again:>9}  {row.state if folder else '':<9} {row.folder}")
    total = states.drop_duplicates("folder")["estimate"].sum()
    return "\n".join(
        [*lines, f"{len(trials)} trials of {len(seen)} trainings, {total / 60:.1f} h on one core"]
    )


def overview(trials: Sequence[Trial], folder: Path | str) -> pd.DataFrame:
    """What there is of each trial.

    Returns:
        A frame of one row a trial: `task`, `variant`, `seed`, `folder`, `state` (`"missing"`, `"begun"`,
        `"trained"` and not measured yet, `"complete"` or `"failed"`), `seconds` of the training, `estimate`,
        its minutes on one core as `Task.minutes` has it, `commit` and `error`.
    """
    rows = []
    for trial in trials:
        place = Path(folder) / trial.folder
        trained = read_record(place / TRAINED)
        failed = read_record(place / FAILED) or read_record(place / trial.tables / FAILED)
        states = {
            "failed": failed,
            "complete": trained and read_record(place / trial.tables / MEASURED),
            "trained": trained,
            "begun": read_record(place / BEGUN),
        }
        row = {"task": trial.task.name, "variant": trial.variant, "seed": trial.training["seed"]}
        row |= {"folder": trial.folder, "state": next((s for s, found in states.items() if found), "missing")}
        row |= {"seconds": trained.get("seconds", float("nan"))}
        row |= {"estimate": round(trial.task.minutes(trial.training), 1)}
        rows.append(row | {"commit": trained.get("commit") or "", "error": failed.get("error", "")})
    return pd.DataFrame(rows)


def _jobs(
    trials: Sequence[Trial], folder: Path, threads: int, minutes: float | None, anew: bool
) -> list[Job]:
    """A job for each training that differs from the others, in the order of the trials."""
    deadline = None if minutes is None else time.time() + 60 * minutes
    known = {"versions": versions()}
    served: dict[str, list[Trial]] = {}
    for trial in trials:
        served.setdefault(trial.folder, []).append(trial)
    return [
        Job(
            task := of[0].task,
            " = ".join(dict.fromkeys(trial.name for trial in of)),
            of[0].training,
            task.made_by(of[0].training) | known | {"threads": threads},
            {trial.tables: (trial.measuring, task.measured_by(trial.measuring) | known) for trial in of},
            folder / name,
            deadline,
            threads,
            anew,
        )
        for name, of in served.items()
    ]


def _refuse_changed(jobs: Sequence[Job]) -> None:
    changed = {job.names: what for job in jobs if (what := job.changed)}
    if changed:
        name, what = next(iter(changed.items()))
        raise ValueError(
            f"{len(changed)} trainings were made otherwise than they would be now ({what} changed), such as "
            f"{name}: take another folder, have them made anew, or keep them"
        )
