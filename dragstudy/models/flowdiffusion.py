"""FlowDiffusion: a Stable Diffusion U-Net that also sees the source image and the flow.

InstantDrag, Sec. 3.1.2. The conditions enter as extra input channels whose weights start at zero, so the
first training step computes exactly what the backbone computed.
"""

from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dragstudy.flow import forward_splat, normalize_flow, resize_flow

FlowVariant = Literal["concat", "splat"]


def condition_channels(latent_channels: int, variant: FlowVariant) -> int:
    """Number of input channels beside the noisy latents.

    `"concat"` (the paper's): image latents, flow. `"splat"`: also the image latents moved along the flow, and
    which places they cover.
    """
    if variant == "concat":
        return latent_channels + 2
    if variant == "splat":
        return 2 * latent_channels + 3
    raise ValueError(f"variant must be 'concat' or 'splat', got {variant!r}")


def make_flowdiffusion(backbone: UNet2DConditionModel, variant: FlowVariant) -> UNet2DConditionModel:
    """Widen a backbone's first convolution by zero-initialised condition channels.

    Args:
        backbone: Any Stable Diffusion U-Net, `in_channels` = latent channels; it is left as it was.
        variant: `"concat"` (10 channels for four latent channels) or `"splat"` (15).

    Returns:
        A new U-Net of the same class whose output equals the backbone's while its conditions have no weight.
    """
    latent_channels = backbone.config.in_channels
    in_channels = latent_channels + condition_channels(latent_channels, variant)
    unet = UNet2DConditionModel.from_config({**backbone.config, "in_channels": in_channels})
    state = backbone.state_dict()
    narrow = state["conv_in.weight"]
    state["conv_in.weight"] = narrow.new_zeros(narrow.shape[0], in_channels, *narrow.shape[2:])
    state["conv_in.weight"][:, :latent_channels] = narrow
    unet.load_state_dict(state)
    return unet


def flow_variant(unet: nn.Module) -> FlowVariant:
    """Tell a FlowDiffusion U-Net's variant from its number of input channels."""
    latent_channels = unet.config.out_channels
    for variant in ("concat", "splat"):
        if unet.config.in_channels == latent_channels + condition_channels(latent_channels, variant):
            return variant
    raise ValueError(
        f"a FlowDiffusion U-Net with {latent_channels} latent channels has {2 * latent_channels + 2} or "
        f"{3 * latent_channels + 3} input channels, got {unet.config.in_channels}"
    )


def flow_conditions(
    image_latents: Tensor, flow: Tensor, variant: FlowVariant, *, flow_scale: float = 1.0
) -> Tensor:
    """Build the condition channels from the source's latents and a dense flow.

    The flow is resized to the latent grid and divided by the grid's size (InstantDrag, Sec. 3.2.4, fixed-size
    normalisation), so it is the same fraction of the picture at any resolution.

    Args:
        image_latents: The source's latents, `(b, c, h, w)`.
        flow: Forward flow in pixels of its own grid, `(b, 2, H, W)`.
        variant: `"concat"` or `"splat"`.
        flow_scale: Factor on the normalised flow. The paper's is 1, and leaves values of a few hundredths; a
            network that trains for minutes learns sooner from values nearer to one.

    Returns:
        `(b, c + 2, h, w)` or `(b, 2c + 3, h, w)`: image latents, flow[, splatted latents, coverage in [0,
        1]].
    """
    latent_flow = resize_flow(flow, tuple(image_latents.shape[-2:]), mode="area")
    normed, _ = normalize_flow(latent_flow, "fixed")
    channels = [image_latents, flow_scale * normed]
    if variant == "splat":
        channels += forward_splat(image_latents, latent_flow, mode="average")
    return torch.cat(channels, dim=1)


def drop_flow(conditions: Tensor, latent_channels: int) -> Tensor:
    """Zero what derives from the flow and keep the image latents: the classifier-free "image only" row."""
    dropped = torch.zeros_like(conditions)
    dropped[:, :latent_channels] = conditions[:, :latent_channels]
    return dropped
