"""What both kinds of trainings share: where data and weights are, their digests, and the log as a table."""

import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import Dataset, Subset

from dragstudy import assets
from dragstudy._fingerprints import code_sha256
from dragstudy._provenance import sha256
from dragstudy.data.frozen import FROZEN, frozen_pairs
from dragstudy.data.pairs import PairDataset
from dragstudy.data.shards import MANIFEST
from dragstudy.sweep_jobs import digest
from dragstudy.training import run
from dragstudy.training.checkpoints import latest_checkpoint
from dragstudy.training.order import StepSampler
from dragstudy.training.subsets import drawn_indices

GENERATED = "face-"  # clips of generated faces, which the splits `train` and `val` of `tiny` share


def training_pairs(recipe: str = "ablations") -> Path:
    """Folder of the pairs to train on, in the cache; it need not be there yet."""
    return assets.cache_dir() / "pairs" / recipe


def held_out_pairs(folder: Path | None, count: int) -> Dataset:
    """The frozen pairs, or those of a folder's split `test`; at most `count`, spread evenly."""
    if folder is None:
        return frozen_pairs(count)
    pairs = PairDataset(folder, "test")
    count = min(count, len(pairs))
    return Subset(pairs, [k * len(pairs) // count for k in range(count)])


def seen_and_unseen(data: Path, training: Mapping[str, Any], count: int) -> dict[str, tuple[Dataset, list]]:
    """Sets of generated faces to hold against each other: some that a training saw, and some that it did not.

    Args:
        data: Folder of the pairs.
        training: Parameters of the training.
        count: Pairs of each at most.

    Returns:
        By name, `"train"` and `"val"`: all pairs of the split, and which of them are meant; of the first in
        the order in which they were seen. Where a folder holds no generated faces, all count.
    """
    found = {}
    for split in ("train", "val"):
        pairs = PairDataset(data, split)
        order = range(len(pairs)) if split == "val" else _seen(len(pairs), training)
        generated = pairs.manifest["clip"].str.startswith(GENERATED)
        chosen = [index for index in order if generated[index] or not generated.any()]
        if split == "val":
            count_here = min(count, len(chosen))
            chosen = [chosen[k * len(chosen) // count_here] for k in range(count_here)]
        found[split] = pairs, chosen[:count]
    return found


def _seen(size: int, training: Mapping[str, Any]) -> list[int]:
    """Which pairs of all a training saw, in the order in which it saw them first."""
    subset, seed = training.get("subset", 0), training["seed"]
    chosen = drawn_indices(size, subset, seed) if subset else range(size)
    batches = StepSampler(len(chosen), training["batch_size"], seed, range(training["steps"]))
    return list(dict.fromkeys(chosen[index] for batch in batches for index in batch))


def finish_training(
    model: str, data: Path, folder: Path, minutes: float | None, options: Mapping[str, Any]
) -> float | None:
    """Train, or go on; the seconds that it took in all, None while steps are missing."""
    run.train(model, data, folder, minutes=minutes, **options)
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None or int(checkpoint.name.rpartition("-")[2]) < options["steps"]:
        return None
    return log_lines(folder)[-1]["seconds"]


def log_lines(folder: Path) -> list[dict[str, float]]:
    """The lines of a training's log."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def learning_curve(folder: Path) -> pd.DataFrame:
    """A training's log as a table: `step`, `images`, `seconds`, and what was logged, each a column."""
    return pd.DataFrame(log_lines(folder)).astype(float)


@cache
def trainer_code(model: str, *modules: str) -> str:
    """Digest of the code that decides a training: modules with all that they import, and its own in `run`.

    Not the rest of that module, which knows every other model too.
    """
    function = run.TRAINABLE[model]
    own = [inspect.getsource(one) for one in (run.train, function, run._save)]
    settings = {"shared": run.SHARED, "defaults": run.DEFAULTS[model]}
    return digest({"modules": code_sha256(*modules, packages=False), "own": own, **settings})


@cache
def measuring_code(*modules: str) -> str:
    """Digest of the code that decides a measurement: some modules with all that they import."""
    return code_sha256(*modules, packages=False)


@cache
def pairs_digest(folder: Path | None) -> str:
    """Digest of which pairs a folder holds; of the frozen ones their names.

    Raises:
        ValueError: If it holds none: making those of a recipe takes too long to be done by the way.
    """
    if folder is None:
        return digest({"frozen": FROZEN})
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"there are no pairs in {folder}: `dragstudy curate --recipe ablations --out {folder}` makes them"
        )
    return sha256(folder / MANIFEST)
