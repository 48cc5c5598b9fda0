"""What a comparison comes to: means with intervals, differences on the same samples, distances of sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dragstudy.metrics.comparison_folder import PHOTOGRAPH, TARGET, load_features
from dragstudy.metrics.generation import compare_sets
from dragstudy.metrics.intervals import DO_NOTHING, interval_table, margins, summarize

KNOWN = ("method", "key", "seed", "inputs", "masked", "drags", "error")  # the columns that are no metrics
MACHINE = ("seconds", "memory")  # metrics that differ from machine to machine
HEADLINE = {  # what a short table shows, and its decimals
    **{"psnr_edit": 2, "ssim_edit": 3, "lpips_alex_edit": 3, "landmark_distance_68": 2},
    **{"mean_distance_dragdiffusion": 2, "fidelity": 3, "identity_distance_origin": 3},
    **{"seconds": 2, "memory": 0},
}


def metric_names(frame: pd.DataFrame) -> list[str]:
    """The columns of a comparison that are numbers to be summed up, those without any value left out."""
    return [name for name in frame.columns if name not in KNOWN and frame[name].notna().any()]


def summary(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    baseline: str = DO_NOTHING,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Means with bootstrap intervals, and their differences to a baseline on the same samples.

    Args:
        frame: What `compare` gave; several seeds of a sample are averaged first.
        metrics: Columns to sum up; all by default.
        baseline: Method to compare with; without it in the frame the differences are left out.
        confidence: Of the intervals.
        seed: Of the resamples.

    Returns:
        A frame of one row a method and metric: `method`, `inputs`, `metric`, `n` (samples that have it),
        `errors` (edits that raised), `mean`, `low`, `high`, and `gain`, `gain_low`, `gain_high`, the mean
        difference to the baseline; NaN for the baseline itself, and where either is infinite.
    """
    metrics = metric_names(frame) if metrics is None else list(metrics)
    options = {"metrics": metrics, "confidence": confidence, "seed": seed}
    table = summarize(frame, **options)
    by_method = frame.groupby("method", sort=False)
    table.insert(1, "inputs", table["method"].map(by_method["inputs"].first()))
    errors = by_method["error"].agg(lambda texts: int((texts != "").sum()))
    table.insert(4, "errors", table["method"].map(errors))
    if baseline not in set(frame["method"]):
        return table
    names = {"mean": "gain", "low": "gain_low", "high": "gain_high"}
    finite = frame.assign(**frame[metrics].replace([np.inf, -np.inf], np.nan))
    gains = margins(finite, baseline, **options).drop(columns="n").rename(columns=names)
    return table.merge(gains, on=["method", "metric"], how="left")


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """The few columns of a `summary` that are read first, as text, `mean [low, high]`: one row a method."""
    wanted = {name: digits for name, digits in HEADLINE.items() if name in set(table["metric"])}
    by_method = table.groupby("method", sort=False)
    short = pd.DataFrame({"inputs": by_method["inputs"].first(), "n": by_method["n"].max()})
    short["errors"] = by_method["errors"].first()
    return short.join(interval_table(table[table["metric"].isin(wanted)], wanted)[list(wanted)])


def paired(frame: pd.DataFrame, metric: str, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Every method against every other on the same samples.

    Args:
        frame: What `compare` gave.
        metric: One column.
        confidence: Of the intervals.
        seed: Of the resamples.

    Returns:
        A frame of one row an ordered pair: `method`, `baseline`, `n` samples that both have, `mean` of method
        minus baseline, `low`, `high`, and `sure`, whether the interval excludes zero. The intervals are of
        one comparison each: of twenty that hide no difference one is expected to be sure.
    """
    finite = frame.replace({metric: [np.inf, -np.inf]}, np.nan)
    tables = []
    for baseline in frame["method"].unique():
        table = margins(finite, baseline, metrics=[metric], confidence=confidence, seed=seed)
        if len(table):
            tables.append(table.drop(columns="metric").assign(baseline=baseline))
    names = ["method", "baseline", "n", "mean", "low", "high"]
    found = pd.concat(tables)[names] if tables else pd.DataFrame(columns=names)
    return found.assign(sure=(found["low"] > 0) | (found["high"] < 0)).reset_index(drop=True)


def set_distances(frame: pd.DataFrame, folder: Path | str, *, seed: int = 0) -> pd.DataFrame:
    """FID and KID of each method's edits against the photographs, and against the true edits.

    Args:
        frame: What `compare` gave, or some of its samples. A method's edits that raised are left out of its
            set; the references are all of the frame's samples.
        folder: The same as of `compare`.
        seed: Of KID's intervals.

    Returns:
        What `compare_sets` gives: `images` is the method, `reference` `"photograph"` or `"target"`. Sets of
        fewer than two pictures, and pictures without features, are left out.
    """
    folder = Path(folder)
    sets = {}
    for method, rows in frame.groupby("method", sort=False):
        names = [f"{key}-{seed}" for key, seed in zip(rows["key"], rows["seed"], strict=True)]
        sets[method] = load_features(folder, method, names)
    keys = list(dict.fromkeys(frame["key"]))
    references = {name: load_features(folder, name, keys) for name in (PHOTOGRAPH, TARGET)}
    sets, references = ({k: v for k, v in one.items() if len(v) > 1} for one in (sets, references))
    return compare_sets(sets, references, seed=seed)
