"""Rows that a larger run measured, in place of a smaller one's."""

import json

import numpy as np
import pandas as pd
import pytest

from dragstudy import runs
from dragstudy._kept import Agreement, agreement
from dragstudy._record import Run
from dragstudy._results import publish

WHOLE = pd.DataFrame({"method": list("aabb"), "key": list("xyxy"), "lpips": [0.1, np.nan, 0.3, 0.4]})


def publish_rows(frame, tmp_path, **params):
    """A finished run with these rows, published; the folder of its kept rows."""
    run = runs.start("11_part", {"steps": 20, "out_dir": str(tmp_path / "run"), **params})
    shown = run.rows("part", frame, by=["method", "key"])
    run.finish()
    publish(tmp_path / "run", tmp_path / "results")
    pd.testing.assert_frame_equal(shown, frame.reset_index(drop=True))
    return tmp_path / "results" / "rows" / "11_part"


def test_a_smaller_run_shows_the_kept_rows_and_says_how_its_own_agree(tmp_path, capsys):
    kept = publish_rows(WHOLE, tmp_path, kept=False, profile="full")
    part = WHOLE.iloc[[0, 1, 3]].assign(lpips=[0.1, np.nan, 0.5])
    run = Run({"params": {"steps": 20}}, kept=kept)
    pd.testing.assert_frame_equal(run.rows("part", part, by=["method", "key"]), WHOLE)
    said = capsys.readouterr().out
    assert "4 rows of the profile full" in said and "steps" not in said
    assert "Of the 3 measured here they have 3, 2 with the same numbers; numbers" in said
    other = Run({"params": {"steps": 3, "kept": True}}, kept=kept)
    other.rows("part", part.assign(key=["x", "y", "z"]), by=["method", "key"])
    assert "with steps=20. Of the 3 measured here they have 2, 2 with" in capsys.readouterr().out


def test_without_kept_rows_those_measured_here_go_on(tmp_path, capsys):
    for kept in (None, tmp_path):
        part = WHOLE.iloc[2:]
        shown = Run({"params": {}}, kept=kept).rows("part", part, by=["method", "key"])
        pd.testing.assert_frame_equal(shown, part.reset_index(drop=True))
    assert capsys.readouterr().out == ""
    assert runs.start("11_part", {"kept": False}).kept is None
    assert runs.start("11_part", {"kept": True}).kept.name == "11_part"


def test_only_a_run_that_shows_its_own_rows_replaces_the_kept_ones(tmp_path):
    kept = publish_rows(WHOLE, tmp_path, kept=False)
    publish_rows(WHOLE.iloc[:1], tmp_path, kept=True)  # its own `kept` lies in the clone, and has no "part"
    assert len(pd.read_parquet(kept / "part.parquet")) == 4
    publish_rows(WHOLE.iloc[:2], tmp_path, kept=False)
    assert len(pd.read_parquet(kept / "part.parquet")) == 2


def test_a_run_that_extends_adds_its_rows_and_keeps_both(tmp_path, capsys, monkeypatch):
    kept = publish_rows(WHOLE, tmp_path, kept=False, seeds=[0])
    other = WHOLE.iloc[:1].assign(lpips=0.7, key="z")
    other.to_parquet(kept / "other.parquet")  # an id that the second run does not have
    monkeypatch.setattr("dragstudy._record.ROOT", tmp_path)
    params = {"kept": False, "extend": True, "seeds": [1], "out_dir": str(tmp_path / "more")}
    run = runs.start("11_part", params)
    part = pd.DataFrame({"lpips": [0.5, 0.2], "key": ["y", "z"], "method": ["a", "c"]})
    shown = run.rows("part", part, by=["method", "key"])
    assert "they have 1, 0 with the same" in (said := capsys.readouterr().out) and "5 in all" in said
    want = pd.DataFrame({"method": list("aabbc"), "key": list("xyxyz"), "lpips": [0.1, 0.5, 0.3, 0.4, 0.2]})
    pd.testing.assert_frame_equal(shown, want)
    pd.testing.assert_frame_equal(run.rows("part", part.iloc[:0], by=["method", "key"]), WHOLE)
    run.rows("part", part, by=["method", "key"])
    with pytest.raises(ValueError, match="kept rows have the columns method, key, lpips, not method, key"):
        run.rows("part", part[["method", "key"]], by=["method", "key"])
    run.finish()
    publish(tmp_path / "more", tmp_path / "results")
    pd.testing.assert_frame_equal(pd.read_parquet(kept / "part.parquet"), want)
    record = json.loads((kept / "part.json").read_text())
    assert "4 rows of the profile" in record["message"] and record["run"]["params"]["seeds"] == [1]
    assert (kept / "other.parquet").is_file()
    Run({"params": {"seeds": [0]}}, kept=kept).rows("part", part, by=["method", "key"])
    assert "and earlier, with seeds=[1]" in capsys.readouterr().out


def test_times_do_not_count_and_rows_need_names():
    here = WHOLE.assign(seconds=1.0, count=[1, 2, 3, 4])
    there = WHOLE.assign(seconds=2.0, count=[1, 2, 3, 5])
    assert agreement(here, there, ["method", "key"]) == Agreement(4, 3, 0.2)
    with pytest.raises(ValueError, match="the columns method do not tell rows apart"):
        agreement(here, there, ["method"])


def test_a_table_without_rows_has_none_in_common():
    kept = pd.DataFrame({"seed": [0], "epe": [1.0]})
    agreed = agreement(pd.DataFrame(columns=["seed", "epe"]), kept, ["seed"])
    assert (agreed.found, agreed.same) == (0, 0)


def test_how_far_numbers_of_another_machine_are_off():
    there = WHOLE.assign(lpips=[0.1, np.nan, 0.3 * (1 + 1e-9), 0.4])
    found = agreement(WHOLE, there, ["method", "key"])
    assert (
        found.same == found.found == 4 and np.isnan(found.apart) and str(found) == "4 with the same numbers"
    )
    found = agreement(WHOLE, WHOLE.assign(lpips=[0.1, 0.2, 0.3, 0.404]), ["method", "key"])
    assert (found.found, found.same) == (4, 2) and found.apart == pytest.approx((1 + 0.004 / 0.404) / 2)
    assert str(found).endswith("numbers that differ do so by 50 % (median)")
    assert agreement(WHOLE, WHOLE.assign(lpips=[np.inf, np.nan, 0.3, 0.4]), ["method", "key"]).apart == 1


def test_other_kept_rows_are_another_run(clone, write_notebook):
    parameters = """\
profile: str = "smoke"  # smoke: seconds
kept: bool = True  # show the rows of the full profile
out_dir: str = ""  # where the run writes"""
    write_notebook(
        "11_part", parameters, "from dragstudy import runs\nruns.start('11_part', globals()).finish()"
    )
    before = runs.execute("11_part", root=clone).folder
    assert runs.execute("11_part", root=clone).folder == before
    rows = clone / "results" / "rows" / "11_part"
    rows.mkdir(parents=True)
    WHOLE.to_parquet(rows / "part.parquet")
    assert runs.execute("11_part", root=clone).folder != before
    without = runs.execute("11_part", overrides={"kept": False}, root=clone).folder
    (rows / "part.parquet").unlink()
    assert runs.execute("11_part", overrides={"kept": False}, root=clone).folder == without
