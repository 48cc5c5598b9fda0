"""Evaluation: a row for each pair and method, intervals that cover, margins on the same pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dragstudy.flow import forward_splat
from dragstudy.metrics.evaluate import (
    DO_NOTHING,
    METRICS,
    SINGLE_DRAGS,
    bar,
    bootstrap_interval,
    dragged_share,
    evaluate_edits,
    face_region,
    head_mask,
    interval_table,
    landmark_drags,
    margins,
    measure_edit,
    shares,
    single_drag,
    summarize,
)
from dragstudy.pipelines import WarpPipeline

from ..tiny import pair_batch, tiny_instantdrag


class Difference(nn.Module):
    """A distance that needs no weights, in LPIPS' place."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


LPIPS = Difference()


def pairs(count: int = 3) -> list[dict]:
    batch = pair_batch(count)
    items = [{name: value[k] for name, value in batch.items()} for k in range(count)]
    for k, item in enumerate(items):
        item["key"] = f"clip-{k}"
        item["target"] = forward_splat(item["source"][None], item["flow"][None].round())[0][0]
        item["target_landmarks"] = item["landmarks"] + 2
    return items


def truth(item, handles, targets, generator):
    return item["target"]


def noise(item, handles, targets, generator):
    return torch.rand(item["source"].shape, generator=generator)


# Rows


def test_each_pair_has_a_row_for_the_method_and_one_for_doing_nothing():
    frame = evaluate_edits(truth, pairs(), method="truth", lpips=LPIPS)
    assert list(frame.columns) == ["method", "key", "drags", *METRICS]
    assert sorted(zip(frame["method"], frame["key"], strict=True)) == sorted(
        (method, f"clip-{k}") for method in ("truth", DO_NOTHING) for k in range(3)
    )
    assert (frame["drags"] == 68).all() and frame["landmark_distance"].isna().all()
    best, still = (frame[frame["method"] == name] for name in ("truth", DO_NOTHING))
    assert (best["psnr"] > 45).all() and (best["ssim"] > 0.99).all() and (best["lpips"] < 0.01).all()
    assert (still["background_change"] == 0).all() and (still["seconds"] == 0).all()
    assert (still["psnr"] < 30).all() and (best["seconds"] > 0).all()


def test_a_pipeline_is_called_with_the_source_and_its_drags():
    pipe = WarpPipeline(working_area=64 * 64)
    frame = evaluate_edits(pipe, pairs(2), method="warp", lpips=LPIPS, do_nothing=False)
    item = pairs(2)[0]
    image = pipe(item["source"], *landmark_drags(item), output_type="pt").images[0]
    expected = measure_edit(image[None], item, lpips=LPIPS)
    assert len(frame) == 2 and frame.loc[0, "psnr"] == pytest.approx(expected["psnr"])


def test_options_reach_the_pipeline_and_the_seed_decides():
    def psnrs(**options) -> list[float]:
        options = {"num_inference_steps": 1, "lpips": LPIPS, "do_nothing": False} | options
        return evaluate_edits(pipe, pairs(1), **options)["psnr"].tolist()

    pipe = tiny_instantdrag()
    assert psnrs() == psnrs() != psnrs(seed=1)
    assert psnrs(num_inference_steps=2) != psnrs()


def test_every_pair_is_edited_with_the_same_seed():
    items = pairs(2)
    items[1] = items[0] | {"key": "again"}
    frame = evaluate_edits(noise, items, lpips=LPIPS, do_nothing=False)
    assert frame.loc[0, "psnr"] == frame.loc[1, "psnr"]


def test_landmarks_of_the_edit_are_measured_by_the_detector_that_is_given():
    item = pairs(1)[0]
    seen = []

    def detector(frame):
        seen.append(frame)
        return item["landmarks"].double().numpy()

    frame = evaluate_edits(truth, [item], lpips=LPIPS, detector=detector)
    assert frame["landmark_distance"].tolist() == pytest.approx([2 * 2**0.5] * 2)
    assert seen[0].dtype == np.uint8 and seen[0].shape == (64, 64, 3)


def test_background_is_what_neither_frame_s_person_covers():
    item = pairs(1)[0]
    changed = item["source"] + 0.5 * torch.maximum(item["mask"], item["target_mask"])
    assert measure_edit(changed[None].clamp(0, 1), item, lpips=LPIPS)["background_change"] == 0


def test_pairs_without_drags_are_left_out():
    items = pairs()
    items[1]["landmarks"] = torch.full((68, 2), torch.nan)
    frame = evaluate_edits(truth, items, lpips=LPIPS)
    assert set(frame["key"]) == {"clip-0", "clip-2"}
    empty = evaluate_edits(truth, items[1:2], lpips=LPIPS)
    assert empty.empty and list(empty.columns) == list(frame.columns)


def test_drags_are_landmarks_that_lie_in_both_frames():
    item = pairs(1)[0]
    item["landmarks"][0] = torch.tensor([-1.0, 5.0])
    item["target_landmarks"][1] = torch.tensor([5.0, 63.6])
    item["target_landmarks"][2] = torch.nan
    handles, targets = landmark_drags(item)
    assert handles.shape == targets.shape == (65, 2)
    handles, _ = landmark_drags(item, [2, 30])
    np.testing.assert_allclose(handles, item["landmarks"][[30]].double())
    wide = item | {"source": torch.zeros(3, 10, 90)}
    wide["landmarks"] = wide["target_landmarks"] = torch.tensor([[80.0, 5.0], [5.0, 80.0]])
    assert landmark_drags(wide, [0, 1])[0].tolist() == [[80, 5]]


# Single drags


def face() -> dict:
    """A pair whose landmarks lie on a circle, so that the outer corners of the eyes are apart."""
    item = pairs(1)[0]
    angles = torch.linspace(0, 2 * torch.pi, 69)[:68]
    item["landmarks"] = 32 + 10 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return item


@pytest.mark.parametrize("name", SINGLE_DRAGS)
def test_a_single_drag_starts_at_its_landmark_and_grows_with_the_face(name):
    item, (index, direction) = face(), SINGLE_DRAGS[name]
    drag = single_drag(item, name)
    np.testing.assert_allclose(drag.handle_points, item["landmarks"][[index]].double())
    eyes = (item["landmarks"][45] - item["landmarks"][36]).norm().item()
    np.testing.assert_allclose(drag.displacements[0], eyes * np.array(direction), rtol=1e-6)
    larger = single_drag(item | {"landmarks": 2 * item["landmarks"]}, name)
    np.testing.assert_allclose(larger.displacements, 2 * drag.displacements, rtol=1e-6)


def test_the_dragged_share_is_measured_along_the_drag():
    item = face()
    image, points = item["source"][None], item["landmarks"].double().numpy()
    step = single_drag(item, "nose").displacements[0]
    length = np.linalg.norm(step)

    def found(move):
        return dragged_share(image, item, "nose", lambda frame: points + move)

    assert found(step) == pytest.approx((1, 0))
    assert found(0 * step) == pytest.approx((0, length))
    assert found(-step) == pytest.approx((-1, 2 * length))
    aside = 3 * np.array([-step[1], step[0]]) / length
    assert found(step + aside) == pytest.approx((1, 3))
    assert all(np.isnan(dragged_share(image, item, "nose", lambda frame: None)))


def test_a_head_mask_holds_both_faces_and_grows_with_its_margin():
    item = pair_batch(1, size=128)
    item = {name: value[0] for name, value in item.items()}
    item["landmarks"] = 40 + 20 * torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    item["target_landmarks"] = item["landmarks"] + torch.tensor([30.0, 0.0])
    narrow, wide = (head_mask(item, margin=margin) for margin in (0.0, 0.5))
    for name in ("landmarks", "target_landmarks"):
        assert (narrow[face_region(item[name], (128, 128)).numpy()] == 1).all()
    assert narrow.dtype == np.uint8 and narrow.sum() < wide.sum() and (wide >= narrow).all()
    rows, columns = wide.nonzero()
    face = item["landmarks"][:, 0]
    assert columns.min() == pytest.approx(float(face.min() - (face.max() - face.min()) / 2), abs=2)


def test_the_face_region_is_inside_its_landmarks():
    item = face()
    region = face_region(item["landmarks"], (64, 80))
    assert region.shape == (64, 80) and region.dtype == torch.bool
    assert region[32, 32] and not region[32, 48] and not region[10, 10]
    assert region.sum().item() == pytest.approx(torch.pi * 10.5**2, rel=0.05)  # pixels on the rim count


# Intervals


def test_the_interval_holds_the_mean_and_narrows_with_more_values():
    values = np.random.default_rng(0).normal(3, 1, 400)
    widths = []
    for count in (25, 400):
        mean, low, high = bootstrap_interval(values[:count], generator=torch.Generator().manual_seed(0))
        assert mean == pytest.approx(values[:count].mean()) and low < mean < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)
    assert widths[1] == pytest.approx(2 * 1.96 / 20, rel=0.15)  # the normal interval of a standard error


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    intervals = [
        bootstrap_interval(rng.normal(0, 1, 30), generator=generator, confidence=0.8, resamples=200)
        for _ in range(100)
    ]
    assert 68 <= sum(low <= 0 <= high for _, low, high in intervals) <= 90


def test_intervals_follow_their_generator_and_their_confidence():
    values = np.arange(20.0)
    first, again, other = (
        bootstrap_interval(values, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    narrow = bootstrap_interval(values, generator=torch.Generator().manual_seed(0), confidence=0.5)
    assert first[1] < narrow[1] < narrow[2] < first[2]


def test_missing_values_are_left_out(generator):
    assert bootstrap_interval([2.0, float("nan")], generator=generator) == (2.0, 2.0, 2.0)
    assert all(np.isnan(bootstrap_interval([], generator=generator)))
    assert all(np.isnan(bootstrap_interval([float("nan")], generator=generator)))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_no_probability_is_refused(confidence, generator):
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([1.0], generator=generator, confidence=confidence)


# Tables


def table(**methods: list[float]) -> pd.DataFrame:
    rows = [
        {"method": name, "key": str(k), "psnr": value, "lpips": float("nan") if k else 0.5}
        for name, values in methods.items()
        for k, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_summaries_tell_n_mean_and_interval_of_each_method_and_metric():
    summary = summarize(table(b=[1.0, 2.0, 3.0], a=[5.0, 5.0, 5.0]), metrics=("psnr", "lpips"))
    assert summary[["method", "metric", "n"]].values.tolist() == [
        ["b", "psnr", 3], ["b", "lpips", 1], ["a", "psnr", 3], ["a", "lpips", 1],
    ]  # fmt: skip
    assert summary["mean"].tolist() == [2.0, 0.5, 5.0, 0.5]
    assert summary["low"][0] < 2.0 < summary["high"][0] and summary["low"][2] == summary["high"][2] == 5.0


def test_several_seeds_of_a_pair_count_as_one():
    frame = table(a=[1.0, 3.0])
    summary = summarize(pd.concat([frame, frame.assign(psnr=frame["psnr"] + 1)]), metrics=["psnr"])
    assert summary.loc[0, ["n", "mean"]].tolist() == [2, 2.5]


def test_margins_are_taken_pair_by_pair():
    values = np.arange(20.0)
    frame = table(still=values.tolist(), better=(values + 1 + 0.1 * np.sin(values)).tolist())
    margin = margins(frame.sample(frac=1, random_state=0), "still", metrics=["psnr"])
    assert margin.loc[0, "method"] == "better" and 0.9 < margin.loc[0, "low"] < margin.loc[0, "high"] < 1.1
    assert margin.loc[0, "n"] == 20


def test_margins_need_their_baseline():
    with pytest.raises(ValueError, match="'do nothing'"):
        margins(table(a=[1.0]), metrics=["psnr"])


def test_shares_are_ratios_of_means_on_the_pairs_that_have_both():
    frame = table(still=[1.0, 3.0, 8.0], half=[0.5, 1.5, 9.0])
    frame.loc[5, "psnr"] = np.nan  # no face was found in the last edit
    share = shares(frame, "still", metrics=["psnr"])
    assert share[["method", "metric", "n"]].values.tolist() == [["half", "psnr", 2]]
    assert share.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
    uneven = shares(table(still=[1.0, 3.0], other=[1.0, 1.0]), "still", metrics=["psnr"])
    assert uneven.loc[0, "mean"] == 0.5  # not the mean of the ratios
    assert uneven.loc[0, "low"] == pytest.approx(1 / 3) and uneven.loc[0, "high"] == 1
    assert np.isnan(shares(table(still=[np.nan], a=[1.0]), "still", metrics=["psnr"]).loc[0, "mean"])
    with pytest.raises(ValueError, match="'do nothing'"):
        shares(table(a=[1.0]), metrics=["psnr"])


def test_an_interval_table_keeps_the_order_and_the_digits():
    summary = summarize(table(b=[1.0, 1.0], a=[2.0, 2.0]), metrics=("psnr", "lpips"))
    text = interval_table(summary, {"psnr": 1, "lpips": 2})
    assert list(text.index) == ["b", "a"] and list(text.columns) == ["psnr", "lpips"]
    assert text.loc["a", "psnr"] == "2.0 [2.0, 2.0]" and text.loc["b", "lpips"] == "0.50 [0.50, 0.50]"


@pytest.mark.parametrize(
    ("limits", "holds"),
    [
        ({"above": 0}, True),
        ({"above": 0, "sure": True}, False),
        ({"above": -2, "sure": True}, True),
        ({"below": 2}, True),
        ({"below": 2, "sure": True}, False),
        ({"below": 4, "sure": True}, True),
        ({"below": 0}, False),
    ],
)
def test_a_bar_is_held_by_the_mean_or_by_the_whole_interval(limits, holds):
    row = bar("claim", {"mean": 1.0, "low": -1.0, "high": 3.0}, **limits)
    assert row["holds"] is holds and row["bar"] == "claim" and row["measured"] == "1 [-1, 3]"
    assert row["judged by"] == ("interval" if limits.get("sure") else "mean")


def test_a_bar_has_one_side_and_is_not_held_by_nothing():
    nothing = dict.fromkeys(("mean", "low", "high"), float("nan"))
    assert bar("claim", nothing, above=0)["holds"] is bar("claim", nothing, below=0)["holds"] is False
    for limits in ({}, {"above": 0, "below": 1}):
        with pytest.raises(ValueError, match="one of above and below"):
            bar("claim", nothing, **limits)


def test_what_was_evaluated_can_be_summed_up():
    frame = evaluate_edits(truth, pairs(), method="truth", lpips=LPIPS)
    assert set(summarize(frame)["metric"]) == set(METRICS)
    margin = margins(frame).set_index("metric")
    assert margin.loc["psnr", "low"] > 0 > margin.loc["lpips", "high"]
