"""A sweep as a notebook runs it: its data found or made, its trainings made or found, their tables read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from dragstudy.ablations.grids import SEEDS, sweep
from dragstudy.data import recipes
from dragstudy.metrics.workers import place
from dragstudy.sweeps import Parameters, collect, only, run_trials


def run_sweep(
    name: str,
    folder: Path | str = "",
    *,
    recipe: str = "ablations",
    trials: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    changed: Parameters | None = None,
    clips: int = len(recipes.HELD_OUT_CLIPS),
    pairs_per_clip: int = 60,
    workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, pd.DataFrame]:
    """Run what is missing of a sweep and collect its tables; the same call goes on where one was stopped.

    Args:
        name: A key of `SWEEPS`.
        folder: Of the trainings, which sweeps share; empty takes one that is gone afterwards.
        recipe: Of the pairs to train on, made if they are not in the cache.
        trials: Names of some trials, see `dragstudy.sweeps.only`; none means all.
        seeds: Each training is made once from each.
        changed: Parameters of the base to change, see `sweep`.
        clips: Held-out clips to measure on; all of them with all pairs mean the hundred frozen pairs.
        pairs_per_clip: Pairs considered in each.
        workers: Processes.
        report: Takes a line on each training that has ended.

    Returns:
        See `dragstudy.sweeps.collect`.

    Raises:
        RuntimeError: If a training failed, or is not complete since another process works on it.
        ValueError: As `sweep`, `only` and `run_trials`.
    """
    whole = (clips, pairs_per_clip) == (len(recipes.HELD_OUT_CLIPS), 60)
    held_out = None if whole else recipes.held_out_pairs(clips, pairs_per_clip).folder
    options = {"data": recipes.cached(recipe), "held_out": held_out, "seeds": seeds, "changed": changed}
    wanted = only(sweep(name, **options), trials)
    with TemporaryDirectory() as temporary, place(workers, None, threads=1) as mapper:
        states = run_trials(wanted, folder or temporary, mapper=mapper, report=report)
        lacking = states[states["state"] != "complete"].itertuples()
        found = [f"{row.task}/{row.variant}/{row.seed} is {row.state}: {row.error}" for row in lacking]
        if found:
            raise RuntimeError("; ".join(found))
        return collect(wanted, folder or temporary)
