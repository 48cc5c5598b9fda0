"""Classifier-free guidance: every form is the paper's equation, and scales of one change nothing."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dragstudy.guidance import GUIDANCE_ROWS, guidance_rows, guide

SCALES = {"image": 1.5, "flow": 2.0, "text": 3.0}


def predictions(form: str) -> Tensor:
    rows = len(guidance_rows(form))
    return torch.randn(rows, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_scales_of_one_give_the_fully_conditioned_prediction(form):
    rows = predictions(form)
    assert_close(guide(rows, form, {"image": 1, "flow": 1, "text": 1}), rows[-1])


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_scales_of_zero_give_the_weakest_prediction(form):
    rows = predictions(form)
    assert torch.equal(guide(rows, form, {"image": 0, "flow": 0, "text": 0}), rows[0])


@pytest.mark.parametrize("form", GUIDANCE_ROWS)
def test_equal_predictions_are_left_alone_at_any_scale(form):
    rows = predictions(form)[:1].expand(len(guidance_rows(form)), -1, -1, -1, -1)
    assert_close(guide(rows, form, SCALES), rows[0])


def test_forms_written_out():
    nothing, image, flow, text = predictions("image_flow_text")
    expected = nothing + 1.5 * (image - nothing) + 2.0 * (flow - image)  # Eq. 5 and Eq. 4 of Sec. 3.1.2
    assert_close(guide(torch.stack([nothing, image, flow]), "image_flow", SCALES), expected)
    assert_close(guide(torch.stack([image, flow]), "flow", SCALES), image + 2.0 * (flow - image))
    full = expected + 3.0 * (text - flow)
    assert_close(guide(torch.stack([nothing, image, flow, text]), "image_flow_text", SCALES), full)


def test_each_row_switches_one_more_condition_on():
    for form, rows in GUIDANCE_ROWS.items():
        counts = [sum(row) for row in rows]
        assert counts == list(range(counts[0], counts[0] + len(rows))), form
        for weaker, stronger in zip(rows, rows[1:], strict=False):
            assert all(b >= a for a, b in zip(weaker, stronger, strict=True))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="image_flow, flow, image_flow_text, got 'all'"):
        guidance_rows("all")


def test_a_wrong_number_of_predictions_is_refused():
    with pytest.raises(ValueError, match="combines 3 predictions, got 2"):
        guide(predictions("flow"), "image_flow", SCALES)
