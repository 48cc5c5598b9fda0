"""FlowDiffusion: a Stable Diffusion U-Net that also sees the source image and the flow.

InstantDrag, Sec. 3.1.2. The conditions enter as extra input channels whose weights start at zero, so the
first training step computes exactly what the backbone computed.
"""

from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy.flow import fill_holes, forward_splat, normalize_flow, resize_flow
from dragstudy.models.autoencoder import encode
from dragstudy.models.backbone import widen

FlowVariant = Literal["concat", "splat"]


def condition_channels(latent_channels: int, variant: FlowVariant) -> int:
    """Number of input channels beside the noisy latents.

    `"concat"` (the paper's): image latents, flow. `"splat"`: also the latents of the image moved along the
    flow, and which places it covers.
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
    return widen(backbone, condition_channels(backbone.config.in_channels, variant))


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


@torch.no_grad()
def move_and_encode(autoencoder: nn.Module, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Move an image along a flow, pixel by pixel, and encode what comes out.

    Latents cannot be moved themselves by less than a cell of 8 x 8 px: what lies within a cell is spread over
    its channels. Where two pixels meet the faster hides the slower, since the person moves in front of what
    stays; what nothing reaches is filled smoothly and counted as not covered.

    Args:
        autoencoder: See `dragstudy.models.autoencoder.encode`.
        image: `(b, 3, h, w)` in [-1, 1].
        flow: Forward flow in pixels of the image, `(b, 2, h, w)`.

    Returns:
        Scaled latents `(b, c, h/8, w/8)`, and the share of each cell that is covered, `(b, 1, h/8, w/8)`.
    """
    length = flow.norm(dim=1, keepdim=True)
    moved, coverage = forward_splat(image.float(), flow, mode="softmax", importance=length)
    latents = encode(autoencoder, fill_holes(moved, coverage).to(image).contiguous()).float()
    return latents, F.adaptive_avg_pool2d(coverage, tuple(latents.shape[-2:]))


def flow_conditions(
    image_latents: Tensor,
    flow: Tensor,
    moved: tuple[Tensor, Tensor] | None = None,
    *,
    flow_scale: float = 1.0,
) -> Tensor:
    """Build the condition channels from the source's latents and a dense flow.

    The flow is resized to the latent grid and divided by the grid's size (InstantDrag, Sec. 3.2.4, fixed-size
    normalisation), so it is the same fraction of the picture at any resolution.

    Args:
        image_latents: The source's latents, `(b, c, h, w)`.
        flow: Forward flow in pixels of its own grid, `(b, 2, H, W)`.
        moved: Latents of the moved source and their coverage (`move_and_encode`), for `"splat"`; None for
            `"concat"`.
        flow_scale: Factor on the normalised flow. The paper's is 1, and leaves values of a few hundredths; a
            network that trains for minutes learns sooner from values nearer to one.

    Returns:
        `(b, c + 2, h, w)` or `(b, 2c + 3, h, w)`: image latents, flow[, moved latents, coverage in [0, 1]].
    """
    latent_flow = resize_flow(flow, tuple(image_latents.shape[-2:]), mode="area")
    normed, _ = normalize_flow(latent_flow, "fixed")
    return torch.cat([image_latents, flow_scale * normed, *(moved or ())], dim=1)


def drop_flow(conditions: Tensor, latent_channels: int) -> Tensor:
    """Zero what derives from the flow and keep the image latents: the classifier-free "image only" row."""
    dropped = torch.zeros_like(conditions)
    dropped[:, :latent_channels] = conditions[:, :latent_channels]
    return dropped
