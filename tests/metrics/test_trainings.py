"""Trainings side by side: ranges over seeds, and differences with intervals over seeds and pairs."""

import numpy as np
import pandas as pd
import pytest

from dragstudy.metrics.seeded_claims import seeded_difference
from dragstudy.metrics.trainings import seed_ranges, training_margins


def frame() -> pd.DataFrame:
    numbers = np.random.default_rng(0)
    rows = [
        {"method": method, "seed": seed, "key": f"{key}", "epe": more + seed + numbers.random()}
        for method, more in (("old", 1.0), ("new", 0.0))
        for seed in range(3)
        for key in range(5)
    ]
    return pd.DataFrame(rows)


def test_a_range_goes_from_the_smallest_seed_to_the_largest():
    table = seed_ranges(frame(), ["method"], "epe")
    assert table["method"].tolist() == ["old", "new"] and (table["seeds"] == 3).all()
    each = frame().groupby(["method", "seed"])["epe"].mean()
    for row in table.itertuples():
        assert (row.low, row.high) == pytest.approx((each[row.method].min(), each[row.method].max()))
        assert row.mean == pytest.approx(each[row.method].mean())


def test_seeds_count_alike_however_many_pairs_they_have():
    table = seed_ranges(frame().iloc[:-4], ["method"], "epe").set_index("method")
    each = frame().iloc[:-4].groupby(["method", "seed"])["epe"].mean()
    assert table.loc["new", "mean"] == pytest.approx(each["new"].mean())


def test_margins_are_those_that_claims_are_judged_by():
    table = training_margins(frame(), "old", ["epe"], seed=3).set_index("method")
    assert (table.loc["old", ["mean", "low", "high"]] == 0).all()
    found = seeded_difference(frame(), "new", "old", "epe", seed=3)
    assert table.loc["new", ["mean", "low", "high", "n", "seeds"]].tolist() == [
        found[name] for name in ("mean", "low", "high", "n", "seeds")
    ]
    with pytest.raises(ValueError, match="method must be one of"):
        training_margins(frame(), "other", ["epe"])
