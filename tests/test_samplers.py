"""Samplers by name: the published ones as they are, uniform points, the hearts of moving parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dragstudy.samplers import SAMPLERS, UNIFORM, draw_pseudo_drags, find_sampler
from dragstudy.sparse import SAMPLER_CONFIGS, sample_drags


def moving(size: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth flow that is nowhere zero, and a mask of its left half."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = (x < size // 2).float()[None]
    return torch.stack([2 + (x / 9).sin(), 1 + (y / 7).cos() / 2]), mask


@given(name=st.sampled_from(SAMPLERS), seed=st.integers(0, 50))
def test_points_carry_the_flow_inside_the_mask_and_follow_the_generator(name, seed):
    flow, mask = moving()
    one, two = (
        draw_pseudo_drags(flow, mask, name, generator=torch.Generator().manual_seed(seed)) for _ in range(2)
    )
    drawn = one.any(dim=0)
    assert torch.equal(one, two) and drawn.any() and not (drawn & (mask[0] == 0)).any()
    assert torch.equal(one[:, drawn], flow[:, drawn])


@pytest.mark.parametrize("name", SAMPLER_CONFIGS)
def test_published_samplers_draw_what_they_drew(name):
    flow, mask = moving()
    one = draw_pseudo_drags(flow, mask, name, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, sample_drags(flow, mask, name, generator=torch.Generator().manual_seed(3)))


def test_uniform_points_come_alike_from_everywhere():
    flow, mask = moving(16)
    generator = torch.Generator().manual_seed(0)
    counts = sum(draw_pseudo_drags(flow, mask, "uniform", generator=generator).any(dim=0) for _ in range(600))
    inside = counts[mask[0] > 0].float()
    expected = 600 * (1 + UNIFORM.max_points) / 2 / 128
    assert (inside / expected - 1).abs().max() < 0.4 and abs(inside.mean() / expected - 1) < 0.05


def test_watershed_points_keep_apart_at_any_size():
    for size in (64, 128):
        flow, mask = moving(size)
        for seed in range(4):
            points = draw_pseudo_drags(
                flow, mask, "watershed", generator=torch.Generator().manual_seed(seed)
            ).any(dim=0)
            places = points.nonzero().float()
            apart = torch.cdist(places, places, p=torch.inf) + 1e6 * torch.eye(len(places))
            assert len(places) == 1 or apart.min() > 15 / 256 * size / 2


def test_a_sampler_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="one of config1, .*, watershed, uniform, got 'config5'"):
        find_sampler("config5")
