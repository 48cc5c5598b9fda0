"""Claims: the three verdicts, decided by the interval of paired differences alone, and told in words."""

import numpy as np
import pandas as pd
import pytest

from dragstudy.metrics.claims import VERDICTS, Claim, in_words, judge, verdict
from dragstudy.metrics.intervals import margins


def measured(**methods: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": name, "key": f"pair-{k}", "lpips": value}
            for name, values in methods.items()
            for k, value in enumerate(values)
        ]
    )


def drifting(count: int = 40) -> dict[str, list[float]]:
    """Two methods whose difference is sure only pair by pair, and one that differs by chance."""
    numbers = np.random.default_rng(0)
    base, noise = 10 * numbers.random(count), 0.1 * numbers.standard_normal(count)
    return {"low": list(base), "high": list(base + 0.3 + noise), "same": list(base + noise - noise.mean())}


@pytest.mark.parametrize(
    ("low", "high", "more", "expected"),
    [
        (0.1, 0.2, True, "holds"),
        (0.1, 0.2, False, "contradicted"),
        (-0.2, -0.1, True, "contradicted"),
        (-0.2, -0.1, False, "holds"),
        (-0.1, 0.2, True, "undecided"),
        (0.0, 0.0, True, "undecided"),
        (0.0, 0.2, True, "undecided"),
        (float("nan"), float("nan"), True, "undecided"),
    ],
)
def test_an_interval_decides_only_where_it_leaves_out_zero(low, high, more, expected):
    assert verdict(low, high, more=more) == expected and expected in VERDICTS


def test_claims_are_judged_by_the_difference_on_the_same_pairs():
    frame = measured(**drifting())
    claims = [
        Claim("higher", "high", "low", "lpips", more=True),
        Claim("lower", "high", "low", "lpips", more=False),
        Claim("turned", "low", "high", "lpips", more=False),
        Claim("other", "same", "low", "lpips", more=True),
    ]
    table = judge(frame, claims)
    assert list(table["verdict"]) == ["holds", "contradicted", "holds", "undecided"]
    expected = margins(frame, "low", metrics=("lpips",)).set_index("method").loc["high"]
    for name in ("mean", "low", "high", "n"):
        assert table.loc[0, name] == expected[name]
    assert table.loc[0, "difference"] == "lpips: high - low" and list(table["sign"][:2]) == ["> 0", "< 0"]


def test_pairs_that_lack_the_metric_in_either_do_not_count():
    values = drifting(8)
    values["high"][0] = values["low"][1] = float("nan")
    claim = Claim("higher", "high", "low", "lpips", more=True)
    assert judge(measured(**values), [claim])["n"].item() == 6
    single = measured(**{name: numbers[:1] for name, numbers in drifting(1).items()})
    assert judge(single, [claim])["verdict"].item() == "undecided"
    values["high"] = [float("nan")] * 8
    nothing = judge(measured(**values), [claim]).iloc[0]
    assert nothing["n"] == 0 and nothing["verdict"] == "undecided"


def test_words_say_every_claim_once_under_its_verdict():
    frame = measured(**drifting())
    names = {"first": ("high", "low", True), "second": ("high", "low", False), "third": ("same", "low", True)}
    claims = [Claim(name, *ends, "lpips", more=more) for name, (*ends, more) in names.items()]
    lines = in_words(judge(frame, claims)).splitlines()
    assert [line.split(" (")[0] for line in lines] == list(VERDICTS.values())
    assert all("(1 of 3)" in line and name in line for line, name in zip(lines, names, strict=True))
    assert in_words(judge(frame, claims[:1])).count("\n") == 0


@pytest.mark.parametrize(("method", "baseline"), [("none", "low"), ("low", "none")])
def test_a_claim_about_what_was_not_measured_is_refused(method, baseline):
    with pytest.raises(ValueError, match="must be one of .*, got 'none'"):
        judge(measured(**drifting(4)), [Claim("more", method, baseline, "lpips", more=True)])
