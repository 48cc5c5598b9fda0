"""Tables of images: what each draws."""

import numpy as np
import pytest
import torch

from dragstudy import plotting_sheets
from dragstudy.drags import DragInstruction

SIZE = 32


@pytest.fixture
def image(generator):
    return torch.rand(3, SIZE, SIZE, generator=generator)


def test_a_sheet_names_its_rows_and_columns(image):
    fig = plotting_sheets.image_sheet({"a": [image] * 3, "b": [image] * 3}, ["x", "y", "z"], title="sheet")
    assert [ax.get_title() for ax in fig.axes] == ["x", "y", "z", "", "", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == ["a", "", "", "b", "", ""]


def test_a_sheet_is_no_wider_than_a_page(image):
    fig = plotting_sheets.image_sheet({"a": [image] * 9}, [""] * 9)
    assert fig.get_figwidth() <= plotting_sheets.MAX_WIDTH + 1e-6


def test_an_image_sheet_crops_the_rows_whose_faces_are_given(image):
    corner = np.array([[2.0, 2.0], [8.0, 8.0]])
    fig = plotting_sheets.image_sheet({"a": [image] * 2, "b": [image] * 2}, ["", ""], faces={"b": corner})
    widths = [np.diff(ax.get_xlim()).item() for ax in fig.axes]
    assert widths[0] == widths[1] == SIZE and widths[2] == widths[3] == 12


def test_a_flow_sheet_draws_few_drags_as_arrows_and_many_as_lines(image, generator):
    points = torch.rand(40, 2, generator=generator).numpy() * 20
    drags = {"few": DragInstruction(points[:3], points[:3] + 4), "many": DragInstruction(points, points + 4)}
    flow = torch.randn(2, SIZE, SIZE, generator=generator)
    fig = plotting_sheets.flow_sheet(image, drags, {"mine": [flow, flow[None]]})
    few, many, wheel = fig.axes[:3]
    assert len(few.texts) == 3 and not few.lines
    assert len(many.lines) == 40 and not many.texts
    assert wheel.get_title().startswith("motion, up to")


def test_a_match_sheet_leads_from_what_was_found_to_the_truth(image, generator):
    landmarks = SIZE * torch.rand(68, 2, generator=generator)
    pair = {
        "source": image,
        "target": image,
        "landmarks": landmarks,
        "target_landmarks": landmarks + 2,
    }
    found = {"mine": [landmarks[[3, 5]].numpy()] * 2}
    fig = plotting_sheets.match_sheet([pair, pair], found, points=[3, 5])
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
    fig = plotting_sheets.drag_sheet(rows, ["a", "b"], {"edit": [one, two]}, given)
    source, still, edit, other = fig.axes
    assert not still.collections and other.collections
    assert not source.texts and [ax.texts[0].xy[0] for ax in (edit, other)] == [14, 18]
    field = source.collections[-1]
    assert np.allclose(field.U, 3) and (field.X < SIZE / 2).all() and not edit.collections


def test_a_drag_sheet_crops_to_faces_inside_the_picture(image):
    landmarks = np.array([[0.0, 0.0], [8.0, 12.0]])
    fig = plotting_sheets.drag_sheet({"edit": [image]}, ["a"], {}, faces=[landmarks])
    (left, right), (bottom, top) = fig.axes[0].get_xlim(), fig.axes[0].get_ylim()
    assert (left, top) == (-0.5, -0.5) and right - left == bottom - top == 24
