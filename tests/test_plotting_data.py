"""The figures of data curation: what each draws, on a pair of random frames."""

import numpy as np
import pandas as pd
import pytest
import torch

from dragstudy import plotting_data
from dragstudy.data.pairs import Pair
from dragstudy.data.video import Crop

SIZE = 32


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:24, 8:24] = 255
    flow = rng.standard_normal((2, SIZE, SIZE)).astype(np.float32)
    drags = {"handle_points": [[10.0, 10.0]], "target_points": [[14.0, 9.0]]}
    points = rng.uniform(8, 24, (68, 2))
    return Pair("a-0-1", *frames, mask, mask, flow, (mask > 0).astype(np.uint8), points, points, drags)


def shown(fig):
    return [image for ax in fig.axes for image in ax.images]


def test_a_clip_sheet_marks_the_square_in_every_frame(pair):
    fig = plotting_data.clip_sheet([pair.source] * 3, ["0 s", "1 s", "2 s"], Crop(4, 2, 20, 20), title="clip")
    boxes = [patch for ax in fig.axes for patch in ax.patches]
    assert len(shown(fig)) == len(boxes) == 3
    assert boxes[0].get_bbox().bounds == (3.5, 1.5, 20, 20)


def test_the_scatter_names_every_reason_and_kept_pairs():
    manifest = pd.DataFrame(
        {
            "source_index": [0, 0, 0],
            "target_index": [1, 2, 8],
            "reason": ["", "near_identical", "hands_differ"],
            "mean_difference": [5.0, 0.4, 9.0],
        }
    )
    fig = plotting_data.pair_scatter(manifest, 1.0)
    names = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert names == ["kept", "hands differ", "near identical"]


def test_dropped_pairs_show_three_pictures_and_the_boxes_found(pair):
    box = np.array([[2.0, 3.0, 9.0, 12.0, 0.9]])
    frames = (pair.source, pair.target)
    fig = plotting_data.dropped_sheet([frames] * 2, ["a", "b"], boxes=[((), box), (box, box)])
    assert len(shown(fig)) == 6
    assert sum(len(ax.patches) for ax in fig.axes) == 3


def test_samplers_stand_in_columns_and_draws_in_rows(pair):
    flow, pixel = torch.from_numpy(pair.flow), torch.arange(SIZE**2).view(SIZE, SIZE)
    many, few = (torch.where(pixel < count, flow, 0) for count in (SIZE, 3))
    fig = plotting_data.sampler_columns(pair.source, {"many": [many] * 2, "few": [few] * 2})
    counts = [f"many: {SIZE}", "few: 3"]
    assert [ax.get_title() for ax in fig.axes] == counts * 2


def test_the_other_sheets_show_each_pair_once(pair):
    assert len(shown(plotting_data.people_row([pair] * 2, (30, 48)))) == 2
    assert len(shown(plotting_data.drag_pair_sheet([pair] * 2))) == 6
    assert len(shown(plotting_data.consistency_row(pair, -pair.flow))) == 6
