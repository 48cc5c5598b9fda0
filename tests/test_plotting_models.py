"""The figures of networks: what each draws."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from dragstudy import plotting_models
from dragstudy.drags import DragInstruction
from dragstudy.plotting import METHOD_COLORS

SIZE = 32


@pytest.fixture(autouse=True)
def _no_windows():
    matplotlib.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def image(generator):
    return torch.rand(3, SIZE, SIZE, generator=generator)


@pytest.fixture
def log(tmp_path):
    lines = [{"images": 8 * step, "loss": 1 / step, "l1": 2 / step} for step in (1, 2, 3)]
    lines[1]["val_loss"] = 0.4
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def means(name, values):
    frame = pd.DataFrame({"drags": [1, 5, 68], "method": name, "mean": values})
    return frame.assign(low=frame["mean"] - 0.1, high=frame["mean"] + 0.1)


def test_a_sheet_names_its_rows_and_columns(image):
    fig = plotting_models.image_sheet({"a": [image] * 3, "b": [image] * 3}, ["x", "y", "z"], title="sheet")
    assert [ax.get_title() for ax in fig.axes] == ["x", "y", "z", "", "", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == ["a", "", "", "b", "", ""]


def test_a_sheet_is_no_wider_than_a_page(image):
    fig = plotting_models.image_sheet({"a": [image] * 9}, [""] * 9)
    assert fig.get_figwidth() <= plotting_models.MAX_WIDTH + 1e-6


def test_an_image_sheet_crops_the_rows_whose_faces_are_given(image):
    corner = np.array([[2.0, 2.0], [8.0, 8.0]])
    fig = plotting_models.image_sheet({"a": [image] * 2, "b": [image] * 2}, ["", ""], faces={"b": corner})
    widths = [np.diff(ax.get_xlim()).item() for ax in fig.axes]
    assert widths[0] == widths[1] == SIZE and widths[2] == widths[3] == 12


def test_a_flow_sheet_draws_few_drags_as_arrows_and_many_as_lines(image, generator):
    points = torch.rand(40, 2, generator=generator).numpy() * 20
    drags = {"few": DragInstruction(points[:3], points[:3] + 4), "many": DragInstruction(points, points + 4)}
    flow = torch.randn(2, SIZE, SIZE, generator=generator)
    fig = plotting_models.flow_sheet(image, drags, {"mine": [flow, flow[None]]})
    few, many, wheel = fig.axes[:3]
    assert len(few.texts) == 3 and not few.lines
    assert len(many.lines) == 40 and not many.texts
    assert wheel.get_title().startswith("motion, up to")


def test_curves_have_one_panel_a_vertical_axis():
    fig = plotting_models.curves([0, 1], {"one": {"a": [1, 2], "b": [2, 3]}, "two": {"a": [3, 4]}}, "t")
    assert [len(ax.lines) for ax in fig.axes] == [2, 1]
    assert [ax.get_ylabel() for ax in fig.axes] == ["one", "two"]


def test_training_curves_skip_lines_without_a_column_and_mark_chance(log):
    panels = {"loss": ["loss", "l1"], "validation": ["val_loss"]}
    fig = plotting_models.training_curves(log, panels, chance={"validation": 1.0})
    training, validation = fig.axes
    assert [line.get_xdata().tolist() for line in training.lines] == [[8, 16, 24]] * 2
    assert validation.lines[0].get_ydata().tolist() == [0.4]
    assert validation.lines[1].get_linestyle() == "--"


def test_intervals_are_bands_around_lines():
    table = pd.concat([means("warp", [3, 2, 1.0]), means("other", [2, 1, 0.5])])
    fig = plotting_models.intervals_over(table, "drags", "mean", "method", ylabel="px")
    (ax,) = fig.axes
    assert len(ax.lines) == len(ax.collections) == 2
    assert ax.lines[0].get_color() == METHOD_COLORS["warp"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "68"]


def test_dots_stand_in_the_order_of_the_table_and_share_its_reference():
    table = means("", [1.0, 2.0, 3.0]).set_index(pd.Index(["nothing", "warp", "mine"]))
    fig = plotting_models.interval_dots({"dB": table, "px": table}, reference="warp", colors={"mine": "red"})
    for ax in fig.axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [dot.get_ydata()[0] for dot in dots] == [0, 1, 2]
        assert dots[2].get_color() == "red"
        assert np.isclose(ax.lines[-1].get_xdata()[0], 2.0)
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == list(table.index)


def test_a_match_sheet_leads_from_what_was_found_to_the_truth(image, generator):
    landmarks = SIZE * torch.rand(68, 2, generator=generator)
    pair = {
        "source": image,
        "target": image,
        "landmarks": landmarks,
        "target_landmarks": landmarks + 2,
    }
    found = {"mine": [landmarks[[3, 5]].numpy()] * 2}
    fig = plotting_models.match_sheet([pair, pair], found, points=[3, 5])
    assert [ax.get_title() for ax in fig.axes] == ["source", "target", "mine", "", "", ""]
    _, _, mine = fig.axes[:3]
    lines, dots = mine.collections
    assert np.allclose(dots.get_offsets(), landmarks[[3, 5]])
    ends = np.array([path.vertices for path in lines.get_paths()])
    assert np.allclose(ends, torch.stack([landmarks, landmarks + 2], dim=1)[[3, 5]])


def test_a_drag_sheet_draws_each_tile_s_own_drags_and_field(image):
    points = np.array([[10.0, 10.0]])
    one, two = (DragInstruction(points, points + [[length, 0]]) for length in (4, 8))
    flow = torch.zeros(2, SIZE, SIZE)
    flow[0, :, : SIZE // 2] = 3
    rows = {"source": [image, image], "edit": [image, image]}
    given = {"source": [flow, None], "edit": [None, flow[None]]}
    fig = plotting_models.drag_sheet(rows, ["a", "b"], {"edit": [one, two]}, given)
    source, still, edit, other = fig.axes
    assert not still.collections and other.collections
    assert not source.texts and [ax.texts[0].xy[0] for ax in (edit, other)] == [14, 18]
    field = source.collections[-1]
    assert np.allclose(field.U, 3) and (field.X < SIZE / 2).all() and not edit.collections


def test_a_drag_sheet_crops_to_faces_inside_the_picture(image):
    landmarks = np.array([[0.0, 0.0], [8.0, 12.0]])
    fig = plotting_models.drag_sheet({"edit": [image]}, ["a"], {}, faces=[landmarks])
    (left, right), (bottom, top) = fig.axes[0].get_xlim(), fig.axes[0].get_ylim()
    assert (left, top) == (-0.5, -0.5) and right - left == bottom - top == 24
