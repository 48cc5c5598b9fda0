"""Backgrounds: what composites leave of them, and where an edit changed them."""

import numpy as np
import pytest
import torch

from dragstudy.metrics.backgrounds import RINGS, background_rings, measure_composite


@pytest.fixture
def pair(generator):
    """A square that moves by 40 px over a background of which the second frame has another brightness."""
    ground = torch.full((3, 96, 96), 0.4)
    item = {"source": ground.clone(), "target": ground + 10 / 255}
    for name, mask, left in (("source", "mask", 8), ("target", "target_mask", 48)):
        item[name][:, 30:60, left : left + 30] = torch.rand(3, 30, 30, generator=generator)
        item[mask] = torch.zeros(1, 96, 96)
        item[mask][:, 30:60, left : left + 30] = 1
    return item


def test_composites_leave_no_background_to_guess_and_their_absence_leaves_all_of_it(pair):
    assert measure_composite(pair, 3) == pytest.approx({"left": 10, "ghost": 0, "seam": 0}, abs=1e-3)
    for approach in (1, 2):
        for region in ("own", "both"):
            assert measure_composite(pair, approach, region)["left"] == pytest.approx(0, abs=1e-3)


def test_without_a_background_there_is_nothing_to_say_of_it(pair):
    full = pair | dict.fromkeys(("mask", "target_mask"), torch.ones(1, 96, 96))
    assert np.isnan(measure_composite(full, 3)["left"])


@pytest.mark.parametrize("approach", [1, 2])
def test_an_own_region_leaves_a_ghost_and_both_regions_none(pair, approach):
    assert measure_composite(pair, approach, "own")["ghost"] > 0.5  # of 30 px, D(M) reaches 7 px far
    assert measure_composite(pair, approach, "both")["ghost"] == 0
    assert measure_composite(pair, approach, "own", dilation=61)["ghost"] < 0.5


def test_the_seam_is_the_difference_of_the_two_backgrounds(pair):
    assert measure_composite(pair, 1, "both")["seam"] == pytest.approx(10, abs=0.1)
    level = pair | {"target": pair["target"] - 10 / 255}
    assert measure_composite(level, 1, "both")["seam"] == pytest.approx(0, abs=0.1)


def test_rings_tell_where_an_edit_changed_the_background():
    before, mask = torch.zeros(1, 3, 64, 200), torch.zeros(1, 1, 64, 200)
    mask[..., :20] = 1
    near, far = before.clone(), before.clone()
    near[..., 20:28], far[..., 100:] = 5 / 255, 7 / 255
    names = ["change_0_8", "change_8_16", "change_16_32", "change_32_64", "change_64"]
    rings = background_rings(near, before, mask)
    assert list(rings) == names and len(names) == len(RINGS) + 1
    assert rings["change_0_8"] == pytest.approx(5, rel=0.1) and rings["change_8_16"] == 0
    rings = background_rings(far, before, mask)
    assert rings["change_32_64"] == 0 and 5 < rings["change_64"] < 7
    small = background_rings(before[..., :24], before[..., :24], mask[..., :24])
    assert small["change_0_8"] == 0 and small["change_64"] != small["change_64"]  # no pixel there
