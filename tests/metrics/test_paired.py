"""Against the true edit: the true edit has the best value of each metric, and each has known answers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dragstudy import assets
from dragstudy.drags import DragInstruction
from dragstudy.metrics.fidelity import image_fidelity
from dragstudy.metrics.paired import (
    directional_similarity,
    inner_patch_preservation,
    outer_mask_preservation,
    semantic_distance,
)
from dragstudy.metrics.perceptual import lpips_model

H, W = 96, 128
SHIFT = np.array([6.0, -4.0])
HANDLES = np.array([[40.0, 50.0], [90.0, 40.0]])
DRAGS = DragInstruction(HANDLES, HANDLES + SHIFT)


def texture(seed: int = 0) -> torch.Tensor:
    noise = torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 3, stride=1, padding=1)


SOURCE = texture()
TARGET = SOURCE.roll((-4, 6), dims=(2, 3))  # the true edit: everything moves by SHIFT


def exact(image: torch.Tensor, settings, *, generator, prompt: str = "") -> torch.Tensor:
    """Features that know what is where: the colours around each pixel."""
    return F.unfold(image - 0.5, 5, padding=2).view(1, -1, *image.shape[-2:])


@pytest.fixture(scope="module")
def lpips():
    assets.fetch("lpips", quiet=True)
    return lpips_model("alex")


# Semantic distance


def distance(edited: torch.Tensor, drags: DragInstruction = DRAGS) -> np.ndarray:
    return semantic_distance(edited, TARGET, drags, exact, generator=torch.Generator())


def test_the_true_edit_is_at_distance_zero_and_the_untouched_image_at_that_of_the_drag():
    assert_close(distance(TARGET), np.zeros(2), atol=1e-9, rtol=0)
    assert_close(distance(SOURCE), np.full(2, np.linalg.norm(SHIFT)))


def test_an_edit_that_goes_half_the_way_is_at_half_the_distance():
    assert_close(distance(SOURCE.roll((-2, 3), dims=(2, 3))), np.full(2, np.linalg.norm(SHIFT) / 2))


def test_the_handles_do_not_count():
    elsewhere = DragInstruction(HANDLES[::-1], HANDLES + SHIFT)
    assert np.array_equal(distance(SOURCE, elsewhere), distance(SOURCE))


# Outer mask preservation


def mask() -> torch.Tensor:
    inside = torch.zeros(1, 1, H, W)
    inside[..., 20:70, 30:100] = 1
    return inside


def test_what_happens_inside_of_the_mask_does_not_count(lpips):
    edited = SOURCE + mask() * (texture(1) - SOURCE)
    assert_close(outer_mask_preservation(edited, SOURCE, mask(), lpips=lpips), torch.ones(1))
    assert outer_mask_preservation(edited, SOURCE, 1 - mask(), lpips=lpips) < 0.99
    assert image_fidelity(edited, SOURCE, model=lpips) < 0.99


def test_without_a_mask_it_is_the_image_fidelity(lpips):
    nothing = torch.zeros(1, 1, H, W)
    found = outer_mask_preservation(TARGET, SOURCE, nothing, lpips=lpips)
    assert_close(found, image_fidelity(TARGET, SOURCE, model=lpips, size=224))


# Inner patch preservation


def test_squares_that_are_right_are_fully_preserved(lpips):
    edited = texture(1)
    x, y = (HANDLES[0] + SHIFT).astype(int)
    edited[..., y - 16 : y + 16, x - 16 : x + 16] = TARGET[..., y - 16 : y + 16, x - 16 : x + 16]
    found = inner_patch_preservation(edited, TARGET, DRAGS, lpips=lpips, side=32)
    assert_close(found[0], torch.tensor(1.0))
    assert found[1] < 0.95
    assert_close(inner_patch_preservation(TARGET, TARGET, DRAGS, lpips=lpips), torch.ones(2))


def test_the_more_noise_around_the_targets_the_less_is_preserved(lpips):
    noise = torch.randn(TARGET.shape, generator=torch.Generator().manual_seed(2))
    found = [
        inner_patch_preservation((TARGET + s * noise).clamp(0, 1), TARGET, DRAGS, lpips=lpips).mean().item()
        for s in (0.0, 0.05, 0.1, 0.2)
    ]
    assert found == sorted(found, reverse=True)


def test_at_the_border_the_square_moves_inwards_and_tiny_images_are_refused(lpips):
    corner = DragInstruction([[5.0, 5.0]], [[-0.5, H - 0.6]])
    edited = texture(1)
    edited[..., H - 32 :, :32] = TARGET[..., H - 32 :, :32]
    found = inner_patch_preservation(edited, TARGET, corner, lpips=lpips, side=32)
    assert_close(found, torch.ones(1))
    with pytest.raises(ValueError, match="squares of 100 px do not fit into an image of 128x96"):
        inner_patch_preservation(TARGET, TARGET, DRAGS, lpips=lpips, side=100)


# Directional similarity


def colours(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


def tinted(*rgb: float) -> torch.Tensor:
    return torch.full((1, 3, 8, 8), 0.5) + torch.tensor(rgb).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ((0.1, 0, 0), 1),
        ((0.3, 0, 0), 1),
        ((-0.1, 0, 0), -1),
        ((0, 0.2, 0), 0),
        ((0, 0, 0), 0),
        ((0.1, 0.1, 0), 0.5**0.5),
    ],
)
def test_the_direction_counts_and_not_the_way_s_length(edited, expected):
    found = directional_similarity(tinted(*edited), tinted(0, 0, 0), tinted(0.1, 0, 0), colours)
    assert_close(found, torch.tensor([float(expected)]), atol=1e-4, rtol=0)


def test_every_image_has_its_own_direction():
    edited, target = torch.cat([tinted(0.1, 0, 0), tinted(0, 0.1, 0)]), torch.cat([tinted(0.2, 0, 0)] * 2)
    found = directional_similarity(edited, torch.cat([tinted(0, 0, 0)] * 2), target, colours)
    assert_close(found, torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)
