"""Numbers that are there already."""

import json

import pandas as pd
import pytest

from dragstudy.metrics.published import PAPERS, RESULTS, paper_table, published_comparison
from dragstudy.metrics.rows import ROWS


def test_a_comparison_that_was_kept_says_what_it_is(tmp_path):
    assert published_comparison("waves", tmp_path) is None
    folder = tmp_path / "waves"
    folder.mkdir()
    rows = pd.DataFrame({"method": ["a", "a", "b"], "key": ["x", "y", "x"], "seed": 0, "psnr": [1.0, 2, 3]})
    rows.to_parquet(folder / "rows.parquet")
    (folder / "manifest.json").write_text(json.dumps({"commit": "0123456789", "dirty": True}))
    kept = published_comparison("waves", tmp_path)
    assert kept.label == "waves: 2 samples, 2 rows, commit 0123456 with changes"
    assert len(kept.rows) == 3 and kept.sets.empty
    part = rows.iloc[:2].assign(psnr=[1.0, 2.5])
    said = "2 were kept, 1 with the same numbers; numbers that differ do so by 20 % (median)."
    assert kept.agreement(part).endswith(said)


def test_the_papers_tables_name_rows_that_exist():
    for path in PAPERS.glob("*.csv"):
        table = paper_table(path.stem)
        assert len(table) and set(table.get("row", pd.Series(dtype=str)).dropna()) <= set(ROWS)
    with pytest.raises(ValueError, match="must be one of .*instantdrag-table-1"):
        paper_table("table-2")


def test_what_is_committed_can_be_read():
    for path in RESULTS.glob("*/rows.parquet"):
        kept = published_comparison(path.parent.name)
        assert set(kept.rows["method"]) <= set(ROWS) and kept.manifest["benchmark"]
