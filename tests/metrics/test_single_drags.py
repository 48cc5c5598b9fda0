"""Edits by one drag at a time: a row for each, with what a known motion must give."""

import numpy as np
import pytest
import torch

from dragstudy.metrics.single_drags import SINGLE_DRAGS, evaluate_single_drags
from dragstudy.pipelines import WarpPipeline

from ..tiny import pair_batch


@pytest.fixture
def items():
    batch = pair_batch()
    return [{name: values[k] for name, values in batch.items()} | {"key": f"pair-{k}"} for k in range(2)]


def found(item):
    """A detector that always sees the source's landmarks, as if nothing had moved."""
    return lambda frame: np.asarray(item["landmarks"], np.float64)


class _Distance(torch.nn.Module):
    def forward(self, a, b, **_):
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_a_landmark_that_stays_went_no_part_of_the_way(items):
    frame = evaluate_single_drags(
        WarpPipeline(),
        items[:1],
        ("brow", "nose"),
        method="warp",
        detector=found(items[0]),
        lpips=_Distance(),
        do_nothing=True,
    )
    assert frame["method"].tolist() == ["warp", "do nothing"] * 2
    assert frame["drag"].tolist() == ["brow", "brow", "nose", "nose"]
    assert np.allclose(frame["share"], 0)
    points = np.asarray(items[0]["landmarks"], np.float64)
    lengths = [
        np.linalg.norm(points[45] - points[36]) * np.linalg.norm(SINGLE_DRAGS[name][1])
        for name in ("brow", "brow", "nose", "nose")
    ]
    assert np.allclose(frame["distance"], lengths)
    nothing = frame[frame["method"] == "do nothing"]
    assert (nothing["lpips"] == 0).all() and (nothing["seconds"] == 0).all()


def test_without_a_face_there_is_no_share_and_the_row_stays(items):
    frame = evaluate_single_drags(
        WarpPipeline(), items, ("chin",), method="warp", detector=lambda frame: None, lpips=_Distance()
    )
    assert len(frame) == 2 and frame["share"].isna().all() and frame["lpips"].notna().all()


def test_the_mask_reaches_the_method(items):
    closed = evaluate_single_drags(
        WarpPipeline(),
        items,
        ("nose",),
        method="warp",
        detector=lambda frame: None,
        lpips=_Distance(),
        mask=lambda item: np.zeros(item["source"].shape[1:]),
    )
    assert closed["lpips"].max() < 1e-6
