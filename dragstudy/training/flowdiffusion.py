"""Train FlowDiffusion from the backbone: denoise the target given the source and the masked flow."""

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from torch import Tensor

from dragstudy.flow import normalize_flow
from dragstudy.models.backbone import NullPrompt
from dragstudy.models.flowdiffusion import drop_flow, flow_conditions, flow_variant
from dragstudy.training.backbone import BackboneTask


class FlowDiffusionTask(BackboneTask):
    """Losses of FlowDiffusion, InstantDrag Sec. 3.1.2.

    A batch has `source_latents` (of the composite condition image), `target_latents`, `(b, c, h, w)`, and
    `flow`, `(b, 2, h, w)` in pixels of the latent grid, masked; for `"splat"` also `moved_latents` and
    `coverage`.

    The image condition is dropped 5 % of the time, always together with the flow; the flow 10 % of the time.
    These are the three rows of the guidance: nothing, image, image and flow.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
        *,
        flow_scale: float = 1.0,
        drop_image: float = 0.05,
        drop_flow: float = 0.10,
        normalization: str = "fixed",
        validation: dict[str, Tensor] | None = None,
    ):
        super().__init__(unet, null_prompt, scheduler, validation=validation)
        self.variant, self.flow_scale = flow_variant(unet), flow_scale
        self.drop_image, self.drop_flow = drop_image, drop_flow
        if normalization not in ("fixed", "sample"):
            raise ValueError(f"normalization must be 'fixed' or 'sample', got {normalization!r}")
        self.normalization = normalization

    def conditions(self, batch: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
        source, flow = batch["source_latents"].float(), batch["flow"].float()
        if self.normalization == "sample":
            flow = sample_as_fixed(flow)
        moved = None
        if self.variant == "splat":
            moved = batch["moved_latents"].float(), batch["coverage"].float()
        full = flow_conditions(source, flow, moved, flow_scale=self.flow_scale)
        draw = torch.rand(len(full), 1, 1, 1, generator=generator).to(full)
        kept = torch.where(draw < self.drop_flow, drop_flow(full, source.shape[1]), full)
        return [torch.where(draw < self.drop_image, torch.zeros_like(full), kept)]


def sample_as_fixed(flow: Tensor) -> Tensor:
    """A flow that becomes, divided by the size of its grid, what sample-wise normalisation makes of `flow`.

    The network's conditions are normalised by that size (`flow_conditions`). Of this flow, whose largest
    displacement along each axis is the whole picture, they show the shape and no longer the size: the
    alternative of InstantDrag's Sec. 3.2.4.

    Args:
        flow: On the grid of the latents, `(b, 2, h, w)`.
    """
    h, w = flow.shape[-2:]
    return normalize_flow(flow, "sample")[0] * flow.new_tensor([w, h]).view(1, 2, 1, 1)
