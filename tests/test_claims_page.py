"""Claims of all notebooks on one page."""

import shutil

import pandas as pd
import pytest

from dragstudy import runs
from dragstudy._claims import COLUMNS
from dragstudy._results import publish, write_index
from dragstudy.metrics.claims import Claim, judge

from .metrics.test_claims import drifting, measured

CLAIMS = [
    Claim("higher is better", "high", "low", "lpips", more=True),
    Claim("lower is better", "high", "low", "lpips", more=False),
    Claim("other | noise", "same", "low", "lpips", more=True),
]


@pytest.fixture
def judged() -> pd.DataFrame:
    return judge(measured(**drifting()), CLAIMS)


def published(clone, notebook, *calls) -> None:
    """A finished run of a notebook, with what it claims, published."""
    folder = clone / "results" / "runs" / notebook / "tiny" / "0"
    shutil.rmtree(folder, ignore_errors=True)
    params = {"profile": "tiny", "out_dir": str(folder)}
    run = runs.start(notebook, params)
    run.manifest |= {"id": f"{notebook}/tiny/0", "seconds": 1.0, "commit": "abcdef1234"}
    for args, options in calls:
        run.claims(*args, **options)
    run.finish()
    publish(folder, clone / "results")


def test_claims_have_fixed_columns_and_stay_in_memory_without_a_folder(judged):
    run = runs.start("10_a", {})
    frame = run.claims("a-claims", judged, "Paper, Fig. 1", seeds=3)
    assert list(frame.columns) == COLUMNS and set(frame["seeds"]) == {3} and len(frame) == 3
    assert run.claimed["a-claims"] is frame and list(frame["verdict"]) == list(judged["verdict"])
    both = run.claims("b", {"one": judged, "two": judged.assign(seeds=5)}, ["Fig. 1", "Fig. 2", "Sec. 3"])
    assert len(both) == 6 and both.loc[0, "claim"] == "higher is better (one)"
    assert list(both["paper"]) == ["Fig. 1", "Fig. 2", "Sec. 3"] * 2
    assert list(both["seeds"]) == [1, 1, 1, 5, 5, 5]
    assert run.claims("c", {}, "Fig. 1").empty and run.claims("d", pd.DataFrame(), "Fig. 1").empty
    part = run.claims("f", judged.assign(n=[5, 0, 7]), ["Fig. 1", "Fig. 2", "Sec. 3"])
    assert list(part["paper"]) == ["Fig. 1", "Sec. 3"], "nothing was measured for the second"
    for wrong, sentence in (
        ((judged.drop(columns="low"), "Fig. 1"), "need the columns low"),
        ((judged, " "), "needs the paper's evidence"),
        ((judged.assign(verdict="yes"), "Fig. 1"), "a verdict must be one of holds, .* got \\['yes'\\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            run.claims("e", *wrong)
    with pytest.raises(ValueError, match="an id has lower-case"):
        run.claims("E", judged, "Fig. 1")


def test_the_page_collects_them_in_the_order_of_the_notebooks(clone, write_notebook, judged):
    for name in ("10_a", "11_b", "12_c"):
        write_notebook(name, 'profile: str = "smoke"')
    published(clone, "11_b", (("b-claims", judged[:1], "Other, Fig. 4"), {}))
    published(clone, "10_a", (("a-claims", judged, "Paper, Fig. 1"), {"seeds": 3}))
    published(clone, "12_c", (("c-claims", {}, "Nothing"), {}))
    index = write_index(clone).read_text()
    page = (clone / "results" / "CLAIMS.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(lines) == 4 and [line.split("[")[-1][:4] for line in lines] == ["10_a"] * 3 + ["11_b"]
    first = judged.iloc[0]
    number = (
        f"lpips: high - low = {first['mean']:.3g} [{first['low']:.3g}, {first['high']:.3g}], said to be > 0"
    )
    assert lines[0].startswith(f"| higher is better | Paper, Fig. 1 | {number} | 40 | 3 | agrees |")
    assert "| contradicts |" in lines[1] and "other \\| noise" in lines[2] and "| undecided |" in lines[2]
    assert "## Claims" in index and "[All 4 claims](CLAIMS.md)" in index
    assert "| [10_a](../notebooks/10_a.ipynb) | 1 | 1 | 1 | tiny | abcdef1 |" in index
    assert index.index("## Claims") < 1200 and "12_c" not in page
    assert write_index(clone).read_text() == index


def test_claims_that_a_notebook_no_longer_makes_go(clone, write_notebook, judged):
    write_notebook("10_a", 'profile: str = "smoke"')
    published(clone, "10_a", (("a-claims", judged, "Paper, Fig. 1"), {}))
    write_index(clone)
    published(clone, "10_a")
    assert "Claims" not in write_index(clone).read_text() and not (clone / "results" / "CLAIMS.md").exists()
    published(clone, "10_a", (("a-claims", judged, "Paper, Fig. 1"), {}))
    with pytest.raises(ValueError, match="10_a and 11_b both make claims/a-claims"):
        published(clone, "11_b", (("a-claims", judged, "Paper, Fig. 1"), {}))
