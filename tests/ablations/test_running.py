"""A sweep as a notebook runs it: what it returns, what it leaves, and what it says where it cannot."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dragstudy.ablations import run_sweep, running, sweep
from dragstudy.metrics.comparison_folder import alone
from dragstudy.sweeps import collect, only

from .pairs import FLOWGEN, write_pairs

NAME, TRIALS = "pseudo-drags", ["config2", "config3"]
OPTIONS = {"recipe": "mine", "trials": TRIALS, "seeds": (0,), "changed": FLOWGEN, "clips": 1}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def complete(pairs, tmp_path_factory) -> tuple[Path, dict[str, pd.DataFrame]]:
    """A folder of trainings, and the tables that came back when they were made."""
    folder = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        use(pairs, patch)
        return folder, run_sweep(NAME, folder, **OPTIONS)


@pytest.fixture
def own_pairs(pairs, monkeypatch) -> None:
    use(pairs, monkeypatch)


def use(pairs: Path, patch: pytest.MonkeyPatch) -> None:
    """Take `pairs` for those of the recipe `mine`, and for the held-out ones of the first clip."""
    held_out = {(1, 60): SimpleNamespace(folder=pairs)}
    patch.setattr(running.recipes, "cached", {"mine": pairs}.__getitem__)
    patch.setattr(running.recipes, "held_out_pairs", lambda clips, each: held_out[clips, each])


def trainings(folder: Path) -> dict[Path, int]:
    """When each file of the trainings was written last."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


def test_its_tables_are_those_of_the_trials(pairs, complete):
    folder, tables = complete
    trials = only(sweep(NAME, data=pairs, held_out=pairs, seeds=(0,), changed=FLOWGEN), TRIALS)
    expected = collect(trials, folder)
    assert list(tables) == list(expected) == ["flowgen-curve", "flowgen-errors", "trials"]
    for name, table in expected.items():
        pd.testing.assert_frame_equal(tables[name], table)
    assert list(tables["trials"]["variant"]) == TRIALS and set(tables["trials"]["state"]) == {"complete"}
    assert tables["flowgen-errors"]["epe"].notna().all()
    assert tables["flowgen-errors"].groupby("variant")["epe"].mean().nunique() == 2


def test_a_second_call_goes_on_with_what_is_there(own_pairs, complete):
    folder, tables = complete
    before, said = trainings(folder), []
    again = run_sweep(NAME, folder, **OPTIONS, report=said.append)
    assert trainings(folder) == before and len(said) == 2
    assert all("complete already" in line for line in said)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table)
    more = run_sweep(NAME, folder, **OPTIONS | {"trials": [*TRIALS, "config4"]}, report=said.append)
    assert [("trained" in line) for line in said[2:]] == [False, False, True]
    assert list(more["trials"]["variant"]) == [*TRIALS, "config4"]


def test_without_a_folder_it_leaves_nothing(own_pairs, complete, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    one = run_sweep(
        NAME, **OPTIONS | {"trials": TRIALS[:1]}, report=lambda _: seen.extend(tmp_path.iterdir())
    )
    assert seen and not list(tmp_path.iterdir())
    errors = complete[1]["flowgen-errors"]
    pd.testing.assert_frame_equal(one["flowgen-errors"], errors[errors["variant"] == TRIALS[0]])


def test_a_failed_training_is_an_error_that_says_which_and_why(own_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wrong = OPTIONS | {"changed": FLOWGEN | {"reconstruction": "l3"}}
    with pytest.raises(RuntimeError, match=r"flowgen/config2/0 is failed: .*must be 'l1' or 'l2', got 'l3'"):
        run_sweep(NAME, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_training_that_another_process_makes_is_not_waited_for(pairs, own_pairs, tmp_path):
    trials = sweep(NAME, data=pairs, held_out=pairs, seeds=(0,), changed=FLOWGEN)
    (trial,) = only(trials, TRIALS[:1])
    (tmp_path / trial.folder).mkdir()
    said = []
    with alone(tmp_path / trial.folder), pytest.raises(RuntimeError, match="flowgen/config2/0 is missing"):
        run_sweep(NAME, tmp_path, **OPTIONS | {"trials": TRIALS[:1]}, report=said.append)
    assert "another process is writing" in said[0]


@pytest.mark.parametrize(("clips", "each", "frozen"), [(5, 60, True), (1, 60, False)])
def test_all_clips_with_all_pairs_are_the_frozen_ones(own_pairs, pairs, monkeypatch, clips, each, frozen):
    def seen(name: str, **options: object) -> None:
        raise LookupError(options["held_out"])

    monkeypatch.setattr(running, "sweep", seen)
    with pytest.raises(LookupError) as found:
        run_sweep(NAME, recipe="mine", clips=clips, pairs_per_clip=each)
    assert found.value.args == (None if frozen else pairs,)
