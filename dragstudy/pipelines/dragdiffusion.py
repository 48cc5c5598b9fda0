"""DragDiffusion: fit a LoRA to the photograph, invert it, drag its noise by its features, denoise."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dragstudy.attention import attend_to_first, exchange_attention, self_attention_layers
from dragstudy.drags import resize_points
from dragstudy.features import unet_features, watch
from dragstudy.inversion import CLEAN, MemoryBank, ddim_levels, ddim_step
from dragstudy.pipelines.base import DragPipelineOutput, Request, check_output_type
from dragstudy.pipelines.dragdiffusion_settings import PRESETS, DragDiffusionSettings, check_settings
from dragstudy.pipelines.engineered import engineered
from dragstudy.pipelines.image_lora import LoraSettings, image_lora, lora_file, merged_lora
from dragstudy.pipelines.latent import (
    LatentDragPipeline,
    OutsideMask,
    Steps,
    check_outside_mask,
    choose_settings,
    one_generator_each,
)
from dragstudy.supervision import motion_supervision_loss, patch_features, track_points

FEATURE_SCALE = 0.5  # features are brought to half the picture's sides, in paper and code for 512 x 512


class DragDiffusionPipeline(LatentDragPipeline):
    """DragDiffusion (Shi et al., CVPR 2024): optimises the latents of one noise level.

    Names in the paper: z_t is `latents` at the level that `inversion_strength` reaches, F its features, h_i
    `handle_points`, g_i `target_points`, M `mask`, lambda `mask_weight`, r_1 `supervision_radius`, r_2
    `tracking_radius`, eta `learning_rate`.

    What the published code does otherwise than the paper is `preset="code"`. In both presets here, unlike the
    code, handle points are not rounded, patches at the border are read instead of failing, anchors (drags of
    length 0) are held, and mutual attention looks at the inverted latents themselves, which do not drift.
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
        lora_steps: int | None = None,
        lora_learning_rate: float | None = None,
        inversion_strength: float | None = None,
        iterations: int | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        mask_weight: float | None = None,
        supervision_radius: int | None = None,
        tracking_radius: int | None = None,
        feature_block: str | None = None,
        loss_reduction: str | None = None,
        supervision_step: float | None = None,
        supervision_reference: str | None = None,
        tracking_reference: str | None = None,
        stop_distance: float | None = None,
        mutual_attention_blocks: tuple[str, ...] | None = None,
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
            mask: `(h, w)`, 1 = may change.
            preset: `"paper"`, `"code"`, or a time of InstantDrag's Table A1: `"75s"`, `"50s"`, `"20s"`,
                `"10s"`, `"5s"`; or `"tiny"`, ours for tiny backbones. The arguments that follow replace its
                values, see `DragDiffusionSettings`.
            lora_steps: Steps of the photograph's LoRA. It is kept: a second edit trains none.
            lora_learning_rate: Its learning rate.
            inversion_strength: Share of the DDIM steps that are inverted, in (0, 1].
            iterations: Steps of motion supervision at most.
            optimizer: `"adam"` or `"gradient"`.
            learning_rate: Of the latents.
            mask_weight: Weight of what changes outside of the mask.
            supervision_radius: Of the patch that is moved, in half pixels of the working image.
            tracking_radius: Of the square that a point is looked for in.
            feature_block: Such as `"up_blocks.2"`, see `dragstudy.features`.
            loss_reduction: `"sum"` or `"mean"` of the channels.
            supervision_step: How far ahead a patch is pulled, in half pixels.
            supervision_reference: `"current"` or `"initial"`.
            tracking_reference: `"current"` or `"initial"`.
            stop_distance: A point that is closer to its target has arrived.
            mutual_attention_blocks: Blocks in which the edit attends to the photograph.
            prompt_embeds: Text embedding `(1, tokens, dim)` in place of the null prompt.
            outside_mask: What stands where the mask forbids change: the `"photograph"`, what the
                `"autoencoder"` makes of it, or what the `"method"` does.
            num_inference_steps: Steps of DDIM from pure noise.
            generator: Accepted so that every method takes the same call; nothing here is random but the
                LoRA, which has a seed of its own.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: Whether to return a `DragPipelineOutput` or the tuple `(images, None)`.
            callback_on_step_end: Called as `(pipeline, step, timestep, tensors)` after every step of the LoRA
                (timestep -1), the inversion, the dragging and the denoising; latents that it gives back take
                the place of the dragged and the denoised ones. Setting `pipeline._interrupt = True` ends the
                call: images that are not done come back as the autoencoder makes them.

        Returns:
            Images; the handle points as they were tracked, and where they were before each iteration.

        Raises:
            ValueError: If an argument cannot be used; the sentence says what was given and what is allowed.
        """
        given = locals()
        # 1. Check the request
        check_output_type(output_type)
        check_outside_mask(outside_mask)
        names = DragDiffusionSettings.__dataclass_fields__
        settings = choose_settings(
            PRESETS, preset or self.config.preset, {name: given.get(name) for name in names}
        )
        check_settings(settings, self.unet)
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        one_generator_each(generator, len(requests))
        levels = ddim_levels(self.scheduler, settings.num_inference_steps, settings.inversion_strength)
        phases = settings.lora_steps + 2 * (len(levels) - 1) + settings.iterations

        # 2. Edit one after the other
        edited, tracks = [], []
        with Steps(self, len(requests) * phases, callback_on_step_end) as steps:
            for request in requests:
                latents, track = self.edit(request, settings, levels, self.prompts(prompt_embeds), steps)
                edited.append(self.decode_latents(latents))
                tracks.append(track)

        # 3. Back to the photographs
        output = self.finish_edits(requests, torch.cat(edited), outside_mask, output_type)
        output.trajectories = [
            _to_photograph(track, one) for track, one in zip(tracks, requests, strict=True)
        ]
        output.handle_points = [track[-1] for track in output.trajectories]
        return output if return_dict else (output.images, None)

    def edit(
        self,
        request: Request,
        settings: DragDiffusionSettings,
        levels: list[int],
        prompts: Tensor,
        steps: Steps,
    ) -> tuple[Tensor, Tensor]:
        """Edited latents of a request, and its handle points `(k, n, 2)` in pixels of the feature map."""
        latents = self.encode_image(request)
        still = _points(request.working_drags.handle_points, request)[None]
        if request.drags.anchors.all():  # nothing moves: there is no reason to go up and down again
            steps.skip(settings.lora_steps + 2 * (len(levels) - 1) + settings.iterations)
            return latents, still

        # Sec. 2.2: a LoRA, inversion, dragging, denoising; where one is interrupted nothing is edited
        factors = {} if steps.interrupted else self.fit_lora(latents, prompts, settings, steps)
        if steps.interrupted:
            return latents, still
        with merged_lora(self.unet, factors):
            bank = self.invert(latents, prompts, levels, steps)
            if steps.interrupted:
                return latents, still
            dragged, track = self.drag(request, bank, prompts, settings, steps)
            edited = self.denoise(dragged, bank, prompts, settings, steps)
        return latents if steps.interrupted else edited, track

    def fit_lora(
        self, latents: Tensor, prompts: Tensor, settings: DragDiffusionSettings, steps: Steps
    ) -> dict[str, Tensor]:
        """The photograph's LoRA, from the cache where it is."""
        wanted = LoraSettings(settings.lora_steps, settings.lora_learning_rate, settings.lora_layers)
        if lora_file(self.unet, latents, prompts, self.scheduler, wanted).is_file():
            steps.skip(settings.lora_steps)

        def on_step(step: int) -> bool:
            steps.end("LoRA", CLEAN, latents)
            return not steps.interrupted

        return image_lora(self.unet, latents, prompts, self.scheduler, wanted, on_step=on_step)

    def drag(
        self,
        request: Request,
        bank: MemoryBank,
        prompts: Tensor,
        settings: DragDiffusionSettings,
        steps: Steps,
    ) -> tuple[Tensor, Tensor]:
        """Motion supervision and point tracking in turn, on the noisiest latents of the bank (Sec. 2.3)."""
        drags, level = request.working_drags, bank.levels[0]
        handles = first = _points(drags.handle_points, request).to(bank.latents[0])
        targets = _points(drags.target_points, request).to(first)
        anchors = torch.from_numpy(drags.anchors).to(targets.device)
        protected = self.protected(request, bank.latents[0])
        look = _Look(self, bank, prompts, request.fit.working_size, settings, protected is not None)
        unedited, below = look(bank.latents[0])
        references = patch_features(unedited, first, settings.supervision_radius)
        referenced = anchors | (settings.supervision_reference == "initial")

        latents = bank.latents[0].clone().requires_grad_()
        kinds = {"adam": torch.optim.Adam, "gradient": torch.optim.SGD}
        optimizer = kinds[settings.optimizer]([latents], settings.learning_rate)
        track = [first]
        for iteration in range(settings.iterations):
            if steps.interrupted:
                break
            with torch.enable_grad():
                features, now_below = look(latents)
                if iteration:
                    handles = self.track(features, unedited, first, handles, settings)
                    track.append(handles)
                    if _arrived(handles, targets, anchors, settings.stop_distance):
                        steps.skip(settings.iterations - iteration)
                        break
                loss = motion_supervision_loss(
                    features,
                    handles,
                    targets,
                    radius=settings.supervision_radius,
                    step_length=settings.supervision_step,
                    reduction=settings.loss_reduction,
                    stop_distance=settings.stop_distance,
                    references=references,
                    referenced=referenced,
                )
                if protected is not None:  # the second term of Eq. 2
                    loss = loss + settings.mask_weight * ((now_below - below) * protected).abs().sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            if settings.optimizer == "gradient":
                latents.grad /= latents.grad.abs().max().clamp_min(1e-12)
            optimizer.step()
            latents.data = steps.end("dragging", level, latents.detach().clone()).detach()
        else:
            if settings.iterations:  # where the last iteration brought them
                features, _ = look(latents.detach())
                track.append(self.track(features, unedited, first, handles, settings))
        return latents.detach(), torch.stack(track)

    def track(
        self, features: Tensor, unedited: Tensor, first: Tensor, handles: Tensor, settings: Any
    ) -> Tensor:
        """Handle points one iteration later (Eq. 4)."""
        looked_for = first if settings.tracking_reference == "initial" else handles
        references = patch_features(unedited, looked_for)[:, :, 0]
        return track_points(features.detach(), references, handles, radius=settings.tracking_radius)

    def denoise(
        self,
        latents: Tensor,
        bank: MemoryBank,
        prompts: Tensor,
        settings: DragDiffusionSettings,
        steps: Steps,
    ) -> Tensor:
        """DDIM without guidance; in some blocks the edit may attend to the photograph's own latents."""
        layers = self_attention_layers(self.unet, settings.mutual_attention_blocks)
        sharing = exchange_attention(self.unet, layers, attend_to_first) if layers else nullcontext()
        with sharing:
            for k, (level, below) in enumerate(zip(bank.levels[:-1], bank.levels[1:], strict=True)):
                if steps.interrupted:
                    break
                both = torch.cat([bank.latents[k], latents]) if layers else latents
                predicted = self.predict(both, level, prompts)[-1:]
                latents = ddim_step(self.scheduler, predicted, latents, level, below)
                latents = steps.end("denoising", below, latents)
        return latents

    def protected(self, request: Request, latents: Tensor) -> Tensor | None:
        """Latents that are to stay, 1 - M of Eq. 2; None where everything may change."""
        mask = self.latent_mask(request, latents)
        return None if mask is None or bool((mask == 1).all()) else 1 - mask


class _Look:
    """One run of the U-Net: features of latents and, where a mask asks for them, latents one step below."""

    def __init__(
        self,
        pipe: DragDiffusionPipeline,
        bank: MemoryBank,
        prompts: Tensor,
        working_size: tuple[int, int],
        settings: DragDiffusionSettings,
        needs_below: bool,
    ):
        self.pipe, self.prompts, self.block = pipe, prompts, settings.feature_block
        self.level, self.below = bank.levels[:2]
        self.size = [round(side * FEATURE_SCALE) for side in working_size[::-1]]
        self.needs_below = needs_below

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        unet, below = self.pipe.unet, None
        inputs = latents.to(unet.dtype)
        if self.needs_below:
            with watch(unet, [self.block]) as found:
                predicted = self.pipe.predict(latents, self.level, self.prompts)
            below = ddim_step(self.pipe.scheduler, predicted, latents, self.level, self.below)
        else:  # the blocks after the features' are not run
            found = unet_features(unet, inputs, self.level, self.prompts, [self.block])
        features = found[self.block].float()
        return F.interpolate(features, self.size, mode="bilinear"), below


def _points(points: np.ndarray, request: Request) -> Tensor:
    """Points of the working image in pixels of the feature map."""
    size = request.fit.working_size
    there = tuple(round(side * FEATURE_SCALE) for side in size)
    return torch.from_numpy(resize_points(points, size, there)).float()


def _to_photograph(track: Tensor, request: Request) -> np.ndarray:
    """Tracked points `(k, n, 2)` of the feature map in pixels of the photograph."""
    size = tuple(round(side * FEATURE_SCALE) for side in request.fit.working_size)
    return resize_points(track.double().cpu().numpy(), size, request.image.size)


def _arrived(handles: Tensor, targets: Tensor, anchors: Tensor, distance: float) -> bool:
    """Whether every point that is dragged is closer to its target than `distance`."""
    return bool((((handles - targets).norm(dim=1) < distance) | anchors).all())
