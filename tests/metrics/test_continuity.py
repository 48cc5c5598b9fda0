"""How continuous flows are and how far several lie apart: properties."""

import pytest
import torch

from dragstudy.metrics.continuity import disagreement, roughness


def linear(size=8):
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    return torch.stack([0.3 * x - 0.2 * y + 1, 0.2 * x + 0.3 * y])[None]


def test_a_linear_flow_is_smooth_and_noise_is_rough_in_proportion():
    everywhere, noise = torch.ones(1, 1, 8, 8), torch.randn(1, 2, 8, 8, generator=torch.manual_seed(0))
    assert roughness(linear(), everywhere).item() == pytest.approx(0, abs=1e-6)
    single, double = (roughness(linear() + k * noise, everywhere).item() for k in (1, 2))
    assert single > 0.5 and double == pytest.approx(2 * single, rel=1e-5)


def test_an_edge_at_the_outline_does_not_count():
    inside = torch.zeros(1, 1, 8, 8)
    inside[..., 2:7, 2:7] = 1
    assert roughness(linear() * inside, inside).item() == pytest.approx(0, abs=1e-6)
    assert roughness(linear() * inside, torch.ones(1, 1, 8, 8)).item() > 0.1
    assert roughness(linear(), torch.zeros(1, 1, 8, 8)).isnan().all()


def test_each_flow_has_its_own_roughness_under_one_mask():
    noise = torch.randn(1, 2, 8, 8, generator=torch.manual_seed(0))
    both = roughness(torch.cat([linear(), noise]), torch.ones(1, 1, 8, 8))
    assert both[0] < 1e-5 < roughness(noise, torch.ones(1, 1, 8, 8)).item() == pytest.approx(both[1].item())


def test_flows_disagree_where_they_count():
    flows, inside = linear().expand(4, -1, -1, -1).clone(), torch.ones(1, 1, 8, 8)
    assert disagreement(flows, inside) == pytest.approx(0, abs=1e-6)
    flows[0, :, 0] += 8
    assert disagreement(flows, inside) > 0.1
    inside[..., 0, :] = 0
    assert disagreement(flows, inside) == pytest.approx(0, abs=1e-6)
