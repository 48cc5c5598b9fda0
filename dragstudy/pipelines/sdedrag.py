"""SDE-Drag: noise with a memory, copy and paste in the noise, and back by the same noises. No training."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from dragstudy.drags import resize_points
from dragstudy.inversion import CLEAN
from dragstudy.pipelines.base import DragPipelineOutput, Request, check_output_type
from dragstudy.pipelines.engineered import engineered
from dragstudy.pipelines.image_lora import ATTENTION, LoraSettings, image_lora, lora_file, merged_lora
from dragstudy.pipelines.latent import (
    LatentDragPipeline,
    OutsideMask,
    Steps,
    check_outside_mask,
    choose_settings,
    one_generator_each,
)
from dragstudy.pipelines.sdedrag_settings import PRESETS, SDEDragSettings, check_settings
from dragstudy.sde import (
    PatchMove,
    Predict,
    copy_and_paste,
    equal_levels,
    plan_rounds,
    remember_noises,
    sample_with_memory,
)


class SDEDragPipeline(LatentDragPipeline):
    r"""SDE-Drag (Nie et al., ICLR 2024): copies patches of noisy latents, without optimisation.

    Names in the paper: t_0 is `strength`, r `radius`, alpha `amplification`, beta `source_share`, m the
    number of rounds, $\bar w$ the remembered noises.

    Each round takes the picture up to t_0 by random steps, copies the patch around every point a bit towards
    its target, covers what it leaves with noise, and samples back with the noises that were remembered; the
    result is the next round's picture. These rounds follow from `step_length` and stay in the latents; the
    option `rounds` splits the drags into edits of their own.

    `"paper"` has the values of the authors' benchmark script, `"code"` those of their interface: half the
    steps, and a LoRA only on request. Both are meant for 512 x 512 pixels, 64 x 64 latent cells; lengths are
    not scaled to other sizes.

    In the code, unlike here: patches have 2 r cells a side, so the handle is not in their middle, and none
    reaches the last row or column, so a handle there is left out of its own patch; drags are pasted one by
    one, each reading what the one before wrote; an anchor is covered with noise and pasted onto itself,
    amplified; the schedules of guidance and LoRA overshoot their ends by one step; the latents are a sample
    of the autoencoder's, not its mode. Here an anchor's own latent cell is kept as a mask would keep it. In
    both, points are rounded to latent cells: a drag that ends in the cell where it began moves nothing.

    `"tiny"` is neither: with the tiny backbone the published values leave the dragged landmark where it was,
    because the noises that stay in place bring the old picture back. Here a patch takes its noises along, and
    is smaller: at 256 x 256, patches of the published size cost some faces their features.
    """

    @engineered
    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        preset: str | None = None,
        strength: float | None = None,
        step_length: float | None = None,
        radius: int | None = None,
        amplification: float | None = None,
        source_share: float | None = None,
        moving_noises: bool | None = None,
        guidance_scale: float | None = None,
        lora_steps: int | None = None,
        lora_rank: int | None = None,
        lora_scale: float | None = None,
        prompt_embeds: Tensor | None = None,
        outside_mask: OutsideMask = "photograph",
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
    ) -> DragPipelineOutput | tuple:
        """Edit one image, or a list of them, one after the other.

        Args:
            image: PIL, uint8 array, or float tensor `(3, h, w)` in [0, 1]; any size. A list makes a batch.
            handle_points: `(n, 2)` x, y in pixels of the image.
            target_points: `(n, 2)`; equal to its handle point it is an anchor, which is held.
            mask: `(h, w)`, 1 = may change; elsewhere the photograph's own latents stand at every noise level.
            preset: `"paper"`, `"code"`, `"tiny"`, or a time of InstantDrag's Table A1: `"50s"`, `"20s"`,
                `"10s"`, `"5s"`. The arguments that follow replace its values, see `SDEDragSettings`.
            strength: t_0 / T, in (0, 1].
            step_length: How far a round drags, in latent cells.
            radius: Of a patch, in latent cells.
            amplification: Factor on what is pasted.
            source_share: What stays at the source, in [0, 1].
            moving_noises: Whether a patch takes a copy of its remembered noises along.
            guidance_scale: Classifier-free guidance at t_0, at least 1; none without `prompt_embeds`.
            lora_steps: Steps of the photograph's LoRA. It is kept: a second edit trains none.
            lora_rank: Its rank.
            lora_scale: Its strength at t_0.
            prompt_embeds: Text embedding `(1, tokens, dim)` of the picture that is wanted.
            outside_mask: What stands where the mask forbids change: the `"photograph"`, what the
                `"autoencoder"` makes of it, or what the `"method"` does.
            num_inference_steps: Steps that the whole way from pure noise would have.
            generator: One generator, or one for each image of a batch.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: Whether to return a `DragPipelineOutput` or the tuple `(images, None)`.
            callback_on_step_end: Called as `(pipeline, step, timestep, tensors)` after every step of the LoRA
                and of the ways up and down; setting `pipeline._interrupt = True` ends all, and gives back
                what the last whole round made.

        Raises:
            ValueError: If an argument cannot be used; the sentence says what was given and what is allowed.
        """
        given = locals()
        # 1. Check the request
        check_output_type(output_type)
        check_outside_mask(outside_mask)
        names = SDEDragSettings.__dataclass_fields__
        settings = choose_settings(
            PRESETS, preset or self.config.preset, {name: given.get(name) for name in names}
        )
        check_settings(settings)
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        generators = one_generator_each(generator, len(requests))
        levels = equal_levels(self.scheduler, settings.num_inference_steps, settings.strength)
        plans = [_plan(request, settings) for request in requests]
        rounds = sum(map(len, plans))
        total = sum(map(bool, plans)) * settings.lora_steps + 2 * (len(levels) - 1) * rounds

        # 2. Edit one after the other
        edited = []
        with Steps(self, total, callback_on_step_end) as steps:
            for request, plan, source in zip(requests, plans, generators, strict=True):
                latents = self.edit(request, plan, settings, levels, prompt_embeds, steps, source)
                edited.append(self.decode_latents(latents))

        # 3. Back to the photographs
        output = self.finish_edits(requests, torch.cat(edited), outside_mask, output_type)
        return output if return_dict else (output.images, None)

    def edit(
        self,
        request: Request,
        plan: list[list[PatchMove]],
        settings: SDEDragSettings,
        levels: list[int],
        prompt_embeds: Tensor | None,
        steps: Steps,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Edited latents of a request; without rounds they are the autoencoder's own."""
        latents = self.encode_image(request)
        factors = (
            self.fit_lora(latents, prompt_embeds, settings, steps) if plan and not steps.interrupted else {}
        )
        protected = self.protected(request, latents)
        predict = self.predictor(factors, levels, prompt_embeds, settings)
        for moves in plan:
            if steps.interrupted:
                break
            latents = self.drag(latents, moves, predict, levels, protected, settings, steps, generator)
        return latents

    def drag(
        self,
        latents: Tensor,
        moves: list[PatchMove],
        predict: Predict,
        levels: list[int],
        protected: Tensor | None,
        settings: SDEDragSettings,
        steps: Steps,
        generator: torch.Generator | None,
    ) -> Tensor:
        """One round: up to t_0, copy and paste, and down again; what came in if it is interrupted."""

        def up(timestep: int, found: Tensor) -> bool:
            steps.end("adding noise", timestep, found)
            return not steps.interrupted

        def down(timestep: int, found: Tensor) -> Tensor | None:
            found = steps.end("denoising", timestep, found)
            return None if steps.interrupted else found

        memory = remember_noises(predict, latents, self.scheduler, levels, generator, on_step=up)
        if steps.interrupted:
            return latents
        noise = randn_tensor(latents.shape, generator, latents.device, latents.dtype)
        pasted = copy_and_paste(
            memory.latents[0],
            moves,
            amplification=settings.amplification,
            source_share=settings.source_share,
            noise=noise,
        )
        sampled = sample_with_memory(
            predict,
            pasted,
            self.scheduler,
            memory,
            moves=moves if settings.moving_noises else (),
            protected=protected,
            on_step=down,
        )
        return latents if sampled is None else sampled

    def predictor(
        self,
        factors: dict[str, Tensor],
        levels: list[int],
        prompt_embeds: Tensor | None,
        settings: SDEDragSettings,
    ) -> Predict:
        """The network, with guidance that grows and a LoRA that fades from the picture up to t_0."""
        null, text = self.prompts(None), self.prompts(prompt_embeds)
        shares = {level: (len(levels) - 1 - k) / (len(levels) - 1) for k, level in enumerate(levels)}

        def predict(latents: Tensor, timestep: int) -> Tensor:
            share = shares[timestep]
            scale = 1 + (settings.guidance_scale - 1) * share
            fading = (1 - math.cos(math.pi * share)) / 2
            with merged_lora(self.unet, _scaled(factors, 1 + (settings.lora_scale - 1) * fading)):
                predicted = self.predict(latents, timestep, text)
                if prompt_embeds is None or scale == 1:
                    return predicted
                return torch.lerp(self.predict(latents, timestep, null), predicted, scale)

        return predict

    def fit_lora(
        self, latents: Tensor, prompt_embeds: Tensor | None, settings: SDEDragSettings, steps: Steps
    ) -> dict[str, Tensor]:
        """The photograph's LoRA, from the cache where it is; as the code trains it."""
        layers, prompts = (*ATTENTION, "to_out.0"), self.prompts(prompt_embeds)
        wanted = LoraSettings(settings.lora_steps, 2e-4, layers, settings.lora_rank, batch_size=1)
        if lora_file(self.unet, latents, prompts, self.scheduler, wanted).is_file():
            steps.skip(settings.lora_steps)

        def on_step(step: int) -> bool:
            steps.end("LoRA", CLEAN, latents)
            return not steps.interrupted

        return image_lora(self.unet, latents, prompts, self.scheduler, wanted, on_step=on_step)

    def protected(self, request: Request, latents: Tensor) -> Tensor | None:
        """Latents that stay the photograph's, `(1, 1, h, w)`: outside of the mask, and under anchors."""
        mask = self.latent_mask(request, latents)
        if mask is None and not request.drags.anchors.any():
            return None
        mask = torch.ones_like(latents[:1, :1]) if mask is None else mask
        h, w = mask.shape[-2:]
        anchors = _cells(request)[request.drags.anchors].round()
        x, y = anchors.astype(int).clip(0, (w - 1, h - 1)).T
        mask[0, 0, y, x] = 0
        return mask == 0


def _plan(request: Request, settings: SDEDragSettings) -> list[list[PatchMove]]:
    """The rounds of a request; none where all drags are anchors."""
    if request.drags.anchors.all():
        return []
    handles, targets = torch.from_numpy(_cells(request)), torch.from_numpy(_cells(request, targets=True))
    width, height = _latent_size(request)
    options = {"step_length": settings.step_length, "radius": settings.radius}
    return plan_rounds(handles, targets, (height, width), **options)


def _latent_size(request: Request) -> tuple[int, int]:
    """(width, height) of a request's latents."""
    width, height = request.fit.working_size
    return width // 8, height // 8


def _cells(request: Request, targets: bool = False) -> np.ndarray:
    """Handle points, or target points, (x, y) in latent cells, `(n, 2)`."""
    drags = request.working_drags
    points = drags.target_points if targets else drags.handle_points
    return resize_points(points, request.fit.working_size, _latent_size(request))


def _scaled(factors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Factors of a LoRA of another strength."""
    return {name: factor * (scale if "lora_B" in name else 1) for name, factor in factors.items()}
