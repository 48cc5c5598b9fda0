"""What a comparison says, in sentences that are made of its numbers and of nothing else.

Two methods differ *surely* in a metric if the bootstrap interval of their difference on the same samples
excludes zero; otherwise it stays undecided, and with fewer than `LEAST` samples everything does.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from dragstudy.metrics.claims import Claim, verdict
from dragstudy.metrics.comparison_tables import paired
from dragstudy.metrics.intervals import DO_NOTHING, bootstrap_interval
from dragstudy.metrics.mean_distance import PROTOCOLS

PLAIN = (DO_NOTHING, "warp", "bidirectional-warp")  # rows without a trained network
LEAST = 6  # with 5 it happens in 2 of 2^5 cases, more than 5 %, that equals differ to the same side in all
BAR = "annotation"  # the mean distance of no edit at all
MORE = {  # what the conclusions are drawn from, and whether more of it is better
    "landmark_distance_68": False,
    "lpips_alex_edit": False,
    "psnr_edit": True,
}
NAMES = {
    "landmark_distance_68": "landmark distance in px",
    "lpips_alex_edit": "LPIPS to the true edit",
    "psnr_edit": "PSNR to the true edit in dB",
}
_PREFIX = "mean_distance_"
_STANDS = {"holds": "ahead", "contradicted": "behind", "undecided": "undecided"}


def standings(frame: pd.DataFrame, baseline: str, metric: str, *, seed: int = 0) -> pd.DataFrame:
    """Where every method stands against a baseline.

    Args:
        frame: What `comparison.compare` gave.
        baseline: Name of a method in it.
        metric: A key of `MORE`.
        seed: Of the resamples.

    Returns:
        A frame of one row a method: `mean`, `low`, `high` of its difference to the baseline on `n` samples
        that both have, and `stands`: `"ahead"`, `"behind"` or `"undecided"`.
    """
    table = paired(frame, metric, seed=seed)
    table = table[table["baseline"] == baseline].set_index("method")
    stands = [
        _STANDS[verdict(row.low, row.high, more=MORE[metric])] if row.n >= LEAST else "undecided"
        for row in table.itertuples()
    ]
    return table[["n", "mean", "low", "high"]].assign(stands=stands)


def against(frame: pd.DataFrame, baseline: str, metric: str, *, seed: int = 0) -> str:
    """`standings` of the rows with networks in one sentence."""
    table = standings(frame, baseline, metric, seed=seed)
    table = table[[name not in PLAIN for name in table.index]]
    parts = []
    for stands, rows in table.groupby("stands", sort=False):
        listed = [f"{name} ({row['mean']:+.3g})" for name, row in rows.iterrows()]
        parts.append(f"{stands}: {', '.join(listed)}")
    return f"Against {baseline}, {NAMES[metric]}: " + ("; ".join(sorted(parts)) or "nothing to compare") + "."


def against_warp(frame: pd.DataFrame, *, seed: int = 0) -> str:
    """Which rows with networks lose to a plain warp, and whether any wins, over all metrics of `MORE`."""
    tables = {metric: standings(frame, "warp", metric, seed=seed)["stands"] for metric in MORE}
    stands = pd.DataFrame(tables)
    stands = stands[[name not in PLAIN for name in stands.index]]
    lost, won = (stands == "behind").sum(axis=1), (stands == "ahead").sum(axis=1)
    text = f"{len(stands)} rows with networks were held against a plain warp in {len(MORE)} metrics. "
    everywhere = list(stands.index[lost == len(MORE)])
    somewhere = list(stands.index[(lost > 0) & (lost < len(MORE))])
    text += f"Surely behind it in all of them: {', '.join(everywhere) or 'none'}; "
    text += f"in some: {', '.join(somewhere) or 'none'}. "
    ahead = []
    for name in stands.index[won > 0]:
        metrics = [NAMES[metric] for metric in MORE if stands.loc[name, metric] == "ahead"]
        ahead.append(f"{name} ({', '.join(metrics)})")
    return text + f"Surely ahead of it in any: {'; '.join(ahead) or 'none'}."


def protocol_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean distance of every method in every protocol, averaged as that protocol does.

    Args:
        frame: What `comparison.compare` gave: a `mean_distance_...` a protocol, means of a sample's drags.

    Returns:
        A frame whose index is the methods and whose columns are the protocols that have any number; samples
        that lack one (no mask, no picture) do not count.
    """
    names = [name.removeprefix(_PREFIX) for name in frame.columns if name.startswith(_PREFIX)]
    found: dict[str, dict[str, float]] = {}
    for name in names:
        for method, rows in frame.groupby("method", sort=False):
            known = rows[rows[_PREFIX + name].notna()]
            pairs = name in PROTOCOLS and PROTOCOLS[name].average == "pairs"
            weights = known["drags"].to_numpy(float) if pairs else np.ones(len(known))
            values = known[_PREFIX + name].to_numpy(float)
            mean = float(np.average(values, weights=weights)) if len(known) else float("nan")
            found.setdefault(name, {})[method] = mean
    table = pd.DataFrame(found).dropna(axis=1, how="all").rename_axis("method")
    return table.round(6)  # what differs by the last bits of a sum does not differ


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between the orders that two columns give the methods: 1 the same, -1 turned round.

    Args:
        table: What `protocol_table` gave, or other columns where less is better; NaN are left out.
    """
    columns = list(table.columns)
    taus = pd.DataFrame(np.eye(len(columns)), columns, columns)
    for one in columns:
        for other in columns:
            both = table[[one, other]].dropna() if one != other else None
            if both is not None:
                taus.loc[one, other] = kendalltau(both[one], both[other]).statistic
    return taus


def protocols_in_words(table: pd.DataFrame) -> str:
    """Which method each protocol puts first and last, and how many are better there than no edit at all.

    To two decimals; what is the same to these is named together.

    Args:
        table: What `protocol_table` gave, with a row for doing nothing.
    """
    sentences = []
    for name in table.columns:
        values = table[name].dropna().round(2)
        edits = values.drop(DO_NOTHING, errors="ignore")
        if name == BAR or not len(edits):
            continue
        near, far = (", ".join(edits.index[edits == end]) for end in (edits.min(), edits.max()))
        text = f"{name}: first {near} ({edits.min():.2f}), last {far} ({edits.max():.2f})"
        if DO_NOTHING in values:
            better = int((edits < values[DO_NOTHING]).sum())
            text += f"; {better} of {len(edits)} edits are below do-nothing's {values[DO_NOTHING]:.2f}"
        sentences.append(text)
    return "\n".join(f"{text}." for text in sentences)


def table_claims(
    paper: pd.DataFrame, method: str, metrics: Mapping[str, str], names: Mapping[str, str]
) -> list[Claim]:
    """What a paper's table says of one method and each other that has a row here, as claims to be judged.

    Args:
        paper: What `published.paper_table` gave: columns `method`, `row` (our name) and numbers.
        method: Name of the row, in our words, that is compared with the others.
        metrics: By the paper's column, ours.
        names: By the paper's column, in words.

    Returns:
        A claim for each other row and column; where both numbers are the same there is none.
    """
    rows = paper.dropna(subset=["row"]).set_index("row")
    claims = []
    for other in rows.index.drop(method):
        for column, metric in metrics.items():
            first, second = rows.loc[method, column], rows.loc[other, column]
            if first != second:
                comparison = "more" if first > second else "less"
                text = f"{method} has {comparison} {names[column]} than {other}, {first:g} against {second:g}"
                claims.append(Claim(text, method, other, metric, more=bool(first > second)))
    return claims


def trade_off(frame: pd.DataFrame, metric: str, *, seed: int = 0) -> pd.DataFrame:
    """Quality against time: means of each method, and who is on the front.

    Args:
        frame: What `comparison.compare` gave.
        metric: A key of `MORE`.
        seed: Of the resamples.

    Returns:
        A frame of one row a method: `seconds`, the median of an edit; `mean`, `low`, `high` and `n` of the
        metric; `front`, whether no method is as quick and better, or as good and quicker.
    """
    rows = {}
    for method, edits in frame.groupby("method", sort=False):
        values = edits.groupby("key", sort=False)[metric].mean()
        chance = torch.Generator().manual_seed(seed)
        mean, low, high = bootstrap_interval(values, generator=chance)
        rows[method] = {"seconds": edits["seconds"].median(), "n": int(values.notna().sum())}
        rows[method] |= {"mean": mean, "low": low, "high": high}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").astype({"n": int})
    table["front"] = pareto_front(table["seconds"], -table["mean"] if MORE[metric] else table["mean"])
    return table


def pareto_front(first: Sequence[float], second: Sequence[float]) -> list[bool]:
    """Which points no other is better than, if less of both is better; a point with NaN is none.

    Example:
        >>> pareto_front([1, 2, 3, 3], [5, 3, 4, 1])
        [True, True, False, True]
    """
    points = np.column_stack([first, second]).astype(float)
    found = []
    for point in points:
        others = (points <= point).all(axis=1) & (points < point).any(axis=1)
        found.append(bool(not np.isnan(point).any() and not others.any()))
    return found
