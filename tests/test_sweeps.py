"""Sweeps: what is trained once is not trained twice, nothing is lost to a kill, and order does not show."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from dragstudy import cli
from dragstudy.ablations import flowgen
from dragstudy.ablations.flowgen import FlowGenTrials
from dragstudy.metrics.workers import WorkerDied
from dragstudy.sweeps import Trial, collect, grid, listing, only, overview, run_trials

from .ablations.pairs import FLOWGEN, write_pairs

TRAINING = {name: value for name, value in FLOWGEN.items() if name not in ("count", "seen", "points")}
MEASURING = flowgen.MEASURING | {name: FLOWGEN[name] for name in ("count", "seen", "points")}
ONLY = ("flowgen/sample-wise", "plate")  # of the sweep `normalisation`, for the command
VARIANTS = {"plate": {}, "plain": {"prior": False}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def task(pairs) -> FlowGenTrials:
    return FlowGenTrials(pairs, pairs)


@pytest.fixture
def trials(task) -> list[Trial]:
    return grid(task, TRAINING, VARIANTS, (0, 1), MEASURING)


@pytest.fixture(scope="module")
def complete(task, tmp_path_factory) -> Path:
    """A folder in which all trials were made, in their order."""
    folder = tmp_path_factory.mktemp("complete")
    states = run_trials(grid(task, TRAINING, VARIANTS, (0, 1), MEASURING), folder, report=lambda _: None)
    assert set(states["state"]) == {"complete"}, list(states["error"])
    return folder


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> bool:
    """Whether tables are equal but for times and commits."""
    for name in expected:
        hidden = [column for column in ("seconds", "commit") if column in expected[name]]
        pd.testing.assert_frame_equal(found[name].drop(columns=hidden), expected[name].drop(columns=hidden))
    return list(found) == list(expected)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def test_rows_come_in_the_order_of_the_trials_and_name_them(trials, complete):
    tables = collect(trials, complete)
    errors = tables["flowgen-errors"]
    by = ["task", "variant", "seed", "set", "key", "drags", "rescaling"]
    assert not errors.duplicated(by).any()
    assert len(errors) == 4 * 2 * (3 + 2 + 2)  # trainings, numbers of drags, pairs
    assert list(errors[["variant", "seed"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("plate", 0), ("plain", 0), ("plate", 1), ("plain", 1),
    ]  # fmt: skip
    assert list(tables["flowgen-curve"]["step"]) == [2, 4] * 4
    assert errors.groupby("variant")["epe"].mean().nunique() == 2
    half = collect(trials[:2], complete)["flowgen-errors"]
    pd.testing.assert_frame_equal(half, errors[errors["seed"] == 0])


def test_what_is_there_is_not_made_again(trials, complete):
    before, said = stamps(complete), []
    run_trials(trials, complete, report=said.append)
    assert stamps(complete) == before and all("complete already" in line for line in said)
    assert not list(complete.glob("*/checkpoint-*"))


def test_an_interrupted_training_goes_on_to_the_same_rows(trials, complete, tmp_path):
    """Stopped after its first step, then in its last, in another order than the others were made in."""
    first = trials[0]
    assert first.task.train(first.training, tmp_path / first.folder, minutes=1e-9) is None
    assert [path.name for path in (tmp_path / first.folder).glob("checkpoint-*")] == ["checkpoint-00000001"]
    run_trials(trials[::-1], tmp_path, report=lambda _: None)
    assert same(collect(trials, tmp_path), collect(trials, complete))


def test_nothing_is_begun_after_the_time_is_up(trials, tmp_path):
    states = run_trials(trials[:1], tmp_path, minutes=0, report=lambda _: None)
    assert list(states["state"]) == ["missing"] and list(collect(trials[:1], tmp_path)) == ["trials"]


def test_equal_trainings_are_made_once_whatever_they_are_called(task, tmp_path, trials):
    other = Trial("also", task, dict(reversed(trials[0].training.items())), trials[0].measuring)
    closer = Trial("closer", task, trials[0].training, MEASURING | {"points": [68]})
    three, said = [trials[0], other, closer], []
    states = run_trials(three, tmp_path, report=said.append)
    assert len(said) == 1 and states["folder"].nunique() == 1 == len(list(tmp_path.iterdir()))
    errors = collect(three, tmp_path)["flowgen-errors"]
    assert errors.groupby("variant")["drags"].unique().map(list).to_dict() == {
        "plate": [1, 17], "also": [1, 17], "closer": [68],
    }  # fmt: skip
    assert listing(three, tmp_path).count("as above") == 2 and "1 trainings" in listing(three, tmp_path)


def test_an_error_is_written_down_and_the_others_go_on(task, tmp_path):
    variants = {"wrong": {"reconstruction": "l3"}, "right": {}}
    trials = grid(task, TRAINING, variants, (0,), MEASURING)
    states = run_trials(trials, tmp_path, report=lambda _: None).set_index("variant")
    assert list(states["state"]) == ["failed", "complete"]
    assert "must be 'l1' or 'l2', got 'l3'" in states.loc["wrong", "error"]
    record = json.loads((tmp_path / trials[0].folder / "error.json").read_text())
    assert "Traceback" in record["traceback"]
    assert set(collect(trials, tmp_path)["flowgen-errors"]["variant"]) == {"right"}


def test_a_measurement_that_fails_does_not_cost_the_training(task, tmp_path):
    (trial,) = grid(task, TRAINING, {"plate": {}}, (0,), MEASURING | {"points": [2]})
    states = run_trials([trial], tmp_path, report=lambda _: None)
    assert list(states["state"]) == ["failed"] and states["seconds"].notna().all()
    weights = stamps(tmp_path / trial.folder)[tmp_path / trial.folder / "training.json"]
    run_trials([trial], tmp_path, report=lambda _: None)
    assert stamps(tmp_path / trial.folder)[tmp_path / trial.folder / "training.json"] == weights


def test_a_worker_that_dies_is_an_error_of_its_trial(trials, tmp_path):
    def mapper(function, jobs):
        for number, (name, job) in enumerate(jobs):
            yield name, WorkerDied("killed") if number == 0 else function(job)

    states = run_trials(trials[:2], tmp_path, mapper=mapper, report=lambda _: None)
    assert list(states["state"]) == ["failed", "complete"] and "killed" in states.loc[0, "error"]
    assert list(run_trials(trials[:2], tmp_path, report=lambda _: None)["state"]) == ["complete"] * 2


def test_other_code_measures_again_but_does_not_silently_train_again(task, tmp_path, monkeypatch):
    (trial,) = grid(task, TRAINING, {"plate": {}}, (0,), MEASURING)
    run_trials([trial], tmp_path, report=lambda _: None)
    place, said = tmp_path / trial.folder, []
    trained, measured = place / "training.json", place / trial.tables / "record.json"
    before = stamps(tmp_path)
    monkeypatch.setattr(flowgen, "measuring_code", lambda *_: "other")
    run_trials([trial], tmp_path, report=said.append)
    after = stamps(tmp_path)
    assert after[trained] == before[trained] and after[measured] > before[measured]
    monkeypatch.setattr(flowgen, "trainer_code", lambda *_: "other")
    with pytest.raises(ValueError, match=r"1 trainings were made otherwise .*code changed.*flowgen/plate/0"):
        run_trials([trial], tmp_path)
    run_trials([trial], tmp_path, otherwise="keep", report=said.append)
    assert stamps(tmp_path) == after and "complete already" in said[-1]
    run_trials([trial], tmp_path, otherwise="anew", report=said.append)
    assert "trained in" in said[-1] and json.loads(trained.read_text())["by"]["code"] == "other"


def test_trials_are_chosen_by_parts_of_their_names(trials):
    def names(*wanted):
        return [trial.name for trial in only(trials, wanted)]

    assert names() == [trial.name for trial in trials]
    assert names("plain") == ["flowgen/plain/0", "flowgen/plain/1"]
    assert names("1", "plate/0") == ["flowgen/plate/0", "flowgen/plate/1", "flowgen/plain/1"]
    assert names("flowgen") == names("*/0", "*/1") == names()
    with pytest.raises(ValueError, match="no trial 'plat', only flowgen/plate, flowgen/plain"):
        names("plat")


def command(pairs: Path, out: Path, *options: str) -> list[str]:
    flags = [f"{name}={json.dumps(value)}" for name, value in (FLOWGEN | {"steps": 8}).items()]
    place = ["--data", str(pairs), "--held-out", str(pairs), "--out", str(out), "--seeds", "0"]
    sets = [word for flag in flags for word in ("--set", flag)]
    return ["sweep", "normalisation", "--only", *ONLY, *place, *sets, *options]


def test_the_command_lists_refuses_and_needs_a_folder(pairs, tmp_path, capsys):
    assert cli.main(command(pairs, tmp_path, "--list")) == 0
    assert "2 trials of 2 trainings" in capsys.readouterr().out and not list(tmp_path.iterdir())
    for wrong, sentence in (
        (["sweep", "everything", "--list"], "a sweep must be one of normalisation,"),
        (["sweep", "all"], "--out is needed"),
        (command(pairs, tmp_path, "--set", "heads=2"), "no training of a sweep has an option 'heads'"),
        (command(pairs, tmp_path, "--set", "steps=few"), "steps must be int, got 'few'"),
        (command(pairs, tmp_path, "--workers", "0"), "--workers must be at least 1"),
        (command(tmp_path / "none", tmp_path), "there are no pairs in"),
        (command(pairs, tmp_path, "--otherwise", "maybe"), "otherwise must be one of refuse, anew, keep"),
    ):
        assert cli.main(wrong) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_that_are_killed_and_one_that_goes_on_give_the_same_rows(pairs, tmp_path, capsys):
    from dragstudy.ablations import sweep

    changed = FLOWGEN | {"steps": 8}
    trials = only(sweep("normalisation", data=pairs, held_out=pairs, seeds=(0,), changed=changed), ONLY)
    run_trials(trials, tmp_path / "here", report=lambda _: None)
    out = tmp_path / "there"
    process = subprocess.Popen(
        [sys.executable, "-m", "dragstudy.cli", *command(pairs, out, "--workers", "2")],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not list(out.glob("*/checkpoint-*")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "complete" not in set(overview(trials, out)["state"].iloc[-1:])
    assert cli.main(command(pairs, out)) == 0
    assert "2 complete" in capsys.readouterr().out
    assert same(collect(trials, out), collect(trials, tmp_path / "here"))
