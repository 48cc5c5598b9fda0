"""FlowGen and its discriminator: the published sizes, the published skip connection, saving and loading."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.models.flowgen import FlowGen, PatchDiscriminator

from ..tiny import tiny_flowgen


@pytest.mark.parametrize(
    ("network", "parameters", "tensors"), [(FlowGen, 54_419_458, 58), (PatchDiscriminator, 15_358_145, 28)]
)
def test_published_sizes(network, parameters, tensors):
    with torch.device("meta"):
        state = network().state_dict()
    assert (sum(value.numel() for value in state.values()), len(state)) == (parameters, tensors)


@pytest.mark.parametrize(("num_downs", "size"), [(3, (8, 8)), (3, (64, 24)), (6, (64, 128))])
def test_the_flow_has_the_image_s_size_and_lies_within_one(num_downs, size):
    flowgen = FlowGen(base_channels=4, num_downs=num_downs, norm_groups=2).eval()
    flow = flowgen(torch.rand(2, 3, *size), torch.zeros(2, 2, *size))
    assert flow.shape == (2, 2, *size) and flow.abs().max() <= 1


def test_the_published_discriminator_judges_two_by_two_patches():
    with torch.device("meta"):
        image, flow = torch.zeros(1, 3, 256, 256), torch.zeros(1, 2, 256, 256)
        assert PatchDiscriminator()(image, flow, flow).shape == (1, 1, 2, 2)


class PublishedBlock(nn.Module):
    """pix2pix's recursive block with its activation in place, so `x` changes before it is concatenated."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.model = nn.Sequential(nn.LeakyReLU(0.2, inplace=True), *layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], dim=1)


def published(flowgen: FlowGen) -> nn.Module:
    """The recursive network of the authors around the layers of ours."""
    inner = None
    for level in reversed(range(len(flowgen.downs))):
        down = [flowgen.downs[level], flowgen.down_norms[level]]
        up = [nn.ReLU(inplace=True), flowgen.ups[level], flowgen.up_norms[level], flowgen.dropouts[level]]
        layers = [*down, *([inner] if inner else []), *up]
        inner = PublishedBlock(*layers) if level else nn.Sequential(*layers, nn.Tanh())
    return inner


@pytest.mark.parametrize("num_downs", [2, 5])
def test_skips_carry_activated_features_as_in_the_published_network(num_downs):
    flowgen = FlowGen(base_channels=4, num_downs=num_downs, norm_groups=2).eval()
    image, sparse = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 2, 32, 32)
    assert_close(flowgen(image, sparse), published(flowgen)(torch.cat([image, sparse], dim=1)))


def test_a_saved_generator_gives_the_same_flow(tmp_path):
    flowgen, inputs = tiny_flowgen(), (torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16))
    flowgen.save_pretrained(tmp_path)
    again = FlowGen.from_pretrained(tmp_path)
    assert not again.training and again.config.num_downs == 3
    assert_close(again(*inputs), flowgen(*inputs))


def test_a_saved_discriminator_gives_the_same_logits(tmp_path):
    discriminator = PatchDiscriminator(base_channels=4, num_layers=2, norm_groups=2).eval()
    inputs = (torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16), torch.rand(1, 2, 16, 16))
    discriminator.save_pretrained(tmp_path)
    assert_close(PatchDiscriminator.from_pretrained(tmp_path)(*inputs), discriminator(*inputs))
