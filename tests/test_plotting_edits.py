"""Figures of edits show every image, the drag, and every tracked handle."""

import numpy as np
import torch

from dragstudy.drags import DragInstruction
from dragstudy.plotting_edits import edit_row, trajectory_sheet

from .tiny import picture

DRAG = DragInstruction([[10, 20], [30, 30]], [[16, 18], [30, 30]])


def test_a_row_shows_every_image_and_the_drag_on_the_first():
    fig = edit_row([picture(64, 48)] * 3, ["frame", "a", "b"], DRAG, title="message")
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["frame", "a", "b"]
    assert shown[0].collections and not shown[1].collections


def test_long_titles_do_not_run_into_each_other():
    fig = edit_row([picture(64, 48)] * 6, ["paper: supervised by the edit itself"] * 6, DRAG)
    fig.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes if ax.images]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_a_sheet_draws_the_way_of_every_handle():
    tracks = {"edit": [np.cumsum(np.ones((5, 2, 2)), axis=0)] * 2}
    rows = {"frame": [torch.rand(3, 64, 64)] * 2, "edit": [picture(64, 64)] * 2}
    fig = trajectory_sheet(rows, ["one", "two"], [DRAG, DRAG], tracks)
    lines = [sum(len(line.get_xdata()) == 5 for line in ax.lines) for ax in fig.axes]
    assert lines == [0, 0, 2, 2]
