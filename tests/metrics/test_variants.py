"""Variants of a method: same pairs, same noise, one row each, and the spread over seeds."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from dragstudy.images import load_image, to_tensor
from dragstudy.metrics.evaluate import landmark_drags, measure_edit
from dragstudy.metrics.fidelity import image_fidelity, saturation_change
from dragstudy.metrics.intervals import shares, summarize
from dragstudy.metrics.variants import (
    evaluate_variants,
    seed_spread,
    typical_pairs,
    variant_panels,
    variant_table,
)

from ..tiny import tiny_lightningdrag
from .test_evaluate import LPIPS, pairs

QUICK = {"num_inference_steps": 2, "lpips": LPIPS}


def editable(item) -> np.ndarray:
    return item["mask"][0].numpy()


def evaluated(variants, count: int = 2, **options):
    pipe = tiny_lightningdrag()
    return pipe, *evaluate_variants(pipe, pairs(count), variants, mask=editable, **QUICK | options)


def test_every_variant_starts_from_the_same_noise_and_has_its_own_row():
    variants = {"none": {"guidance_schedule": "none"}, "one": {"point_guidance_scale": 1.0}, "three": {}}
    _, frame, pictures = evaluated(variants)
    assert list(frame["method"]) == [*variants, "do nothing"] * 2
    assert list(pictures) == [(name, f"clip-{k}") for k in range(2) for name in variants]
    for k in range(2):
        assert torch.equal(pictures["none", f"clip-{k}"], pictures["one", f"clip-{k}"])
        assert not torch.equal(pictures["none", f"clip-{k}"], pictures["three", f"clip-{k}"])
    nothing = frame[frame["method"] == "do nothing"]
    assert (nothing[["saturation", "background_change", "seconds"]] == 0).all(axis=None)
    assert (nothing["fidelity"] == 1).all() and (frame["seconds"][frame["method"] != "do nothing"] > 0).all()


def test_a_row_is_what_the_pipeline_s_own_edit_measures():
    pipe, frame, pictures = evaluated({"edit": {}}, count=1, do_nothing=False)
    (item,), (row,) = pairs(1), frame.to_dict("records")
    made = pipe(
        item["source"],
        *landmark_drags(item),
        editable(item),
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
    )
    image, source = to_tensor(load_image(made.images[0])), item["source"][None]
    assert_close(pictures["edit", "clip-0"].float() / 255, image)
    expected = measure_edit(image, item, None, LPIPS)
    expected["fidelity"] = image_fidelity(image, source, model=LPIPS).item()
    expected["saturation"] = saturation_change(image, source, item["mask"][None]).item()
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, nan_ok=True), name


def test_seeds_have_rows_of_their_own_and_a_spread_in_common():
    _, frame, pictures = evaluated({"edit": {}}, seeds=(0, 5, 9))
    made = frame[frame["method"] == "edit"]
    assert list(made["seed"]) == [0, 5, 9] * 2
    assert (made.groupby("key")["spread"].nunique() == 1).all() and (made["spread"] > 0).all()
    first = pictures["edit", "clip-0"]
    assert first.shape == (3, 3, 64, 64) and first.dtype == torch.uint8
    expected = seed_spread(first.float() / 255, pairs(1)[0]["mask"][None])
    assert made["spread"].iloc[0] == pytest.approx(expected, rel=1e-5)
    _, single, _ = evaluated({"edit": {}}, count=1)
    assert single["spread"].isna().all()


def test_spread_is_the_deviation_inside_of_the_mask():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    images = 0.5 + torch.randn(4000, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 10 / 255
    images[..., 4:] *= 3
    assert seed_spread(images, mask) == pytest.approx(10, rel=0.02)
    assert seed_spread(images[:1].expand(3, -1, -1, -1), mask) == 0
    assert np.isnan(seed_spread(images, torch.zeros(1, 1, 8, 8)))


def test_panels_and_table_say_what_was_summed_up():
    rows = [
        {"method": method, "key": f"pair-{k}", "landmark_distance": factor * (k + 1), "lpips": 0.1 * factor}
        for method, factor in {"do nothing": 1.0, "edit": 0.5, "lost": float("nan")}.items()
        for k in range(4)
    ]
    frame = pd.DataFrame(rows)
    distance, lpips = variant_panels(frame, ["lpips"]).values()
    assert_close(distance.loc["edit", "mean"], shares(frame)["mean"].iloc[0])
    assert list(distance.index) == list(lpips.index) == ["edit", "lost"]
    assert_close(lpips["mean"].iloc[0], summarize(frame, metrics=["lpips"])["mean"][1])
    table = variant_table(frame, ["lpips"])
    assert table.loc["edit", "landmark share"] == "0.500 [0.500, 0.500]"
    assert table.loc["edit", "lpips"] == "0.050 [0.050, 0.050]"
    assert table.loc["lost", "lpips"] == table.loc["do nothing", "landmark share"] == ""
    assert list(table["faces found"].loc[["edit", "lost"]]) == [4, 0]


def test_typical_pairs_are_chosen_by_number():
    values = [4.0, 1.0, float("nan"), 3.0, 9.0, 2.0]
    rows = [{"method": "edit", "key": f"pair-{k}", "lpips": value} for k, value in enumerate(values)]
    frame = pd.DataFrame(rows + [{"method": "other", "key": "pair-2", "lpips": 0.0}])
    assert typical_pairs(frame, "edit", "lpips") == {"least": "pair-1", "median": "pair-3", "most": "pair-4"}
    with pytest.raises(ValueError, match="no pair of method 'missing' has 'lpips'"):
        typical_pairs(frame, "missing", "lpips")
