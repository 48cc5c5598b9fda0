"""Before and after fine-tuning: flows by region, edits, verdicts."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from dragstudy.metrics.finetuned import (
    AFTER,
    BEFORE,
    EDIT_METRICS,
    FLOW_METRICS,
    before_after,
    in_sentences,
    measure_edits,
    measure_flows,
    scattered_drags,
    some_of,
    training_rows,
)

from ..tiny import pair_batch, tiny_instantdrag


@pytest.fixture(scope="module")
def items() -> list[dict]:
    batch = pair_batch(3)
    return [
        {name: values[k] for name, values in batch.items()} | {"key": f"pan-{k:06d}-{k + 1:06d}"}
        for k in range(3)
    ]


@pytest.fixture(scope="module")
def requests(items) -> dict:
    return {item["key"]: scattered_drags(item, 5) for item in items}


@pytest.fixture(scope="module")
def pipes() -> dict:
    torch.manual_seed(0)
    pipe = tiny_instantdrag("splat")
    return {BEFORE: pipe, AFTER: pipe}


def test_drags_start_on_what_moves_and_end_where_the_clip_takes_them(items, requests):
    for item in items:
        request = requests[item["key"]]
        x, y = request.handle_points.astype(int).T
        assert len(x) == 5 and (item["mask"][0, y, x] == 1).all()
        assert np.allclose(request.displacements, item["flow"][:, y, x].T)
        h, w = item["flow"].shape[-2:]
        assert ((request.target_points > -0.5) & (request.target_points < (w - 0.5, h - 0.5))).all()
        assert request == scattered_drags(item, 5) != scattered_drags(item, 5, seed=1)


def test_errors_of_flows_by_region(pipes, items, requests):
    frame, flows = measure_flows(pipes, items, requests)
    assert len(frame) == len(flows) == 4 * 3
    zero = frame[frame["method"] == "zero flow"].set_index("key")
    for item in items:
        length, mask = item["flow"].norm(dim=0), item["mask"][0]
        row, share = zero.loc[item["key"]], mask.mean().item()
        assert row["object"] == pytest.approx((length * mask).sum().item() / mask.sum().item(), rel=1e-5)
        assert row["rest"] == 0 and row["frame"] == pytest.approx(share * row["object"], rel=1e-5)
    plate = frame[frame["method"] == "thin plate"]
    assert (plate["object"].to_numpy() < zero["object"].to_numpy()).all() and (plate["rest"] > 0).all()


def test_a_pipeline_that_learned_nothing_is_neither_better_nor_worse(pipes, items, requests):
    frame, pictures = measure_edits(pipes, items, requests, num_inference_steps=1)
    kinds = [f"{name}{kind}" for kind in (", oracle", "", ", compose") for name in pipes]
    assert list(frame["method"].unique()) == ["do nothing", "autoencoder", *kinds]
    assert len(frame) == 8 * 3 and len(pictures) == 7 * 3
    for item in items:
        assert torch.equal(pictures[BEFORE, item["key"]], pictures[AFTER, item["key"]])
        assert not torch.equal(pictures[BEFORE, item["key"]], pictures[f"{BEFORE}, oracle", item["key"]])
    table = before_after(frame.assign(clip="pan"), EDIT_METRICS)
    assert (table["verdict"] == "undecided").all() and (table["mean"] == 0).all()


def test_verdicts_follow_the_side_of_zero_clip_by_clip():
    change = {"bird": (1.0, -1.0, 0.0), "cat": (-1.0, 1.0, 0.0)}
    rows = []
    for clip, (psnr, lpips, _) in change.items():
        for key in range(8):
            before = {"clip": clip, "key": f"{clip}-{key}", "psnr": 20.0 + key, "lpips": 5.0 - key / 8}
            after = before | {"psnr": before["psnr"] + psnr, "lpips": before["lpips"] + lpips}
            rows += [before | {"method": "flow base"}, after | {"method": "flow fine-tuned"}]
    table = before_after(
        pd.DataFrame(rows), EDIT_METRICS, "flow base", "flow fine-tuned", references={"start": "flow base"}
    )
    assert list(table["clip"]) == ["bird", "bird", "cat", "cat"] and (table["n"] == 8).all()
    assert list(table["verdict"]) == ["better", "better", "worse", "worse"]
    assert (table["start"] == table["before"]).all()
    assert list(table["mean"]) == [1.0, -1.0, -1.0, 1.0]
    few = before_after(pd.DataFrame(rows[:10]), EDIT_METRICS, "flow base", "flow fine-tuned")
    assert (few["n"] == 5).all() and (few["verdict"] == "undecided").all()
    text = in_sentences(table, {"psnr": "PSNR in dB", "lpips": "LPIPS"})
    assert (
        text.splitlines()[0] == "PSNR in dB: bird better (1 [1, 1], n = 8), cat worse (-1 [-1, -1], n = 8)."
    )


def test_a_few_pairs_are_among_many():
    many = some_of(65, 40)
    assert len(set(many)) == 40 and many == sorted(many) and set(some_of(65, 6)) < set(many)
    assert some_of(3, 40) == [0, 1, 2] and some_of(65, 6, seed=1) != some_of(65, 6)


def test_what_the_trainings_logged_becomes_rows(tmp_path):
    logs = {
        "flowgen": [{"distance": 0.5}, {"distance": 0.25, "val_epe": 2.0}],
        "unet": [{"unet_loss": 0.125, "val_loss": 0.5}],
    }
    for network, lines in logs.items():
        folder = tmp_path / f"{network}-training"
        folder.mkdir()
        known = [line | {"step": k, "images": 4 * k, "seconds": 1.5 * k} for k, line in enumerate(lines, 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    rows = training_rows(tmp_path, "bird")
    assert rows[["network", "step", "loss"]].to_numpy().tolist() == [
        ["flowgen", 1, 0.5], ["flowgen", 2, 0.25], ["unet", 1, 0.125]
    ]  # fmt: skip
    assert rows["later"].isna().tolist() == [True, False, False] and set(rows["clip"]) == {"bird"}
    assert list(FLOW_METRICS) == ["object", "rest", "frame"]
