"""The figures of trainings: what each draws."""

import pandas as pd

from dragstudy import plotting_trainings


def test_trainings_of_all_seeds_have_one_colour_and_one_name():
    rows = [
        {"method": name, "seed": seed, "step": step, "seconds": step * (1 + seed), "val_loss": 1 / step}
        for name in ("one", "other")
        for seed in (0, 1)
        for step in (1, 2, 3)
    ]
    across = {"step": "steps", "seconds": "seconds"}
    fig = plotting_trainings.seed_curves(pd.DataFrame(rows), across, "val_loss", "method", dashed=["other"])
    assert [ax.get_xlabel() for ax in fig.axes] == list(across.values())
    for ax in fig.axes:
        assert len(ax.lines) == 4
        assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--", "--"]
        assert len({line.get_color() for line in ax.lines}) == 2
    assert [text.get_text() for text in fig.axes[-1].get_legend().get_texts()] == ["one", "other"]
