"""Train the inpainting U-Net from the backbone: denoise a picture given what lies outside of a mask."""

import torch
from torch import Tensor

from dragstudy.models.inpainting import draw_masks, inpainting_conditions
from dragstudy.training.backbone import BackboneTask


class InpaintingTask(BackboneTask):
    """Losses of the inpainting U-Net. A batch has `target_latents`, `(b, c, h, w)`; masks are drawn."""

    def conditions(self, batch: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
        latents = batch["target_latents"].float()
        mask = draw_masks(len(latents), tuple(latents.shape[-2:]), generator).to(latents)
        return [inpainting_conditions(latents, mask)]
