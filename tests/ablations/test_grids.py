"""The named sweeps: what they share, what they cost, and that every option exists."""

from collections import Counter
from pathlib import Path
from typing import get_type_hints

import pytest

from dragstudy._options import check_options, keywords
from dragstudy.ablations import SWEEPS, sweep
from dragstudy.training import TRAINABLE, LoopSettings

NOWHERE = Path("nowhere")


def test_all_trainings_fit_in_six_hours_of_one_core_and_none_is_made_twice():
    trials = sweep("all", data=NOWHERE)
    trainings = {trial.folder: trial for trial in trials}
    assert Counter(trial.task.name for trial in trainings.values()) == {"flowgen": 54, "flowdiffusion": 21}
    assert sum(trial.task.minutes(trial.training) for trial in trainings.values()) < 6 * 60
    counts = {name: len(sweep(name, data=NOWHERE, seeds=(0,))) for name in SWEEPS}
    assert counts == {
        "normalisation": 8, "dataset-size": 7, "pseudo-drags": 6, "flowgen-losses": 6, "conditioning": 6
    }  # fmt: skip


@pytest.mark.parametrize("name", SWEEPS)
def test_trials_have_names_of_their_own_and_options_that_exist(name):
    trials = sweep(name, data=NOWHERE)
    assert len({trial.name for trial in trials}) == len(trials)
    assert [trial.training["seed"] for trial in trials] == sorted(trial.training["seed"] for trial in trials)
    for trial in trials:
        known = get_type_hints(LoopSettings) | keywords(TRAINABLE[trial.task.name])
        check_options(trial.training, known, "no")


def test_a_change_of_the_base_reaches_every_training_that_knows_it():
    trials = sweep("all", data=NOWHERE, seeds=(5,), changed={"steps": 10, "num_downs": 4, "count": 2})
    assert {trial.training["seed"] for trial in trials} == {5}
    for trial in trials:
        longer = trial.variant == "one-update-4x"
        assert trial.training["steps"] == (40 if longer else 10) and trial.measuring["count"] == 2
        assert trial.training.get("num_downs") == (4 if trial.task.name == "flowgen" else None)


def test_parts_of_a_data_set_are_compared_with_all_of_it_at_equal_steps():
    trials = sweep("dataset-size", data=NOWHERE, seeds=(0,))
    sizes = {"flowgen": [10, 100, 1000, None], "flowdiffusion": [100, 1000, None]}
    for name, expected in sizes.items():
        own = [trial.training for trial in trials if trial.task.name == name]
        assert [training.get("subset") for training in own] == expected
        assert len({(training["steps"], training["batch_size"]) for training in own}) == 1


def test_a_grid_of_one_s_own_tries_all_combinations():
    varied = {"learning_rate": [1e-3, 3e-4], "sampler": ["config1", "uniform"]}
    trials = sweep("flowgen", data=NOWHERE, seeds=(0, 1), varied=varied, changed={"steps": 7})
    assert len(trials) == len({trial.folder for trial in trials}) == 8
    assert trials[1].name == "flowgen/learning_rate=0.001,sampler=uniform/0"
    assert trials[1].training["sampler"] == "uniform" and trials[1].training["steps"] == 7


@pytest.mark.parametrize(
    "name, varied, message",
    [
        ("normalisation", {"steps": [1]}, "a grid is of flowgen or flowdiffusion"),
        ("flowgen", {"steps": 3}, "steps needs a list of values"),
        ("flowgen", {"steps": []}, "steps needs a list of values"),
        ("flowgen", {"heads": [1]}, "flowgen has no option 'heads'"),
        ("flowdiffusion", {"variant": [1]}, "variant must be str"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(name, varied, message):
    with pytest.raises(ValueError, match=message):
        sweep(name, data=NOWHERE, varied=varied)
