"""FlowGen normalised otherwise: flows by the picture's size, features channel by channel."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dragstudy.models.flowgen import FlowGen, PatchDiscriminator
from dragstudy.models.flowgen_variants import FLOWGENS, FixedFlowGen, InstanceFlowGen, use_instance_norm

TINY = {"base_channels": 8, "num_downs": 3, "norm_groups": 4}


def test_fixed_flows_are_divided_by_width_and_height():
    flow = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 16, 32)
    for sparse, dense in (FixedFlowGen(**TINY, prior=prior).normalize(flow, 2 * flow) for prior in (0, 1)):
        assert_close(sparse[0, :, 0, 0], torch.tensor([3 / 32, -4 / 16]))
        assert_close(dense, 2 * sparse)


def test_a_fixed_plate_answers_in_pixels():
    drags = torch.zeros(1, 2, 16, 32)
    drags[0, :, 4, 9], drags[0, :, 12, 20] = torch.tensor([6.0, 1.0]), torch.tensor([-2.0, 0.5])
    image = torch.rand(1, 3, 16, 32)
    fixed, own = (cls(**TINY, prior=True).eval().predict(image, drags) for cls in (FixedFlowGen, FlowGen))
    assert_close(fixed, own, rtol=1e-4, atol=1e-4)


def test_instance_norm_looks_at_one_channel_at_a_time():
    torch.manual_seed(0)
    flowgen = InstanceFlowGen(**TINY).eval()
    norms = [module for module in flowgen.modules() if isinstance(module, nn.GroupNorm)]
    x = torch.randn(2, norms[0].num_channels, 5, 7)
    assert_close(norms[0](x), nn.functional.instance_norm(x))
    assert all(norm.num_groups == norm.num_channels for norm in norms) and len(norms) == 3
    discriminator = PatchDiscriminator(8, num_layers=2, norm_groups=4)
    use_instance_norm(discriminator)
    assert {
        m.num_groups == m.num_channels for m in discriminator.modules() if isinstance(m, nn.GroupNorm)
    } == {True}


@pytest.mark.parametrize("name", FLOWGENS)
def test_variants_come_back_as_they_were_saved(name, tmp_path):
    torch.manual_seed(0)
    flowgen = FLOWGENS[name](**TINY).eval()
    flowgen.save_pretrained(tmp_path)
    again = FLOWGENS[name].from_pretrained(tmp_path).eval()
    image, drags = torch.rand(1, 3, 16, 16), torch.zeros(1, 2, 16, 16)
    drags[0, :, 4, 9] = torch.tensor([6.0, 1.0])
    assert torch.equal(flowgen.predict(image, drags), again.predict(image, drags))
    assert dict(flowgen.config)["norm_groups"] == 4 and type(again) is FLOWGENS[name]
