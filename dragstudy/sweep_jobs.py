"""One training of a sweep and what is measured on it, as a job for any process."""

import hashlib
import io
import json
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from dragstudy._environment import environment_variables
from dragstudy._provenance import ROOT, device, git_state, now, write_json
from dragstudy.metrics.comparison_folder import alone, write_bytes
from dragstudy.metrics.editing import fixed_arithmetic, sentence
from dragstudy.progress import HEADLESS

Parameters = Mapping[str, Any]
BEGUN, TRAINED, MEASURED, FAILED = "begun.json", "training.json", "record.json", "error.json"
DIGITS = 12  # of the digests in names


class Task(Protocol):
    """A kind of training. Pickled for other processes, so a plain dataclass of a module."""

    name: str

    def train(self, training: Parameters, folder: Path, minutes: float | None) -> float | None:
        """Train in a folder, or go on there, for so many minutes at most; seconds in all once complete."""
        ...

    def measure(self, training: Parameters, measuring: Parameters, folder: Path) -> dict[str, pd.DataFrame]:
        """Tables of plain columns, by name, of what was trained in a folder."""
        ...

    def made_by(self, training: Parameters) -> dict[str, str]:
        """Digests of all that decides a training besides its parameters: code, data, starting weights."""
        ...

    def measured_by(self, measuring: Parameters) -> dict[str, str]:
        """Digests of all that decides a measurement besides its parameters and the training."""
        ...

    def minutes(self, training: Parameters) -> float:
        """About how long a training takes on one core."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """One training and all that is measured on it.

    Attributes:
        task: What is trained.
        names: Of the trials that it serves.
        training: Its parameters.
        by: What else decides it.
        measurings: By the name of its folder each measurement's parameters, and what else decides it.
        folder: Of the training.
        deadline: Time in seconds since the epoch after which nothing is begun; None for never.
        threads: Threads of torch and OpenCV.
        anew: Whether a training that was made otherwise is dropped.
    """

    task: Task
    names: str
    training: Parameters
    by: Parameters
    measurings: Mapping[str, tuple[Parameters, Parameters]]
    folder: Path
    deadline: float | None = None
    threads: int = 1
    anew: bool = False

    @property
    def changed(self) -> str:
        """What decided the training that is there otherwise than now; empty if nothing did."""
        before = read_record(self.folder / BEGUN).get("by", self.by)
        return ", ".join(name for name in self.by if before.get(name) != self.by[name])

    def minutes_left(self) -> float | None:
        """Until the deadline, None without one."""
        return None if self.deadline is None else (self.deadline - time.time()) / 60


def work(job: Job) -> str:
    """Do what is missing of a job, unless another process does; an error is written down in its folder.

    Returns:
        What was done, in words.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        # bars of several processes would write over each other
        with alone(job.folder), fixed_arithmetic(job.threads), environment_variables({HEADLESS: "1"}):
            return ", ".join(_work(job)) or "complete already"
    except ValueError as busy:
        return str(busy)


def digest(parameters: Parameters) -> str:
    """A name for parameters, which does not depend on their order."""
    text = json.dumps(dict(parameters), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _work(job: Job) -> list[str]:
    """The training, if it is missing, then each measurement."""
    done: list[str] = []
    (job.folder / FAILED).unlink(missing_ok=True)
    try:
        if job.anew and job.changed:
            _empty(job.folder)
        if not (job.folder / TRAINED).is_file():
            done.append(_train(job))
        for name, (measuring, by) in job.measurings.items():
            place = job.folder / name
            if (job.folder / TRAINED).is_file() and read_record(place / MEASURED).get("by") != by:
                done.append(_measure(job, place, measuring, by))
    except Exception as error:
        done.append(f"FAILED: {sentence(error)}")
    return done


def _train(job: Job) -> str:
    left = job.minutes_left()
    if left is not None and left <= 0:
        return "out of time"
    record = read_record(job.folder / BEGUN) or {"parameters": dict(job.training), "by": dict(job.by)}
    write_json(job.folder / BEGUN, record)
    with _recorded(job.folder):
        seconds = job.task.train(job.training, job.folder, left)
    if seconds is None:
        return "stopped at a checkpoint"
    write_json(job.folder / TRAINED, record | _circumstances() | {"seconds": round(seconds, 1)})
    for checkpoint in job.folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return f"trained in {seconds:.0f} s"


def _measure(job: Job, place: Path, measuring: Parameters, by: Parameters) -> str:
    left, began = job.minutes_left(), time.monotonic()
    if left is not None and left <= 0:
        return "out of time"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    with _recorded(place):
        tables = job.task.measure(job.training, measuring, job.folder)
        for name, frame in tables.items():
            buffer = io.BytesIO()
            frame.to_parquet(buffer, index=False)
            write_bytes(place / f"{name}.parquet", buffer.getvalue())
    seconds = time.monotonic() - began
    record = {"parameters": dict(measuring), "by": by} | _circumstances()
    write_json(place / MEASURED, record | {"seconds": round(seconds, 1)})
    return f"measured in {seconds:.0f} s"


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """Within it an error is written into a folder before it goes on; an earlier one is removed."""
    (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        write_json(folder / FAILED, {"error": sentence(error), "traceback": text} | _circumstances())
        raise


def _empty(folder: Path) -> None:
    """Remove what a folder holds, except for the lock that this process has."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _circumstances() -> dict[str, Any]:
    commit, dirty = git_state(ROOT)
    return {"commit": commit, "dirty": dirty, "device": device(), "ended": now()}


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}
