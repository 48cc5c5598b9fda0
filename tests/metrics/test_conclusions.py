"""The sentences about a comparison: each follows from numbers, and turns round when they do."""

import numpy as np
import pandas as pd
import pytest

from dragstudy.metrics import conclusions
from dragstudy.metrics.published import paper_table

METRICS = list(conclusions.MORE)


def frame(values, count=6, **columns):
    """Rows of methods whose metrics are those of do-nothing plus a number, on the same samples."""
    rows = []
    for method, shift in values.items():
        for k in range(count):
            given = {name: 10.0 + k + (shift if conclusions.MORE[name] else -shift) for name in METRICS}
            rows.append({"method": method, "key": f"k{k}", "seed": 0, "error": "", "drags": 1, **given})
    return pd.DataFrame(rows).assign(**columns)


def test_who_is_ahead_and_who_behind_in_every_metric():
    made = frame({"do nothing": 0.0, "warp": 3.0, "good": 5.0, "bad": 1.0})
    for metric in METRICS:
        stands = conclusions.standings(made, "warp", metric)["stands"]
        assert stands.to_dict() == {"do nothing": "behind", "good": "ahead", "bad": "behind"}
    text = conclusions.against_warp(made)
    assert text.startswith("2 rows with networks")
    assert "behind it in all of them: bad;" in text and "ahead of it in any: good (" in text
    assert "none" not in text.split("in some")[0]


def test_few_samples_and_differences_of_either_sign_decide_nothing():
    few = frame({"warp": 3.0, "good": 5.0}, count=5)
    mixed = frame({"warp": 3.0, "good": 3.0})
    mixed.loc[mixed["method"] == "good", METRICS[0]] += [1, -1, 1, -1, 1, -1]
    for made in (few, mixed):
        assert conclusions.standings(made, "warp", METRICS[0]).loc["good", "stands"] == "undecided"
    assert "in any: none" in conclusions.against_warp(few)
    assert "undecided: good (" in conclusions.against(mixed, "warp", METRICS[0])


def test_a_sentence_leaves_out_rows_without_networks():
    text = conclusions.against(frame({"do nothing": 0.0, "warp": 1.0, "x": 2.0}), "do nothing", METRICS[0])
    assert text == "Against do nothing, landmark distance in px: ahead: x (-2)."


def test_protocols_average_over_drags_or_over_samples():
    made = frame({"do nothing": 0.0, "x": 0.0}, count=2)
    made["drags"] = [1, 3, 1, 3]
    for name in ("dragdiffusion", "regiondrag"):
        made[f"mean_distance_{name}"] = [4.0, 4.0, 1.0, 2.0]
    made["mean_distance_draglora"] = np.nan
    table = conclusions.protocol_table(made)
    assert list(table.columns) == ["dragdiffusion", "regiondrag"]
    assert table.loc["x", "dragdiffusion"] == 1.75 and table.loc["x", "regiondrag"] == 1.5
    text = conclusions.protocols_in_words(table)
    assert text.splitlines()[0] == (
        "dragdiffusion: first x (1.75), last x (1.75); 1 of 1 edits are below do-nothing's 4.00."
    )


def test_two_orders_agree_or_are_turned_round():
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0], "c": [3.0, 2.0, 1.0]})
    taus = conclusions.agreement(table)
    assert taus.loc["a", "b"] == pytest.approx(1) and taus.loc["a", "c"] == pytest.approx(-1)


def test_the_papers_table_becomes_claims():
    metrics, names = {"lpips_edit": "lpips_alex_edit"}, {"lpips_edit": "LPIPS"}
    claims = conclusions.table_claims(paper_table("instantdrag-table-1"), "instantdrag", metrics, names)
    assert {claim.baseline: claim.more for claim in claims} == {
        "dragdiffusion": True,
        "dragondiffusion": False,
        "sdedrag": False,
    }
    assert claims[0].text == "instantdrag has more LPIPS than dragdiffusion, 0.224 against 0.216"


def test_the_front_is_made_of_what_nothing_beats():
    made = frame({"do nothing": 0.0, "warp": 1.0, "slow": 2.0, "worse": 0.5})
    made["seconds"] = made["method"].map({"do nothing": 0.0, "warp": 0.1, "slow": 5.0, "worse": 6.0})
    for metric in METRICS:
        table = conclusions.trade_off(made, metric)
        assert table["front"].to_dict() == {"do nothing": True, "warp": True, "slow": True, "worse": False}
        assert (table["n"] == 6).all() and (table["low"] <= table["mean"]).all()
    assert conclusions.pareto_front([1, np.nan], [1, 0]) == [True, False]
