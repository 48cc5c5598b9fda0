"""What a paper claims, held against measured differences by a rule that is stated before the measuring.

A claim says which of two methods has more of a metric. It *holds* if the bootstrap interval of the difference
on the same pairs lies on the claimed side of zero, is *contradicted* if it lies on the other, and is
*undecided* if the interval holds zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dragstudy.metrics.intervals import margins

VERDICTS = {
    "holds": "Agrees with the paper",
    "contradicted": "Contradicts it",
    "undecided": "Undecided at this size",
}


@dataclass(frozen=True)
class Claim:
    """One method has more, or less, of a metric than another.

    Attributes:
        text: What the paper says, in a few words.
        method: Name of the method that it is said of.
        baseline: Name of the method that it is compared with.
        metric: Column that the two are compared by.
        more: Whether the method is said to have more of it than the baseline, or less.
    """

    text: str
    method: str
    baseline: str
    metric: str
    more: bool


def judge(
    frame: pd.DataFrame, claims: Sequence[Claim], *, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Hold claims against what was measured.

    Args:
        frame: One row a pair and method, as in `dragstudy.metrics.intervals`.
        claims: Made before the measuring.
        confidence: Of each interval by itself: of twenty claims about nothing one is decided by chance.
        seed: Of the resamples.

    Returns:
        A frame of one row a claim: `claim`, the `difference` it is about, the `sign` that the paper gives it,
        its `mean`, `low` and `high` over `n` pairs, and the `verdict`: one pair decides nothing.

    Raises:
        ValueError: If the frame lacks a method of a claim.
    """
    rows = []
    for claim in claims:
        if claim.method not in set(frame["method"]):
            raise ValueError(f"method must be one of {sorted(set(frame['method']))}, got {claim.method!r}")
        both = frame[frame["method"].isin([claim.method, claim.baseline])]
        options = {"metrics": (claim.metric,), "confidence": confidence, "seed": seed}
        found = margins(both, claim.baseline, **options).iloc[0]
        difference = f"{claim.metric.replace('_', ' ')}: {claim.method} - {claim.baseline}"
        known = {"claim": claim.text, "difference": difference, "sign": "> 0" if claim.more else "< 0"}
        measured = {name: found[name] for name in ("mean", "low", "high", "n")}
        decided = verdict(found["low"], found["high"], more=claim.more) if found["n"] > 1 else "undecided"
        rows.append(known | measured | {"verdict": decided})
    return pd.DataFrame(rows)


def verdict(low: float, high: float, *, more: bool) -> str:
    """What an interval of a difference says about a claim: a key of `VERDICTS`.

    Args:
        low: Lower end; NaN, where nothing was measured, decides nothing.
        high: Upper end.
        more: Whether the difference is said to be above zero, or below.

    Example:
        >>> verdict(-2.0, -1.0, more=False), verdict(-2.0, -1.0, more=True), verdict(-2.0, 1.0, more=True)
        ('holds', 'contradicted', 'undecided')
    """
    if not (low > 0 or high < 0):
        return "undecided"
    return "holds" if (low > 0) == more else "contradicted"


def in_words(judged: pd.DataFrame) -> str:
    """Sentences about a table of `judge`, one a verdict that was reached, with the numbers."""
    sentences = []
    for name, intro in VERDICTS.items():
        found = judged[judged["verdict"] == name]
        if len(found):
            parts = [f"{row.claim} ({interval_text(row)})" for row in found.itertuples()]
            sentences.append(f"{intro} ({len(found)} of {len(judged)}): {'; '.join(parts)}.")
    return "\n".join(sentences)


def interval_text(row: object) -> str:
    """`mean [low, high]` of a row, each to three digits."""
    return f"{row.mean:.3g} [{row.low:.3g}, {row.high:.3g}]"
