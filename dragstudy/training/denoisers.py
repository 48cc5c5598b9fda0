"""Diffusion models with their conditions and guidance, as distillation and sampling see them."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dragstudy.attention import attend_to_reference, exchange_attention
from dragstudy.guidance import guidance_rows, guidance_weight, guide, schedule_times
from dragstudy.models.appearance import AppearanceEncoder, keys_and_values
from dragstudy.models.backbone import NullPrompt
from dragstudy.models.flowdiffusion import FlowVariant, drop_flow, flow_conditions
from dragstudy.models.inpainting import inpainting_conditions
from dragstudy.models.points import CELL, PointEmbedding
from dragstudy.training.lightning import draw_points

TIMESTEPS = 1000  # of training, in Stable Diffusion and here


class Denoiser(Protocol):
    """A diffusion model's conditions, as distillation and sampling see them."""

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        """The clean latents of a batch, `(b, c, h, w)`."""
        ...

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> Any:
        """Conditions of a batch, once for all predictions about it."""
        ...

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, prepared: Any, *, guided: bool
    ) -> Tensor:
        """A network's prediction in single precision for noisy latents `(b, c, h, w)` at timesteps `(b,)`.

        `guided` combines the rows of the model's guidance; else it is the row with all conditions.
        """
        ...


class FlowDiffusionDenoiser:
    """FlowDiffusion's conditions and its guidance over nothing, image, and image with flow (`"image_flow"`).

    A batch is one of `dragstudy.training.latents.LatentPairs`.

    Args:
        variant: `"concat"` or `"splat"`.
        null_prompt: The embedding for "no prompt".
        flow_scale: What the network was trained with.
        image_guidance_scale: s_I of the guided prediction.
        flow_guidance_scale: s_F of it.
    """

    def __init__(
        self,
        variant: FlowVariant,
        null_prompt: NullPrompt,
        *,
        flow_scale: float = 1.0,
        image_guidance_scale: float = 1.0,
        flow_guidance_scale: float = 1.0,
    ):
        self.variant, self.null_prompt, self.flow_scale = variant, null_prompt, flow_scale
        rows = len(guidance_rows("image_flow"))
        scales = {"image": image_guidance_scale, "flow": flow_guidance_scale}
        self.weights = (
            guide(torch.eye(rows).view(rows, rows, 1, 1, 1), "image_flow", scales).flatten().tolist()
        )

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["target_latents"].float()

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Condition channels, `(b, channels, h, w)`; nothing is drawn and nothing dropped."""
        moved = None
        if self.variant == "splat":
            moved = batch["moved_latents"].float(), batch["coverage"].float()
        source, flow = batch["source_latents"].float(), batch["flow"].float()
        return flow_conditions(source, flow, moved, flow_scale=self.flow_scale)

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, prepared: Tensor, *, guided: bool
    ) -> Tensor:
        rows, weights = [prepared], [1.0]
        if guided:  # equal scales leave out "image alone", and an image's scale of 1 leaves out "nothing"
            chain = torch.zeros_like(prepared), drop_flow(prepared, noisy.shape[1]), prepared
            used = [(row, weight) for row, weight in zip(chain, self.weights, strict=True) if weight]
            rows, weights = zip(*used, strict=True)
        inputs = torch.cat([torch.cat([noisy, row], dim=1) for row in rows])
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        prompts = self.null_prompt.to(noisy.device)(len(inputs))
        predicted = network(inputs, timesteps.repeat(len(rows)), prompts).sample.float()
        return sum(weight * row for weight, row in zip(weights, predicted.chunk(len(rows)), strict=True))


class LightningDenoiser:
    """LightningDrag's conditions and its point-following guidance (Eq. 5), which a schedule lets fall.

    A batch is one of `dragstudy.training.lightning_latents.LightningLatents`. What the photograph and the
    points say is the same for teacher and student; keys and values of the reference are each network's own.

    Args:
        appearance: The appearance encoder; frozen here.
        points: The point embedding; frozen here.
        null_prompt: The embedding for "no prompt".
        max_points: Each pair shows from 1 to this many of its points.
        point_guidance_scale: omega_max of the guided prediction.
        guidance_schedule: How it falls over time, see `dragstudy.guidance.guidance_weight`.
    """

    def __init__(
        self,
        appearance: AppearanceEncoder,
        points: PointEmbedding,
        null_prompt: NullPrompt,
        *,
        max_points: int = 20,
        point_guidance_scale: float = 3.0,
        guidance_schedule: str = "inverse_square",
    ):
        self.appearance, self.points = (one.eval().requires_grad_(False) for one in (appearance, points))
        self.null_prompt, self.max_points = null_prompt, max_points
        self.scale, self.schedule = point_guidance_scale, guidance_schedule

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["target_latents"].float()

    @torch.no_grad()
    def prepare(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor], Mapping[str, tuple[Tensor, Tensor]]]:
        """Channels after the noise `(b, c + 1, h, w)`, features of the photograph, embeddings of the points.

        Embeddings have `2b` rows, those of no points first.
        """
        source, mask = batch["source_latents"].float(), batch["mask"].float()
        drags = batch["handle_points"], batch["target_points"]
        *drags, identifiers = draw_points(*drags, self.max_points, generator)
        size = (CELL * source.shape[2], CELL * source.shape[3])
        embeddings = self.points.to(source.device).guidance_rows(*drags, size, identifiers)
        prompts = self.null_prompt.to(source.device)(len(source))
        features = self.appearance.to(source.device)(source, prompts)
        return inpainting_conditions(source, mask), features, embeddings

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, prepared: Any, *, guided: bool
    ) -> Tensor:
        conditions, features, embeddings = prepared
        guided = guided and self.scale != 1
        rows = 2 if guided else 1  # without points, with them
        exchange = attend_to_reference(keys_and_values(network, features), embeddings)
        inputs = torch.cat([noisy, conditions], dim=1).repeat(rows, 1, 1, 1)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        prompts = self.null_prompt.to(noisy.device)(len(inputs))
        with exchange_attention(network, list(features), exchange):
            predicted = network(inputs, timesteps.repeat(rows), prompts).sample.float()
        if not guided:
            return predicted
        without, following = predicted.chunk(2)
        times = schedule_times(timesteps, TIMESTEPS)
        weights = [guidance_weight(self.schedule, self.scale, time) for time in times]
        return without + noisy.new_tensor(weights).view(-1, 1, 1, 1) * (following - without)
