"""Where an edit looks in its photograph."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.metrics.attention import attention_near, cells_of, reference_attention

SIZE, GRID = (64, 128), (4, 8)  # cells of 16 px


def looking(shift: int) -> torch.Tensor:
    """Attention of every place to the one that is `shift` columns further right in the photograph."""
    h, w = GRID
    reference = torch.zeros(h, w, h, w)
    for row in range(h):
        for column in range(w - shift):
            reference[row, column, row, column + shift] = 0.25
    return reference


def test_the_photograph_s_keys_come_after_the_edit_s():
    h, w = GRID
    attention = torch.cat([torch.full((h * w, h * w), 0.5), looking(2).reshape(h * w, h * w)], dim=1)
    assert_close(reference_attention(attention, GRID), looking(2))


@pytest.mark.parametrize(
    ("point", "cell"), [((0, 0), (0, 0)), ((15.4, 0), (0, 0)), ((15.6, 63), (3, 1)), ((200, -9), (0, 7))]
)
def test_points_lie_in_cells_whose_pixels_are_centred_at_integers(point, cell):
    rows, columns = cells_of(torch.tensor([point]).float(), SIZE, GRID)
    assert (rows.item(), columns.item()) == cell


def test_attention_is_found_where_it_goes_and_nowhere_else():
    places = torch.tensor([[8.0, 8.0], [40.0, 40.0]])
    step = torch.tensor([16.0, 0.0])
    for columns, near in ((3, 1.0), (2, 1.0), (1, 0.0)):  # three columns away, and a reach of one
        found = attention_near(looking(3), places, places + columns * step, SIZE)
        assert_close(found, torch.full((2,), near))
    assert_close(attention_near(looking(3), places, places + 2 * step, SIZE, reach=0), torch.zeros(2))


def test_all_of_it_is_near_if_the_reach_is_large(generator):
    reference = torch.rand(*GRID, *GRID, generator=generator)
    points = 64 * torch.rand(5, 2, generator=generator)
    assert_close(attention_near(reference, points, points.flip(0), SIZE, reach=8), torch.ones(5))
