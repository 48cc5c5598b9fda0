"""What the methods share that edit a photograph's own noise: invert it, change it, denoise it again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from dragstudy.inversion import MemoryBank, invert
from dragstudy.models.autoencoder import encode
from dragstudy.models.backbone import NullPrompt
from dragstudy.pipelines.base import DragPipeline, DragPipelineOutput, Request

OutsideMask = Literal["photograph", "autoencoder", "method"]
Settings = TypeVar("Settings")


class LatentDragPipeline(DragPipeline):
    """Base of DragDiffusion, DragonDiffusion and SDE-Drag.

    Args:
        autoencoder: Between images and latents, f8.
        unet: A text-to-image U-Net such as Stable Diffusion's, or the tiny backbone. It is not changed: what
            an edit puts into it is gone after the call.
        null_prompt: The embedding for "no prompt".
        scheduler: The noise schedule and the timesteps.
        working_area: Pixels of the size the edit is made at; images of any shape are fitted to nearly it.
        preset: The settings that calls start from unless they name others. The published ones are for Stable
            Diffusion; `"tiny"`, which is ours, for the tiny backbone.
    """

    model_cpu_offload_seq = "autoencoder->unet"

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: UNet2DConditionModel,
        null_prompt: NullPrompt,
        scheduler: DDIMScheduler,
        working_area: int = 256 * 256,
        preset: str = "code",
    ):
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder, unet=unet, null_prompt=null_prompt, scheduler=scheduler
        )
        self.register_to_config(working_area=working_area, preset=preset)

    @torch.no_grad()
    def encode_image(self, request: Request) -> Tensor:
        """Scaled latents of a working image, `(1, c, h/8, w/8)`, in single precision."""
        images = 2 * request.working_image - 1
        return encode(self.autoencoder, images.to(self._execution_device, self.autoencoder.dtype)).float()

    def predict(self, latents: Tensor, timestep: int, prompts: Tensor) -> Tensor:
        """The U-Net's prediction for latents `(b, c, h, w)`, in single precision; with its gradient."""
        inputs = latents.to(self.unet.dtype)
        return self.unet(inputs, timestep, prompts.expand(len(latents), -1, -1), return_dict=False)[0].float()

    def prompts(self, prompt_embeds: Tensor | None) -> Tensor:
        """The null prompt, or what was given in its place, `(1, tokens, dim)`."""
        null = self.null_prompt(1).to(self._execution_device, self.unet.dtype)
        return null if prompt_embeds is None else prompt_embeds.to(null)

    def invert(
        self, latents: Tensor, prompts: Tensor, levels: Sequence[int], steps: "Steps", **options: Any
    ) -> MemoryBank:
        """`dragstudy.inversion.invert`, each step of which is reported and may be the last."""

        def on_step(timestep: int, found: Tensor) -> bool:
            steps.end("inversion", timestep, found)
            return not steps.interrupted

        return invert(self.unet, latents, prompts, self.scheduler, levels, on_step=on_step, **options)

    def latent_mask(self, request: Request, latents: Tensor) -> Tensor | None:
        """The request's mask on the grid of its latents, `(1, 1, h, w)`, 1 = may change; None without one.

        A latent that any editable pixel lies in may change: nothing that the user painted is left out.
        """
        if request.working_drags.mask is None:
            return None
        mask = torch.from_numpy(request.working_drags.mask)[None, None]
        return nn.functional.adaptive_max_pool2d(mask, latents.shape[-2:]).to(latents)

    def finish_edits(
        self,
        requests: list[Request],
        edited: Tensor,
        outside_mask: OutsideMask,
        output_type: str,
    ) -> DragPipelineOutput:
        """Bring edited working images `(b, 3, h, w)` back to the photographs.

        Outside of a mask stands the photograph itself, or what the autoencoder makes of it, or what the
        method makes of it.
        """
        if outside_mask == "autoencoder":
            copies = self.reconstruct(requests)
            for k, request in enumerate(requests):
                if request.working_drags.mask is not None:
                    mask = torch.from_numpy(request.working_drags.mask)
                    edited[k] = copies[k] + mask * (edited[k] - copies[k])
        self.maybe_free_model_hooks()
        keep = outside_mask == "photograph"
        return self.finish(requests, edited, None, output_type, True, composited=keep)


class Steps:
    """Counts the steps of an edit over all its phases, shows them, and hands them to the caller's callback.

    Its bar is closed at the end of the `with` that it is used in.

    Args:
        pipe: Its `_interrupt` ends the work; its progress bar is used.
        total: Steps of all phases.
        callback: The call's `callback_on_step_end`.
    """

    def __init__(self, pipe: LatentDragPipeline, total: int, callback: Callable | None):
        self.pipe, self.callback, self.done = pipe, callback, 0
        self.bar = pipe.progress_bar(total=total)
        pipe._interrupt, pipe._num_timesteps = False, total

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def interrupted(self) -> bool:
        """Whether the callback asked to end the work."""
        return self.pipe._interrupt

    def end(self, phase: str, timestep: int, latents: Tensor) -> Tensor:
        """Report a step of a phase; gives back the latents, which the callback may have changed."""
        self.bar.set_description(phase, refresh=False)
        self.bar.update()
        if self.callback is not None:
            given = {"latents": latents}
            changed = self.callback(self.pipe, self.done, torch.tensor(timestep), given) or {}
            latents = changed.get("latents", latents)
        self.done += 1
        return latents

    def skip(self, count: int) -> None:
        """Leave out steps that turned out not to be needed."""
        self.bar.total -= count
        self.pipe._num_timesteps -= count


def check_outside_mask(outside_mask: str) -> None:
    """Refuse an unknown `outside_mask` before anything is computed."""
    if outside_mask not in get_args(OutsideMask):
        raise ValueError(
            f"outside_mask must be one of {', '.join(get_args(OutsideMask))}, got {outside_mask!r}"
        )


def choose_settings(presets: Mapping[str, Settings], preset: str, given: Mapping[str, Any]) -> Settings:
    """A preset, with what was given in place of its own values; None stands for the preset's.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}, got {preset!r}")
    return replace(presets[preset], **{name: value for name, value in given.items() if value is not None})


def one_generator_each(generator: Any, count: int) -> list[torch.Generator | None]:
    """The generators of a batch: a list as it is, or one for all.

    Raises:
        ValueError: If a list has another length.
    """
    if not isinstance(generator, list):
        return [generator] * count
    if len(generator) != count:
        raise ValueError(f"a list of generators needs one for each of {count} images, got {len(generator)}")
    return generator
