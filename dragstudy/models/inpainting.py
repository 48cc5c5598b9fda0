"""The inpainting U-Net: it fills in what a mask frees and sees the rest of the picture.

LightningDrag, Sec. 4.2.1, takes Stable Diffusion's. Beside the noisy latents it has a channel for the mask
and the masked picture's latents: nine channels for four latent ones.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dragstudy.models.backbone import widen


def make_inpainting(backbone: UNet2DConditionModel) -> UNet2DConditionModel:
    """Widen a backbone by the mask and the masked latents, `c + 1` zero-initialised channels.

    Args:
        backbone: Any Stable Diffusion U-Net, `in_channels` = latent channels; it is left as it was.
    """
    return widen(backbone, backbone.config.in_channels + 1)


def inpainting_conditions(
    latents: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b c+1 h w"]:
    """The channels that follow the noisy latents: mask, masked latents.

    They are masked on their own grid, as in the paper. Stable Diffusion's inpainting model was trained with
    latents of pictures whose pixels are masked; for it, give those latents.

    Args:
        latents: Scaled latents of the picture.
        mask: 1 = may change.
    """
    return torch.cat([mask, latents * (1 - mask)], dim=1)


def draw_masks(
    count: int, size: tuple[int, int], generator: torch.Generator, *, whole: float = 0.2
) -> Float[Tensor, "b 1 h w"]:
    """Masks to learn inpainting from: unions of one to three boxes and ellipses, or the whole picture.

    Args:
        count: How many.
        size: `(height, width)`.
        generator: Source of randomness.
        whole: Share of masks that free the whole picture, as an edit of everything does.

    Returns:
        `(count, 1, height, width)`, 1 = may change.
    """
    ys, xs = (torch.linspace(-1, 1, side) for side in size)
    masks = torch.zeros(count, 1, *size)
    for mask in masks:
        if torch.rand((), generator=generator) < whole:
            mask.fill_(1)
            continue
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            draw = torch.rand(5, generator=generator)
            (x, y), (width, height) = 1.6 * draw[:2] - 0.8, 0.15 + 0.75 * draw[2:4]
            dx, dy = (xs - x).abs() / width, (ys - y).abs()[:, None] / height
            inside = dx.maximum(dy) <= 1 if draw[4] < 0.5 else dx**2 + dy**2 <= 1
            mask.masked_fill_(inside, 1)
    return masks
