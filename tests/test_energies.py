"""The energies: against references of a few lines in double precision, and what they must not do."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.energies import (
    energy,
    global_similarity,
    inpainting_energy,
    local_similarity,
    on_one_grid,
    patch_places,
    pick,
    total_energy,
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def maps() -> tuple[torch.Tensor, ...]:
    """Features of an edit and of a photograph `(5, 6, 7)`, and two masks of as many positions."""
    gen = torch.zeros(6, 7, dtype=torch.bool)
    gen[2:5, 3:6] = True
    return draw(5, 6, 7), draw(5, 6, 7, seed=1), gen, gen.roll((-1, -2), (0, 1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def reference_local(
    ours: torch.Tensor, here: torch.Tensor, theirs: torch.Tensor, there: torch.Tensor
) -> float:
    """Eq. 3, position by position."""
    pairs = zip(here.nonzero().tolist(), there.nonzero().tolist(), strict=True)
    found = [cosine(ours[:, a, b].numpy(), theirs[:, c, d].numpy()) for (a, b), (c, d) in pairs]
    return sum(0.5 * one + 0.5 for one in found) / len(found)


def reference_global(
    ours: torch.Tensor, here: torch.Tensor, theirs: torch.Tensor, there: torch.Tensor
) -> float:
    """Eq. 4: sums over the masks, divided by their sizes."""
    means = [
        (features * mask).sum(dim=(1, 2)).numpy() / float(mask.sum())
        for features, mask in ((ours, here), (theirs, there))
    ]
    return 0.5 * cosine(*means) + 0.5


def test_similarities_agree_with_their_equations(maps):
    ours, theirs, here, there = maps
    local = local_similarity(pick(ours, here), pick(theirs, there))
    assert local.item() == pytest.approx(reference_local(ours, here, theirs, there), abs=1e-12)
    whole = global_similarity(pick(ours, here), pick(theirs, there))
    assert whole.item() == pytest.approx(reference_global(ours, here, theirs, there), abs=1e-12)


def test_energies_agree_with_their_equations(maps):
    ours, theirs, here, there = maps
    other = ~(here | there)
    similarity = reference_local(ours, here, theirs, there)
    assert energy(local_similarity(pick(ours, here), pick(theirs, there))).item() == pytest.approx(
        1 / (1 + 4 * similarity), abs=1e-12
    )
    left = there & ~here
    found = inpainting_energy(pick(ours, left), pick(theirs, left), pick(theirs, other))
    around = 1 / (1 + 4 * reference_global(ours, left, theirs, other))
    expected = 2.5 * around + reference_local(ours, left, theirs, left)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_the_sum_weighs_the_means_of_its_parts():
    edit, content, optional = [torch.tensor(v) for v in (0.2, 0.4)], [torch.tensor(0.5)], [torch.tensor(1.0)]
    weights = {"edit_weight": 4.0, "content_weight": 6.0}
    found = total_energy(edit, content, optional, optional_weight=0.5, **weights)
    assert found.item() == pytest.approx(4 * 0.3 + 6 * 0.5 + 0.5)
    assert total_energy(edit, [], **weights).item() == pytest.approx(4 * 0.3)


def test_the_gradient_is_the_true_one_and_only_the_edit_s(maps):
    ours, theirs, here, there = maps

    def total(features: torch.Tensor) -> torch.Tensor:
        parts = [energy(local_similarity(pick(features, here), pick(theirs, there)))]
        parts += [energy(global_similarity(pick(features, here), pick(theirs, there)))]
        return sum(parts)

    assert torch.autograd.gradcheck(total, ours.requires_grad_())
    theirs.requires_grad_()
    assert torch.autograd.grad(total(ours), theirs, allow_unused=True) == (None,)


@pytest.mark.parametrize("similarity", [local_similarity, global_similarity])
def test_nothing_to_compare_is_an_energy_of_one_without_a_gradient(maps, similarity):
    ours, theirs, *_ = maps
    empty = torch.zeros(6, 7, dtype=torch.bool)
    ours.requires_grad_()
    value = energy(similarity(pick(ours, empty), pick(theirs, empty)))
    assert value.item() == 1.0
    assert torch.equal(torch.autograd.grad(value, ours)[0], torch.zeros_like(ours))


def test_an_empty_reference_region_leaves_the_gradient_finite(maps):
    ours, theirs, here, _ = maps
    empty = torch.zeros_like(here)
    ours.requires_grad_()
    value = inpainting_energy(pick(ours, here), pick(theirs, here), pick(theirs, empty))
    assert torch.autograd.grad(value, ours)[0].isfinite().all()


def test_no_cosine_makes_the_energy_jump():
    """With the cosine itself in place of S, as the authors' code moves objects, it is infinite at -0.25."""
    angles = torch.linspace(0, torch.pi, 181, dtype=torch.float64)
    ours = torch.stack([angles.cos(), angles.sin()])
    theirs = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    values = torch.stack([energy(local_similarity(ours[:, [k]], theirs)) for k in range(181)])
    assert (values >= 0.2).all() and (values <= 1).all() and (values.diff() > -1e-12).all()
    faulty = 1 / (1 + 4 * angles.cos())
    assert faulty.max() > 10 and faulty.min() < -10


def test_patches_around_two_points_correspond_and_stay_inside():
    here, there = patch_places(torch.tensor([9.0, 2.0]), torch.tensor([4.0, 2.0]), (6, 12))
    assert_close(here - there, torch.tensor([[5.0, 0.0]]).expand(9, 2))
    assert here[0].tolist() == [8.0, 1.0] and here[-1].tolist() == [10.0, 3.0]
    corner, _ = patch_places(torch.tensor([0.0, 0.0]), torch.tensor([4.0, 2.0]), (6, 12))
    assert sorted(corner.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_a_patch_far_to_the_right_of_a_wide_map_is_read_there():
    """The authors' code clips x with the height: it would read column 4 here."""
    features = torch.arange(40.0).expand(1, 6, 40).contiguous()
    places, _ = patch_places(torch.tensor([30.0, 3.0]), torch.tensor([30.0, 3.0]), (6, 40))
    assert pick(features, places).unique().tolist() == [29.0, 30.0, 31.0]


def test_a_mask_and_its_points_choose_the_same(maps):
    ours, _, here, _ = maps
    assert_close(pick(ours, here.nonzero().flip(1).double()), pick(ours, here))
    assert pick(ours, torch.zeros(0, 2)).shape == (5, 0)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_maps_of_several_blocks_come_to_one_grid(mode):
    maps = [draw(1, 3, 2, 4), draw(1, 5, 4, 8)]
    coarse, fine = on_one_grid(maps, (8, 16), mode=mode)
    assert coarse.shape == (3, 8, 16) and fine.shape == (5, 8, 16)
    assert_close(on_one_grid(maps, (2, 4), mode=mode)[0], maps[0][0].float())
