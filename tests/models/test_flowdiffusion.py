"""FlowDiffusion: it starts as its backbone, and its conditions hold what the paper says."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.flow import forward_splat, normalize_flow, resize_flow
from dragstudy.models.autoencoder import encode, make_autoencoder
from dragstudy.models.flowdiffusion import (
    condition_channels,
    drop_flow,
    flow_conditions,
    flow_variant,
    make_flowdiffusion,
    move_and_encode,
)

from ..tiny import tiny_autoencoder, tiny_backbone

CHANNELS = [("concat", 10), ("splat", 15)]


def flow_of(size: int, x: float, y: float, batch: int = 1) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(batch, 2, size, size)


@pytest.mark.parametrize(("variant", "channels"), CHANNELS)
def test_at_the_start_the_output_is_the_backbone_s(variant, channels):
    backbone = tiny_backbone()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    unet = make_flowdiffusion(backbone, variant).eval()
    assert unet.config.in_channels == channels and flow_variant(unet) == variant
    latents, conditions, prompt = (
        torch.randn(2, 4, 8, 8),
        torch.randn(2, channels - 4, 8, 8),
        torch.randn(2, 1, 64),
    )
    widened = unet(torch.cat([latents, conditions], dim=1), 500, prompt).sample
    assert_close(widened, backbone(latents, 500, prompt).sample)
    assert backbone.config.in_channels == 4
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_widening_copies_the_weights():
    backbone = tiny_backbone()
    unet = make_flowdiffusion(backbone, "concat")
    with torch.no_grad():
        unet.conv_out.weight.add_(1)
    assert not torch.equal(unet.conv_out.weight, backbone.conv_out.weight)


@pytest.mark.parametrize("latent_channels", [4, 16])
def test_channels_follow_the_autoencoder(latent_channels):
    assert make_autoencoder(latent_channels, width=8).config.latent_channels == latent_channels
    assert condition_channels(latent_channels, "concat") == latent_channels + 2
    assert condition_channels(latent_channels, "splat") == 2 * latent_channels + 3


def test_an_unknown_variant_and_a_plain_backbone_are_refused():
    with pytest.raises(ValueError, match="'concat' or 'splat', got 'warp'"):
        condition_channels(4, "warp")
    with pytest.raises(ValueError, match="10 or 15 input channels, got 4"):
        flow_variant(tiny_backbone())


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_conditions_are_image_latents_scaled_flow_moved_latents_and_coverage(scale, generator):
    latents, moved = torch.randn(2, 2, 4, 8, 8, generator=generator)
    coverage = torch.rand(2, 1, 8, 8, generator=generator)
    flow = 5 * torch.randn(2, 2, 64, 64, generator=generator)
    conditions = flow_conditions(latents, flow, (moved, coverage), flow_scale=scale)
    latent_flow = resize_flow(flow, (8, 8), mode="area")
    assert_close(conditions[:, :4], latents)
    assert_close(conditions[:, 4:6], scale * normalize_flow(latent_flow, "fixed")[0])
    assert_close(conditions[:, 6:10], moved)
    assert_close(conditions[:, 10:], coverage)
    assert_close(flow_conditions(latents, flow, flow_scale=scale), conditions[:, :6])


def test_the_flow_enters_as_a_fraction_of_the_picture_at_any_resolution():
    latents = torch.zeros(1, 4, 8, 8)
    for size in (8, 64, 256):
        flow = flow_of(size, 0.25 * size, -0.5 * size)
        channels = flow_conditions(latents, flow)[0, 4:]
        assert_close(channels, torch.tensor([0.25, -0.5]).view(2, 1, 1).expand(2, 8, 8))


def test_without_motion_the_moved_latents_are_those_of_the_image(generator):
    image = 2 * torch.rand(2, 3, 64, 64, generator=generator) - 1
    autoencoder = tiny_autoencoder()
    latents, coverage = move_and_encode(autoencoder, image, torch.zeros(2, 2, 64, 64))
    assert_close(latents, encode(autoencoder, image))
    assert coverage.shape == (2, 1, 8, 8) and coverage.min() == 1


def test_moved_latents_are_those_of_the_moved_image(generator):
    image = 2 * torch.rand(1, 3, 64, 128, generator=generator) - 1
    autoencoder = tiny_autoencoder()
    with torch.no_grad():
        wanted = encode(autoencoder, image.roll(16, dims=3))
        latents, coverage = move_and_encode(autoencoder, image, flow_of(1, 16, 0).expand(1, 2, 64, 128))
    far = slice(10, None)  # beyond the reach of the hole at the left border
    assert_close(latents[..., far], wanted[..., far])
    assert coverage[..., :2].max() == 0 and coverage[..., 2:].min() == 1


def test_the_faster_pixel_hides_the_slower():
    image = torch.full((1, 3, 16, 16), -1.0)
    flow = torch.zeros(1, 2, 16, 16)
    image[..., :8], flow[:, 0, :, :8] = 1.0, 8.0
    moved, _ = forward_splat(image, flow, mode="softmax", importance=flow.norm(dim=1, keepdim=True))
    assert moved[..., 8:].min() > 0.99


@pytest.mark.parametrize(("variant", "channels"), CHANNELS)
def test_dropping_the_flow_keeps_the_image_latents_alone(variant, channels, generator):
    conditions = torch.randn(2, channels - 4, 8, 8, generator=generator)
    before = conditions.clone()
    dropped = drop_flow(conditions, 4)
    assert torch.equal(dropped[:, :4], conditions[:, :4]) and not dropped[:, 4:].any()
    assert torch.equal(conditions, before)
