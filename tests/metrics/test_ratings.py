"""Ratings: their order, their file, and what they come to."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dragstudy.data.samples import Sample
from dragstudy.drags import DragInstruction
from dragstudy.metrics.ratings import (
    COLUMNS,
    CRITERIA,
    RatedEdit,
    RatingFile,
    edits_to_rate,
    order_for,
    rating_table,
)

PICTURE = Image.new("RGB", (16, 16), (90, 120, 60))
DRAGS = DragInstruction([[2.0, 3.0]], [[9.0, 4.0]])
EDITS = [RatedEdit(key, method, PICTURE, DRAGS, PICTURE) for key in "abcd" for method in ("x", "y")]


class Two:
    """A benchmark of one picture under two names."""

    name, ids = "two", ("a", "b")

    def sample(self, id):
        return Sample(id, PICTURE, DRAGS)


def marks(value):
    return dict.fromkeys(CRITERIA, value)


def test_the_order_is_the_raters_own_and_the_same_each_time():
    names = [[(edit.key, edit.method) for edit in order_for(EDITS, rater)] for rater in ("ann", "ann", "ben")]
    assert names[0] == names[1] != names[2]
    assert sorted(names[0]) == sorted(names[2]) == [(edit.key, edit.method) for edit in EDITS]


def test_each_rating_is_on_the_disk_at_once_and_the_last_of_an_edit_counts(tmp_path):
    path = tmp_path / "new" / "ratings.csv"
    ratings = RatingFile(path)
    assert ratings.read().empty and not path.exists()
    ratings.add("ann", EDITS[0], marks(2))
    ratings.add("ben", EDITS[0], marks(5))
    ratings.add("ann", EDITS[1], marks(3))
    ratings.add("ann", EDITS[0], marks(4))
    again = RatingFile(path)
    assert len(path.read_text().splitlines()) == 5 and list(again.read().columns) == list(COLUMNS)
    assert again.marks("ann") == {("a", "x"): marks(4), ("a", "y"): marks(3)}
    assert again.marks("ben") == {("a", "x"): marks(5)} and again.marks("nobody") == {}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_a_crash_left_unfinished_is_dropped(tmp_path, cut):
    path = tmp_path / "ratings.csv"
    ratings = RatingFile(path)
    ratings.add('ann, the "first"', EDITS[0], marks(1))
    ratings.add('ann, the "first"', EDITS[1], marks(2))
    path.write_bytes(path.read_bytes()[:-cut])
    assert RatingFile(path).marks('ann, the "first"') == {("a", "x"): marks(1)}
    ratings.add('ann, the "first"', EDITS[2], marks(3))
    assert list(RatingFile(path).read()["instruction"]) == [1, 3]


def test_other_files_and_other_marks_are_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no file of ratings"):
        RatingFile(path)
    ratings = RatingFile(tmp_path / "ratings.csv")
    for wrong in (marks(0), marks(6), marks(2.0), marks(True), {"overall": 3}, {}, marks(3) | {"taste": 3}):
        with pytest.raises(ValueError, match="from 1 to 5"):
            ratings.add("ann", EDITS[0], wrong)
    assert not ratings.path.exists()


def test_the_edits_of_a_comparison_but_not_those_that_raised(tmp_path):
    for name in ("a", "b"):
        for method in ("do-nothing", "x"):
            if (name, method) != ("b", "x"):
                file = tmp_path / "edits" / method / f"{name}-0.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                PICTURE.save(file)
    found = edits_to_rate(Two(), tmp_path, ["do nothing", "x"])
    assert [(edit.key, edit.method) for edit in found] == [
        ("a", "do nothing"),
        ("a", "x"),
        ("b", "do nothing"),
    ]


def test_means_are_over_samples_and_raters_are_averaged_first():
    rows = [("ann", "a", "x", 1), ("ben", "a", "x", 3), ("ann", "b", "x", 5), ("ann", "a", "y", 4)]
    frame = pd.DataFrame(rows, columns=["rater", "key", "method", "overall"])
    table = rating_table(frame.assign(instruction=3, identity=2)).set_index(["method", "metric"])
    assert table.loc[("x", "overall"), "mean"] == 3.5 and table.loc[("x", "overall"), "n"] == 2
    assert (table.loc[("x", "overall"), ["low", "high"]] == [2, 5]).all()
    assert table.loc[("x", "overall"), "raters"] == 2 and table.loc[("y", "overall"), "raters"] == 1
    assert np.allclose(table.loc[("x", "identity"), ["mean", "low", "high"]].astype(float), 2)
