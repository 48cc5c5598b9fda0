"""Noise priors: what they keep of the photograph, where, and that they stay noise of deviation one."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from dragstudy.priors import (
    mix_by_mask,
    noise_prior,
    noised_source,
    paste_along_drags,
    plan_moves,
    source_correlation,
)

ALPHA_BAR = 0.0047  # of Stable Diffusion's schedule at 999
CHANNELS = 4


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def at(*cells: tuple[float, float]) -> np.ndarray:
    """Pixels at the centres of latent cells (x, y), which are eight pixels wide."""
    return 8 * np.asarray(cells, dtype=float) + 3.5


def plan(handles, targets, size: tuple[int, int] = (16, 16), radius: int | None = 1):
    return plan_moves(at(*handles), at(*targets), (8 * size[0], 8 * size[1]), size, radius)


def correlation(a: Tensor, b: Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


# Noised source


@pytest.mark.parametrize("alpha_bar", [ALPHA_BAR, 0.3, 0.9])
def test_the_noised_source_has_training_s_mean_and_variance(alpha_bar):
    source, count = 3 * normal(0, 1, CHANNELS, 4, 4), 4096
    draws = noised_source(source.expand(count, -1, -1, -1), normal(1, count, CHANNELS, 4, 4), alpha_bar)
    spread = ((1 - alpha_bar) / count) ** 0.5
    assert ((draws.mean(0) - alpha_bar**0.5 * source[0]).abs() < 5 * spread).all()
    assert_close(draws.var(0), torch.full_like(source[0], 1 - alpha_bar), rtol=0.12, atol=0)


@pytest.mark.parametrize("t", [0, 400, 999])
def test_the_noised_source_is_the_scheduler_s(t):
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    source, noise = normal(0, 2, CHANNELS, 5, 7), normal(1, 2, CHANNELS, 5, 7)
    expected = scheduler.add_noise(source, noise, torch.tensor([t, t]))
    assert_close(noise_prior("source", noise, source, float(scheduler.alphas_cumprod[t])), expected)


def test_stable_diffusion_s_noisiest_timestep_keeps_what_the_docstring_says():
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert float(scheduler.alphas_cumprod[999]) ** 0.5 == pytest.approx(0.068, abs=5e-4)


def test_all_signal_is_the_source_and_none_is_the_noise():
    source, noise = normal(0, 1, CHANNELS, 8, 8), normal(1, 1, CHANNELS, 8, 8)
    assert torch.equal(noised_source(source, noise, 1), source)
    assert torch.equal(noised_source(source, noise, 0), noise)


def test_without_signal_every_prior_but_the_copying_one_is_the_plain_noise():
    source, noise, fresh = (normal(seed, 1, CHANNELS, 16, 16) for seed in range(3))
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:, 40:] = 1
    wanted = {"mask": mask, "moves": [plan([(4, 4)], [(10, 9)])], "fresh_noise": fresh}
    for name in ("random", "source", "mixed"):
        assert torch.equal(noise_prior(name, noise, source, 0, **wanted), noise), name
    moved = noise_prior("copy_paste", noise, source, 0, **wanted)
    assert torch.equal(moved[..., 8:11, 9:12], noise[..., 3:6, 3:6])


# Mixed by the mask


def test_inside_the_mask_nothing_of_the_source_is_left_and_outside_all():
    source, noise = normal(0, 8, CHANNELS, 32, 32), normal(1, 8, CHANNELS, 32, 32)
    mask = torch.zeros(8, 1, 256, 256)
    mask[:, :, 64:192, 32:224] = 1
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:24, 4:28] = True
    noised = noised_source(source, noise, 0.5)
    mixed = noise_prior("mixed", noise, source, 0.5, mask=mask)
    assert torch.equal(mixed[..., ~inside], noised[..., ~inside])
    assert abs(correlation(mixed[..., inside], source[..., inside])) < 0.03
    assert correlation(mixed[..., ~inside], source[..., ~inside]) > 0.68  # the root of one half
    assert abs(mixed[..., inside].mean()) < 0.03 and abs(mixed[..., inside].std() - 1) < 0.03


def test_a_cell_that_one_editable_pixel_lies_in_is_noise():
    noised, noise = normal(0, 1, CHANNELS, 6, 9), normal(1, 1, CHANNELS, 6, 9)
    mask = torch.zeros(1, 1, 48, 72)
    mask[0, 0, 15, 24] = 1 / 255
    changed = (mix_by_mask(noised, noise, mask) != noised).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 3]]


def test_every_image_of_a_batch_has_its_own_mask():
    noised, noise = normal(0, 2, CHANNELS, 8, 8), normal(1, 2, CHANNELS, 8, 8)
    mask = torch.stack([torch.zeros(1, 64, 64), torch.ones(1, 64, 64)])
    mixed = mix_by_mask(noised, noise, mask)
    assert torch.equal(mixed[0], noised[0]) and torch.equal(mixed[1], noise[1])


def test_without_a_mask_everything_may_change():
    source, noise = normal(0, 1, CHANNELS, 8, 8), normal(1, 1, CHANNELS, 8, 8)
    assert torch.equal(noise_prior("mixed", noise, source, 0.5), noise)


# Copied along the drags


def pasted(moves, size: tuple[int, int] = (16, 16), count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The prior, the noised source that it is made of, and the fresh noise."""
    source, noise, fresh = (normal(seed, count, CHANNELS, *size[::-1]) for seed in range(3))
    wanted = {"moves": [moves] * count, "fresh_noise": fresh}
    return noise_prior("copy_paste", noise, source, 0.5, **wanted), noised_source(source, noise, 0.5), fresh


def test_the_target_gets_the_handle_s_content_and_the_handle_mostly_noise():
    found, noised, fresh = pasted(plan([(4, 5)], [(11, 9)]))
    assert torch.equal(found[..., 8:11, 10:13], noised[..., 4:7, 3:6])
    covered = 0.3 * noised + 0.91**0.5 * fresh
    assert_close(found[..., 4:7, 3:6], covered[..., 4:7, 3:6])
    untouched = torch.ones(16, 16, dtype=torch.bool)
    untouched[8:11, 10:13] = untouched[4:7, 3:6] = False
    assert torch.equal(found[..., untouched], noised[..., untouched])


def test_what_is_copied_and_what_is_left_behind_keep_their_deviation():
    found, _, _ = pasted(plan([(4, 5)], [(11, 9)]), count=1024)
    for rows, columns in ((slice(8, 11), slice(10, 13)), (slice(4, 7), slice(3, 6))):
        assert abs(found[..., rows, columns].std() - 1) < 0.02


def test_a_patch_may_overlap_its_own_target():
    found, noised, _ = pasted(plan([(6, 6)], [(7, 6)]))
    assert torch.equal(found[..., 5:8, 6:9], noised[..., 5:8, 5:8])


@pytest.mark.parametrize("target", [(4, 5), (4.4, 5.4), (3.6, 4.6)])
def test_a_drag_that_ends_in_its_own_cell_changes_nothing(target):
    found, noised, _ = pasted(plan([(4, 5)], [target]))
    assert torch.equal(found, noised)


def test_an_anchor_beside_a_drag_changes_nothing_more():
    alone, _, _ = pasted(plan([(4, 5)], [(11, 9)]))
    both, _, _ = pasted(plan([(4, 5), (2, 13)], [(11, 9), (2, 13)]))
    assert torch.equal(both, alone)


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (32, 8)])
def test_points_on_the_border_are_taken(size):
    corners = np.array([(-0.5, -0.5), (8 * size[0] - 0.5, 8 * size[1] - 0.5)])
    for handles, targets in ((corners, corners[::-1]), (corners[:1], corners[1:])):
        moves = plan_moves(handles, targets, (8 * size[0], 8 * size[1]), size)
        found, noised, _ = pasted(moves, size)
        assert torch.equal(found[..., -1, -1], noised[..., 0, 0])


def test_twenty_drags_by_the_same_way_move_all_of_what_they_cover():
    cells = [(x, y) for y in (2, 5, 8, 11) for x in (2, 5, 8, 11, 14)]
    found, noised, _ = pasted(plan(cells, [(x + 3, y + 2) for x, y in cells], (20, 16)), (20, 16))
    assert torch.equal(found[..., 3:15, 4:19], noised[..., 1:13, 1:16])


def test_the_order_of_drags_that_do_not_meet_is_of_no_consequence():
    handles, targets = [(2, 2), (8, 3), (12, 12)], [(2, 8), (12, 3), (7, 12)]
    one, _, _ = pasted(plan(handles, targets))
    other, _, _ = pasted(plan(handles[::-1], targets[::-1]))
    assert torch.equal(one, other)


def test_points_go_to_latent_cells_by_their_pixel_centres():
    # 11.5 px is the middle of the second cell; a hair past the edge at 15.5 the third begins
    (move,) = plan_moves(np.array([[11.5, 11.5]]), np.array([[15.6, 11.5]]), (64, 64), (8, 8), radius=0)
    assert move.source == (slice(1, 2), slice(1, 2)) and move.target == (slice(1, 2), slice(2, 3))
    (scaled,) = plan_moves(np.array([[23.5, 23.5]]), np.array([[31.7, 23.5]]), (128, 128), (8, 8), radius=0)
    assert scaled == move


@pytest.mark.parametrize(("size", "cells"), [((64, 64), 11), ((96, 64), 11), ((32, 32), 5), ((4, 4), 3)])
def test_a_patch_is_the_same_share_of_any_picture(size, cells):
    middle = (size[0] // 2 - 1, size[1] // 2 - 1)
    (move,) = plan([middle], [(middle[0] + 1, middle[1])], size, radius=None)
    rows = move.source[0]
    assert rows.stop - rows.start == cells


def test_each_photograph_of_a_batch_has_its_own_drags():
    noised, fresh = normal(0, 2, CHANNELS, 16, 16), normal(1, 2, CHANNELS, 16, 16)
    moves = [plan([(4, 5)], [(11, 9)]), []]
    found = paste_along_drags(noised, moves, fresh)
    assert torch.equal(found[:1], paste_along_drags(noised[:1], moves[:1], fresh[:1]))
    assert torch.equal(found[1], noised[1])


# What is left of the source


def test_more_of_a_smooth_source_is_found_in_its_noised_latents_the_coarser_one_looks():
    source = normal(0, 2, CHANNELS, 1, 1).expand(-1, -1, 32, 32)
    noise = normal(1, 2, CHANNELS, 32, 32)
    noised = noised_source(source, noise, ALPHA_BAR)
    found = torch.stack([source_correlation(noised, source, cells) for cells in (1, 8, 32)])
    assert (found.diff(dim=0) > 0).all()
    power = ALPHA_BAR * source[:, :, 0, 0].square().mean(dim=1)
    assert_close(found[0], (power / (power + 1 - ALPHA_BAR)).sqrt(), atol=0.02, rtol=0)
    assert (source_correlation(noise, source).abs() < 0.06).all()
    assert_close(source_correlation(source, source, 8), torch.ones(2))


# All of them


@pytest.mark.parametrize("name", ["random", "source", "mixed", "copy_paste"])
def test_priors_draw_nothing_and_leave_what_they_are_given(name):
    source, noise, fresh = given = [normal(seed, 1, CHANNELS, 16, 16) for seed in range(3)]
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :64] = 1
    wanted = {"mask": mask, "moves": [plan([(4, 4)], [(10, 9)])], "fresh_noise": fresh}
    copies, state = [one.clone() for one in given], torch.get_rng_state()
    first, second = (noise_prior(name, noise, source, 0.5, **wanted) for _ in range(2))
    assert torch.equal(first, second) and first.shape == noise.shape and first.dtype == noise.dtype
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, copy) for one, copy in zip(given, copies, strict=True))


def test_what_cannot_be_used_is_refused_in_one_sentence():
    noise = normal(0, 1, CHANNELS, 8, 8)
    for name, arguments, message in (
        ("noised", (), "random, source, mixed, copy_paste, got 'noised'"),
        ("source", (), "'source' needs the source's latents and alpha_bar, got none"),
        ("mixed", (noise,), "'mixed' needs the source's latents and alpha_bar, got none"),
        ("source", (noise, 1.5), r"alpha_bar must lie in \[0, 1\], got 1.5"),
        ("copy_paste", (noise, 0.5), "needs moves for each of the latents"),
    ):
        with pytest.raises(ValueError, match=message):
            noise_prior(name, noise, *arguments)
