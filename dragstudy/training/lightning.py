"""Train LightningDrag: an appearance encoder and a point embedding learn to instruct an inpainting U-Net.

LightningDrag, Sec. 5.1: the inpainting U-Net is frozen, both others learn from the denoising loss. The tiny
weights train it along (`train_unet`).
"""

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from dragstudy.attention import attend_to_reference, exchange_attention
from dragstudy.models.appearance import AppearanceEncoder, keys_and_values
from dragstudy.models.backbone import NullPrompt
from dragstudy.models.inpainting import inpainting_conditions
from dragstudy.models.points import CELL, PointEmbedding
from dragstudy.training.backbone import BackboneTask


class LightningNetwork(nn.Module):
    """The three networks as one, from noisy latents, photograph and points to a prediction."""

    def __init__(self, unet: UNet2DConditionModel, appearance: AppearanceEncoder, points: PointEmbedding):
        super().__init__()
        self.unet, self.appearance, self.points = unet, appearance, points

    def forward(
        self, inputs: Tensor, timesteps: Tensor, prompts: Tensor, source: Tensor, maps: Tensor
    ) -> Tensor:
        """Predict for the inputs `(b, 2c + 1, h, w)` of the inpainting U-Net.

        Args:
            inputs: Noisy latents, mask, masked latents.
            timesteps: `(b,)`.
            prompts: The null prompt of each sample.
            source: Latents of the photographs, `(b, c, h, w)`.
            maps: Point maps.
        """
        features = self.appearance(source, prompts)
        exchange = attend_to_reference(keys_and_values(self.unet, features), self.points(maps))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with exchange_attention(self.unet, list(features), exchange):
            return self.unet(inputs, timesteps, prompts).sample.float()


class LightningTask(BackboneTask):
    """Losses of LightningDrag.

    A batch has `source_latents` and `target_latents` `(b, c, h, w)` that agree outside of `mask`
    `(b, 1, h, w)`, and `handle_points` and `target_points` `(b, n, 2)` in pixels, padded with NaN.

    Args:
        unet: The inpainting U-Net.
        appearance: Trained.
        points: Trained.
        null_prompt: The embedding for "no prompt".
        scheduler: The noise schedule and kind of prediction that `unet` was trained with.
        train_unet: Whether the inpainting U-Net learns, too. In the paper it is frozen: there it is Stable
            Diffusion's, with self-attention at every resolution. The tiny backbone has it at the two middle
            ones, and learned faster along; frozen, with the projections of "origins" from random, is untried.
        max_points: Each pair shows from 1 to this many of its points.
        drop_points: Share of pairs that show none, for point-following guidance (Eq. 5).
        validation: A batch.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        appearance: AppearanceEncoder,
        points: PointEmbedding,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
        *,
        train_unet: bool = False,
        max_points: int = 20,
        drop_points: float = 0.1,
        validation: dict[str, Tensor] | None = None,
    ):
        super().__init__(unet, null_prompt, scheduler, validation=validation)
        self.networks = {"lightning": LightningNetwork(unet.requires_grad_(train_unet), appearance, points)}
        self.points = points
        self.max_points, self.drop_points = max_points, drop_points

    def losses(self, batch: dict, generator: torch.Generator):
        yield "lightning", self.loss(batch, generator), {}

    def predict(
        self, noisy: Tensor, timesteps: Tensor, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        source, mask = batch["source_latents"].float(), batch["mask"].float()
        *drags, identifiers = draw_points(
            batch["handle_points"], batch["target_points"], self.max_points, generator
        )
        dropped = torch.rand(len(noisy), 1, 1, generator=generator).to(noisy) < self.drop_points
        drags = [points.masked_fill(dropped, torch.nan) for points in drags]
        size = (CELL * noisy.shape[2], CELL * noisy.shape[3])
        maps = self.points.maps(*drags, size, identifiers)
        prompts = self.null_prompt.to(noisy.device)(len(noisy))
        inputs = torch.cat([noisy, inpainting_conditions(source, mask)], dim=1)
        return self.networks["lightning"](inputs, timesteps, prompts, source, maps)

    def validate(self) -> dict[str, float]:
        """The loss with points and without any; the difference is what the points tell."""
        rate, losses = self.drop_points, []
        for self.drop_points in (0.0, 1.0):
            losses.append(super().validate())
        self.drop_points = rate
        return {**losses[0], **{f"{name}_without_points": value for name, value in losses[1].items()}}


def draw_points(
    handle_points: Float[Tensor, "b n 2"],
    target_points: Float[Tensor, "b n 2"],
    max_points: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b m 2"], Float[Tensor, "b m 2"], Int[Tensor, "b m"]]:
    """Choose 1 to `max_points` of each sample's points at random, and identifiers for them (Sec. 4.2.3).

    Returns:
        Handle points, target points, padded with NaN, and different identifiers from 1 to `max_points`.
    """
    b, n, _ = handle_points.shape
    known = (handle_points + target_points).isfinite().all(dim=2)
    rank = torch.rand(b, n, generator=generator).to(handle_points) + ~known
    order = rank.argsort(dim=1)[:, :max_points, None].expand(-1, -1, 2)
    count = 1 + torch.randint(max_points, (b, 1), generator=generator).to(handle_points)
    surplus = torch.arange(order.shape[1], device=count.device) >= count
    drawn = [
        points.gather(1, order).masked_fill(surplus[..., None], torch.nan)
        for points in (handle_points, target_points)
    ]
    identifiers = 1 + torch.rand(b, max_points, generator=generator).argsort(dim=1)
    return *drawn, identifiers[:, : order.shape[1]]
