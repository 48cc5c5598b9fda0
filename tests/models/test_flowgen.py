"""FlowGen and its discriminator: the published sizes, the published skip connection, saving and loading."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.interpolation import interpolate_sparse
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


def drags_of(count: int = 6, size: int = 64) -> Tensor:
    """Sparse flows in pixels, `(2, 2, size, size)`, with a few drags each."""
    generator = torch.Generator().manual_seed(3)
    sparse = torch.zeros(2, 2, size, size)
    for one in sparse:
        x, y = torch.randint(0, size, (2, count), generator=generator)
        one[:, y, x] = 9 * torch.randn(2, count, generator=generator)
    return sparse


def test_with_a_prior_an_untrained_generator_is_the_thin_plate():
    flowgen, sparse = tiny_flowgen(prior=True), drags_of()
    assert_close(flowgen.predict(torch.rand(2, 3, 64, 64), sparse), interpolate_sparse(sparse))


@torch.no_grad()
def test_with_a_prior_twice_the_drags_are_twice_the_flow():
    flowgen, sparse, image = tiny_flowgen(prior=True), drags_of(), torch.rand(2, 3, 64, 64)
    nn.init.normal_(flowgen.ups[0].weight)
    flow = flowgen.predict(image, sparse)
    assert_close(flowgen.predict(image, 2 * sparse), 2 * flow)
    assert (flow - interpolate_sparse(sparse)).abs().max() > 1


@torch.no_grad()
def test_with_a_prior_every_dragged_point_goes_where_it_is_dragged():
    flowgen, sparse = tiny_flowgen(prior=True), drags_of()
    nn.init.normal_(flowgen.ups[0].weight)
    flow = flowgen.predict(torch.rand(2, 3, 64, 64), sparse)
    dragged = sparse.any(dim=1, keepdim=True).expand_as(sparse)
    assert_close(flow[dragged], interpolate_sparse(sparse)[dragged])


@pytest.mark.parametrize("prior", [False, True])
def test_drags_and_flow_are_normalised_as_the_network_s_answer_is_brought_back(prior):
    """A network that gave the normalised flow itself would predict the flow."""
    flowgen, sparse = tiny_flowgen(prior), drags_of()
    normed, flow = flowgen.normalize(sparse, 0.5 * sparse)
    flowgen.forward = lambda image, given: flow if torch.equal(given, normed) else None
    wanted = 0.5 * sparse if prior else sparse  # published: the size of the drags, whatever was learned
    assert_close(flowgen.predict(torch.rand(2, 3, 64, 64), sparse), wanted)


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
