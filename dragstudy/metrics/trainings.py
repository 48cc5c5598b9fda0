"""Trainings side by side: how far seeds lie apart, and each kind of training minus one of them.

A frame here has one row a kind of training, seed and pair, as `dragstudy.metrics.seeded_claims` has it.
"""

from collections.abc import Sequence

import pandas as pd

from dragstudy.metrics.seeded_claims import seeded_difference


def seed_ranges(frame: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean over seeds of the mean of each, from the smallest to the largest of them.

    Not an interval: it says by how much trainings differ that should be alike.

    Args:
        frame: Columns `seed`, `by` and the metric.
        by: Columns that name what is averaged, such as `["method", "drags"]`.
        metric: Column to average.

    Returns:
        One row a combination of `by`, in the order in which they first come: `by`, `mean`, `low`, `high` and
        `seeds`.

    Example:
        >>> frame = pd.DataFrame({"method": "a", "seed": [0, 0, 1], "epe": [1.0, 3.0, 4.0]})
        >>> seed_ranges(frame, ["method"], "epe").to_dict("records")
        [{'method': 'a', 'mean': 3.0, 'low': 2.0, 'high': 4.0, 'seeds': 2}]
    """
    each = frame.groupby([*by, "seed"], sort=False)[metric].mean()
    found = each.groupby(level=list(by), sort=False).agg(["mean", "min", "max", "count"])
    return found.rename(columns={"min": "low", "max": "high", "count": "seeds"}).reset_index()


def training_margins(
    frame: pd.DataFrame, baseline: str, metrics: Sequence[str], *, seed: int = 0
) -> pd.DataFrame:
    """Mean difference of each kind of training to one of them, with intervals over seeds and pairs.

    Args:
        frame: Columns `method`, `seed`, `key` and the metrics.
        baseline: Name of the kind that the others are compared with; itself it stays in the table, at zero.
        metrics: Columns to compare.
        seed: Of the resamples.

    Returns:
        A frame of one row a method and metric: `method`, `metric`, `n` (pairs), `seeds`, `mean`, `low`,
        `high`; see `seeded_difference`.

    Raises:
        ValueError: As `seeded_difference`.
    """
    rows = []
    for method in frame["method"].unique():
        for metric in metrics:
            found = seeded_difference(frame, method, baseline, metric, seed=seed)
            known = {name: found[name] for name in ("n", "seeds", "mean", "low", "high")}
            rows.append({"method": method, "metric": metric} | known)
    return pd.DataFrame(rows)
