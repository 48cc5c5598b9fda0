"""Claims about trainings: a difference must hold over pairs and over seeds."""

import numpy as np
import pandas as pd
import pytest

from dragstudy.metrics.claims import Claim, judge
from dragstudy.metrics.seeded_claims import judge_trainings, seeded_difference


def measured(shifts: list[float], noise: float = 0.5, pairs: int = 60) -> pd.DataFrame:
    """Two kinds of training; by seed, `new` has so much more than `old` on average, and pairs differ much."""
    numbers = np.random.default_rng(0)
    rows = []
    for seed, shift in enumerate(shifts):
        hard = 10 * numbers.random(pairs)
        for method, more in (("old", 0.0), ("new", shift)):
            values = hard + more + noise * numbers.standard_normal(pairs)
            rows += [
                {"method": method, "seed": seed, "key": f"{k}", "epe": value}
                for k, value in enumerate(values)
            ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("shifts", "more", "expected"),
    [
        ([1.0, 1.2, 0.8], True, "holds"),
        ([1.0, 1.2, 0.8], False, "contradicted"),
        ([-1.0, -1.2, -0.8], False, "holds"),
        ([3.0, 3.0, -0.6], True, "undecided"),  # one training went the other way
        ([1.0], True, "undecided"),  # one seed decides nothing
        ([0.0, 0.0, 0.0], True, "undecided"),
    ],
)
def test_seeds_must_agree(shifts, more, expected):
    (row,) = judge_trainings(measured(shifts), [Claim("text", "new", "old", "epe", more)]).itertuples()
    assert row.verdict == expected and (row.n, row.seeds) == (60, len(shifts))
    assert row.low <= row.mean <= row.high


def test_the_interval_is_wider_than_that_over_pairs_where_seeds_differ():
    frame = measured([0.2, 1.0, 1.8], noise=0.1)
    claim = Claim("text", "new", "old", "epe", True)
    (seeded,), (plain,) = (function(frame, [claim]).itertuples() for function in (judge_trainings, judge))
    assert seeded.mean == pytest.approx(plain.mean, abs=1e-6)
    assert seeded.high - seeded.low > 5 * (plain.high - plain.low)
    assert list(judge(frame, [claim]).columns) == [
        name for name in judge_trainings(frame, [claim]).columns if name != "seeds"
    ]


def test_pairs_without_a_number_do_not_count():
    frame = measured([1.0, 1.0, 1.0])
    frame.loc[(frame["key"] == "0") & (frame["seed"] < 2), "epe"] = np.nan
    frame.loc[frame["key"] == "1", "epe"] = np.nan
    found = seeded_difference(frame, "new", "old", "epe")
    assert found["n"] == 59 and np.isfinite([found["mean"], found["low"], found["high"]]).all()
    nothing = judge_trainings(frame.assign(epe=np.nan), [Claim("text", "new", "old", "epe", True)]).iloc[0]
    assert nothing["n"] == nothing["seeds"] == 0 and nothing["verdict"] == "undecided"


def test_tables_that_cannot_be_compared_are_refused():
    frame = measured([1.0, 1.0])
    with pytest.raises(ValueError, match="method must be one of .*, got 'none'"):
        seeded_difference(frame, "none", "old", "epe")
    with pytest.raises(ValueError, match="two rows of one method, seed and key"):
        seeded_difference(pd.concat([frame, frame]), "new", "old", "epe")
