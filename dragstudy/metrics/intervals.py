"""Means of metrics with bootstrap intervals: alone, against a baseline pair by pair, and against a bar.

A frame here has one row a pair and method, as `dragstudy.metrics.evaluate.evaluate_edits` gives it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

METRICS = ("psnr", "ssim", "lpips", "landmark_distance", "background_change", "seconds")
DO_NOTHING = "do nothing"
RESAMPLES = 2000  # of a bootstrap


def bootstrap_interval(
    values: Any, *, generator: torch.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Mean of some values, and the percentile bootstrap interval of it (Efron 1979).

    Args:
        values: Numbers, shape `(n,)`; NaN are left out.
        generator: Source of the resamples.
        confidence: Probability that the interval is meant to hold the mean with.
        resamples: How often n values are drawn from the n, with replacement.

    Returns:
        Mean, lower and upper end; NaN where there are no values.

    Raises:
        ValueError: If `confidence` is not between 0 and 1.

    Example:
        >>> bootstrap_interval([2.0, 2.0, 2.0], generator=torch.Generator().manual_seed(0))
        (2.0, 2.0, 2.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    given = torch.from_numpy(np.array(values, dtype=np.float64)).flatten()
    given = given[~given.isnan()]
    if not len(given):
        return (float("nan"),) * 3
    means = given[torch.randint(len(given), (resamples, len(given)), generator=generator)].mean(dim=1)
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = means.quantile(ends, interpolation="nearest").tolist()  # between two infinities lies NaN
    return given.mean().item(), low, high


def bootstrap_slope(
    x: Any, y: Any, *, generator: torch.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Slope of the line that fits `y` over `x` best, and the percentile bootstrap interval of it.

    Args:
        x: Numbers, shape `(n,)`.
        y: The same.
        generator: Source of the resamples.
        confidence: Probability that the interval is meant to hold the slope with.
        resamples: How often n points are drawn from the n, with replacement.

    Returns:
        Slope, lower and upper end, in units of `y` over units of `x`.

    Raises:
        ValueError: If there are fewer than two different `x`, which no line has a slope through.

    Example:
        >>> seeded = torch.Generator().manual_seed(0)
        >>> slope = bootstrap_slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0], generator=seeded)
        >>> [round(value, 9) for value in slope]
        [2.0, 2.0, 2.0]
    """
    points = torch.from_numpy(np.array([x, y], dtype=np.float64))
    if len(points[0].unique()) < 2:
        raise ValueError(f"a slope needs two different x, got {points[0].unique().tolist()}")
    count = points.shape[1]
    drawn = points[:, torch.randint(count, (resamples, count), generator=generator)]  # (2, resamples, n)
    drawn = drawn[:, drawn[0].amax(dim=1) > drawn[0].amin(dim=1)]
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = _slope(*drawn).quantile(ends, interpolation="nearest").tolist()
    return _slope(*points).item(), low, high


def summarize(
    frame: pd.DataFrame, *, metrics: Sequence[str] = METRICS, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Mean of each metric with its bootstrap interval, for each method.

    Args:
        frame: What `evaluate_edits` returned, or several of them concatenated.
        metrics: Columns to sum up.
        confidence: Of the intervals.
        seed: Of the resamples.

    Returns:
        A frame of one row a method and metric: `method`, `metric`, `n` (pairs that have the metric), `mean`,
        `low`, `high`; methods in the order in which they first come.
    """
    wide = _by_pair(frame, metrics)
    rows = [
        _interval_row(method, name, wide.loc[method, name], confidence, seed)
        for method in frame["method"].unique()
        for name in metrics
    ]
    return pd.DataFrame(rows)


def margins(
    frame: pd.DataFrame,
    baseline: str = DO_NOTHING,
    *,
    metrics: Sequence[str] = METRICS,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean difference of each method to a baseline on the same pairs; sure where `low..high` excludes zero.

    Args:
        frame: As in `summarize`.
        baseline: Name of the method that the others are compared with.
        metrics: Columns to compare.
        confidence: Of the intervals.
        seed: Of the resamples.

    Returns:
        As `summarize`, of method minus baseline.

    Raises:
        ValueError: If the frame has no such baseline.
    """
    wide = _with_baseline(frame, baseline, metrics)
    rows = [
        _interval_row(method, name, wide.loc[method, name] - wide.loc[baseline, name], confidence, seed)
        for method in frame["method"].unique()
        if method != baseline
        for name in metrics
    ]
    return pd.DataFrame(rows)


def shares(
    frame: pd.DataFrame,
    baseline: str = DO_NOTHING,
    *,
    metrics: Sequence[str] = ("landmark_distance",),
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of each method as a share of a baseline's mean on the same pairs, with its bootstrap interval.

    Pairs that lack the metric in either (no face was found) do not count in either mean.

    Args:
        frame: As in `summarize`.
        baseline: Name of the method whose mean is 1.
        metrics: Columns to compare.
        confidence: Of the intervals; pairs are resampled, and both means taken over the same ones.
        seed: Of the resamples.

    Returns:
        As `summarize`, of the ratio of the two means.

    Raises:
        ValueError: If the frame has no such baseline.
    """
    wide = _with_baseline(frame, baseline, metrics)
    rows = []
    for method in frame["method"].unique():
        for name in () if method == baseline else metrics:
            both = pd.concat([wide.loc[method, name], wide.loc[baseline, name]], axis=1).dropna()
            rows.append({"method": method, "metric": name, "n": len(both)} | _ratio(both, confidence, seed))
    return pd.DataFrame(rows)


def interval_table(table: pd.DataFrame, digits: int | Mapping[str, int] = 2) -> pd.DataFrame:
    """Means with their intervals as text, `mean [low, high]`: one row a method, one column a metric.

    Args:
        table: What `summarize`, `margins` or `shares` gave.
        digits: Decimals, or decimals by metric.

    Returns:
        Methods and metrics in the order in which they first come.
    """
    texts: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        places = digits if isinstance(digits, int) else digits[row["metric"]]
        mean, low, high = (f"{row[name]:.{places}f}" for name in ("mean", "low", "high"))
        texts.setdefault(row["metric"], {})[row["method"]] = f"{mean} [{low}, {high}]"
    return pd.DataFrame(texts).loc[table["method"].unique()].rename_axis("method")


def bar(
    claim: str,
    measured: Mapping[str, float],
    *,
    above: float | None = None,
    below: float | None = None,
    sure: bool = False,
) -> dict[str, Any]:
    """Hold a measured mean, with its interval, against a bar that was set before.

    Args:
        claim: The bar in words.
        measured: `mean`, `low` and `high`, such as a row of `summarize`, `margins` or `shares`.
        above: The bar, where more is better; either this or `below`.
        below: The bar, where less is better.
        sure: Whether the whole interval must be beyond the bar, not the mean alone.

    Returns:
        A row of a table: `bar`, `measured`, `judged by` (mean or interval) and `holds`, False for NaN.

    Raises:
        ValueError: If both or neither of `above` and `below` are given.

    Example:
        >>> bar("wins", {"mean": 2.0, "low": -1.0, "high": 5.0}, above=0, sure=True)["holds"]
        False
    """
    if (above is None) == (below is None):
        raise ValueError(f"a bar needs one of above and below, got {above} and {below}")
    mean, low, high = (float(measured[name]) for name in ("mean", "low", "high"))
    holds = (low if sure else mean) >= above if below is None else (high if sure else mean) <= below
    text = f"{mean:.3g} [{low:.3g}, {high:.3g}]" if low != high else f"{mean:.3g}"
    judged = "interval" if sure else "mean"
    return {"bar": claim, "measured": text, "judged by": judged, "holds": bool(holds)}


def _with_baseline(frame: pd.DataFrame, baseline: str, metrics: Sequence[str]) -> pd.DataFrame:
    if baseline not in set(frame["method"]):
        raise ValueError(f"baseline must be one of {sorted(set(frame['method']))}, got {baseline!r}")
    return _by_pair(frame, metrics)


def _by_pair(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row a method and pair: several seeds of one pair are no further evidence, so they are averaged."""
    return frame.groupby(["method", "key"], sort=False)[list(metrics)].mean()


def _slope(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of the least-squares line through the points along the last axis."""
    x = x - x.mean(dim=-1, keepdim=True)
    return (x * y).sum(dim=-1) / x.square().sum(dim=-1)


def _ratio(both: pd.DataFrame, confidence: float, seed: int) -> dict[str, float]:
    """Ratio of the means of two columns, and its interval over resampled rows."""
    if not len(both):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    values, generator = torch.from_numpy(both.to_numpy(np.float64)), torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    means = values[rows].mean(dim=1)
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = (means[:, 0] / means[:, 1]).quantile(ends).tolist()
    return {"mean": (values[:, 0].mean() / values[:, 1].mean()).item(), "low": low, "high": high}


def _interval_row(
    method: str, metric: str, values: pd.Series, confidence: float, seed: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mean, low, high = bootstrap_interval(values, generator=generator, confidence=confidence)
    return {
        "method": method,
        "metric": metric,
        "n": int(values.notna().sum()),
        "mean": mean,
        "low": low,
        "high": high,
    }
