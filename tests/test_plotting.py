import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dragstudy import plotting
from dragstudy.data.pairs import Pair

SIZE = 32


@pytest.fixture
def flow(generator):
    return 3 * torch.randn(2, SIZE, SIZE, generator=generator)


@pytest.fixture
def photo(generator):
    return torch.rand(3, SIZE, SIZE, generator=generator)


def titles(fig):
    return [ax.get_title() for ax in fig.axes if ax.get_title()]


def test_every_kind_of_image_becomes_the_same_array(photo):
    pixels = plotting.to_array(photo)
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    for same in (photo[None], Image.fromarray(pixels), pixels, pixels / 255):
        assert (plotting.to_array(same) == pixels).all()
    assert plotting.to_array(np.eye(2, dtype=bool)).tolist() == [[255, 0], [0, 255]]
    assert plotting.to_array(photo[:1]).shape == (SIZE, SIZE)


def test_figures_leave_matplotlibs_settings_alone(photo):
    before = dict(plt.rcParams)
    fig = plotting.image_row([photo] * 7, list("abcdefg"), title="Seven images")
    assert dict(plt.rcParams) == before
    assert titles(fig) == list("abcdefg") and fig.get_suptitle() == "Seven images"
    assert fig.get_size_inches()[0] <= plotting.MAX_WIDTH


def test_drags_are_arrows_and_anchors_rings_that_do_not_widen_the_image(photo):
    fig = plotting.before_after(photo, {"warp": photo}, [[5, 5], [9, 9]], [[20, 60], [9, 9]], title="A drag")
    ax = fig.axes[0]
    assert titles(fig) == ["source and drags", "warp"]
    assert len(ax.texts) == 1 and ax.get_ylim() == (SIZE - 0.5, -0.5)


def test_flows_share_one_scale_and_a_wheel(photo, flow):
    fig = plotting.flow_panel(photo, {"whole": flow, "half": flow[None] / 2}, max_flow=4.0)
    assert titles(fig) == ["source", "whole", "half", "motion, up to 4 px"]


def test_histograms_count_inside_the_mask(flow):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., :4] = 1
    fig = plotting.flow_histograms({"all": flow[None]}, mask=mask, title="Lengths")
    assert sum(patch.get_xy()[:, 1].max() for patch in fig.axes[0].patches) <= 4 * SIZE


def test_loss_curves_skip_lines_without_the_column(tmp_path):
    lines = [{"images": 8, "loss": 1.0}, {"images": 16, "loss": 0.5, "psnr": 20.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fig = plotting.loss_curves({"instantdrag": tmp_path / "metrics.jsonl"}, ["loss", "psnr"], log=True)
    assert [ax.lines[0].get_xdata().tolist() for ax in fig.axes] == [[8, 16], [16]]
    assert fig.axes[0].lines[0].get_color() == plotting.METHOD_COLORS["instantdrag"]


def test_pairs_samples_and_rejections(photo, flow):
    pixels, ones = plotting.to_array(photo), np.ones((SIZE, SIZE), np.uint8)
    pair = Pair("clip-0-1", pixels, pixels, 255 * ones, 255 * ones, flow.numpy(), ones)
    assert len(titles(plotting.pair_sheet([pair, pair]))) == 5
    sparse = torch.zeros_like(flow)
    sparse[:, 4, 5] = 2.0
    assert titles(plotting.sampler_sheet(photo, {"config1": [sparse]})) == ["config1: 1 points"]
    manifest = pd.DataFrame({"reason": ["", "", "hands_change"]})
    labels = [label.get_text() for label in plotting.rejection_bars(manifest).axes[0].get_yticklabels()]
    assert labels == ["hands change", "kept"]
