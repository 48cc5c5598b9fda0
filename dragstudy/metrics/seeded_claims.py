"""Claims about trainings: a difference must hold over the seeds of training too, not over the pairs alone.

The rule, stated before the trainings. Two kinds of training are compared seed by seed and pair by pair: those
of one seed saw the same pairs in the same order, as far as the kinds allow. The 95 % interval is that of a
bootstrap which draws seeds and pairs anew, each with replacement (Owen & Eckles 2012); with three seeds it
spans about what the three differ by. A claim is decided if the interval leaves out zero *and* the difference
has the same sign in every seed; else it is undecided, and so it is with fewer than two seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dragstudy.metrics.claims import Claim, verdict
from dragstudy.metrics.intervals import RESAMPLES


def judge_trainings(
    frame: pd.DataFrame, claims: Sequence[Claim], *, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Hold claims about trainings against what was measured on them.

    Args:
        frame: One row a kind of training, seed and pair: `method`, `seed`, `key` and the claims' metrics.
        claims: Made before the trainings.
        confidence: Of each interval by itself.
        seed: Of the resamples.

    Returns:
        As `dragstudy.metrics.claims.judge`, `n` being pairs, and `seeds`, those that both kinds have.

    Raises:
        ValueError: If the frame lacks a method of a claim, or has two rows of one method, seed and pair.
    """
    rows = []
    for claim in claims:
        found = seeded_difference(frame, claim.method, claim.baseline, claim.metric, confidence, seed)
        difference = f"{claim.metric.replace('_', ' ')}: {claim.method} - {claim.baseline}"
        known = {"claim": claim.text, "difference": difference, "sign": "> 0" if claim.more else "< 0"}
        same_sign, decided = found.pop("same_sign"), "undecided"
        if found["seeds"] > 1 and found["n"] > 1 and same_sign:
            decided = verdict(found["low"], found["high"], more=claim.more)
        rows.append(known | found | {"verdict": decided})
    return pd.DataFrame(rows)


def seeded_difference(
    frame: pd.DataFrame, method: str, baseline: str, metric: str, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Mean difference of two kinds of training, with an interval over seeds and pairs.

    Returns:
        `mean`, `low`, `high`, `n` pairs, `seeds`, and `same_sign`, whether the means of all seeds have one.

    Raises:
        ValueError: As `judge_trainings`.
    """
    by = ["method", "seed", "key"]
    if frame.duplicated(by).any():
        raise ValueError("there are two rows of one method, seed and key: choose a part of the table first")
    for name in (method, baseline):
        if name not in set(frame["method"]):
            raise ValueError(f"method must be one of {sorted(set(frame['method']))}, got {name!r}")
    values = frame.set_index(by)[metric]
    each = (values[method] - values[baseline]).dropna().unstack("key")  # (seeds, pairs)
    if each.empty:
        return dict.fromkeys(("mean", "low", "high"), np.nan) | {"n": 0, "seeds": 0, "same_sign": False}
    table, drawing = each.to_numpy(np.float64), np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        seeds, keys = (drawing.integers(size, size=size) for size in table.shape)
        drawn = table[np.ix_(seeds, keys)]
        means[k] = np.nanmean(drawn) if not np.isnan(drawn).all() else np.nan
    low, high = np.nanquantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    signs = set(np.sign(np.nanmean(table, axis=1)))
    counts = {"n": table.shape[1], "seeds": table.shape[0], "same_sign": len(signs) == 1}
    return {"mean": float(np.nanmean(table)), "low": float(low), "high": float(high)} | counts
