"""DragonDiffusion from the photograph to edited latents: inversion, then denoising under guidance."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from dragstudy.attention import exchange_attention, self_attention_layers
from dragstudy.energies import pick
from dragstudy.inversion import MemoryBank, _alpha_bar, ddim_levels, ddim_step
from dragstudy.pipelines.base import DragPipelineOutput, Request, check_output_type
from dragstudy.pipelines.dragon_guidance import Guidance, visual_cross_attention
from dragstudy.pipelines.dragon_settings import DragonSettings
from dragstudy.pipelines.latent import (
    LatentDragPipeline,
    OutsideMask,
    Steps,
    check_outside_mask,
    one_generator_each,
)
from dragstudy.pipelines.object_masks import Regions

DECODER = ("up_blocks",)


@dataclass(frozen=True)
class Job:
    """A photograph, what is asked of it (None: nothing moves), and the other picture, if there is one."""

    request: Request
    regions: Regions | None
    guide: Request | None = None


def edit_jobs(
    pipe: LatentDragPipeline,
    jobs: list[Job],
    settings: DragonSettings,
    *,
    prompt_embeds: Tensor | None = None,
    outside_mask: OutsideMask = "photograph",
    memory_device: str | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
    output_type: str = "pil",
    return_dict: bool = True,
    callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
) -> DragPipelineOutput | tuple:
    """Do the jobs one after the other; arguments as in `DragonDiffusionPipeline.__call__`."""
    check_output_type(output_type)
    check_outside_mask(outside_mask)
    levels = ddim_levels(pipe.scheduler, settings.num_inference_steps, settings.inversion_strength)
    generators = one_generator_each(generator, len(jobs))
    phases = sum(2 + (job.guide is not None) for job in jobs if job.regions is not None)
    edited = []
    with Steps(pipe, phases * (len(levels) - 1), callback_on_step_end) as steps:
        for job, own in zip(jobs, generators, strict=True):
            sampler = _Sampler(pipe, settings, levels, steps, prompt_embeds, memory_device, own)
            edited.append(pipe.decode_latents(sampler.edit(job)))
    output = pipe.finish_edits([job.request for job in jobs], torch.cat(edited), outside_mask, output_type)
    return output if return_dict else (output.images, None)


class _Sampler:
    """One edit."""

    def __init__(
        self,
        pipe: LatentDragPipeline,
        settings: DragonSettings,
        levels: list[int],
        steps: Steps,
        prompt_embeds: Tensor | None,
        memory_device: str | None,
        generator: torch.Generator | None,
    ):
        self.pipe, self.settings, self.levels, self.steps = pipe, settings, levels, steps
        self.prompts, self.null = pipe.prompts(prompt_embeds), pipe.prompts(None)
        self.prompted = prompt_embeds is not None and settings.guidance_scale != 1
        self.memory_device, self.generator = memory_device, generator
        uses = settings.visual_attention != "none"
        self.layers = self_attention_layers(pipe.unet, DECODER) if uses else []

    def edit(self, job: Job) -> Tensor:
        """Edited latents `(1, c, h, w)`; where nothing moves or the work is ended, the photograph's own."""
        photograph = self.pipe.encode_image(job.request)
        if job.regions is None or self.steps.interrupted:
            return photograph
        bank = self.invert(photograph)
        guide = bank
        if job.guide is not None and not self.steps.interrupted:
            guide = self.invert(self.pipe.encode_image(job.guide))
        if self.steps.interrupted:
            return photograph
        guidance = Guidance(self.pipe.unet, self.prompts, job.regions, self.settings, bank, guide)
        latents = self.start(bank, guide, job.regions)
        for step in range(len(self.levels) - 1):
            latents = self.step(latents, step, guidance)
            latents = self.steps.end("denoising", self.levels[step + 1], latents)
            if self.steps.interrupted:
                return photograph
        return latents

    def invert(self, latents: Tensor) -> MemoryBank:
        """The memory of a picture's latents; empty attention if none is used."""
        options = {"attention_layers": self.layers, "memory_device": self.memory_device}
        return self.pipe.invert(latents, self.prompts, self.levels, self.steps, **options)

    def start(self, bank: MemoryBank, guide: MemoryBank, regions: Regions) -> Tensor:
        """Where denoising starts: the inverted photograph, or noise; and copies of inverted latents in it."""
        latents = bank.latents[0] if self.settings.inversion_prior else self.noise(bank.latents[0])
        for there, from_there in regions.copies if self.settings.copy_start else ():
            x, y = there.round().long().T
            latents = latents.clone()
            latents[0, :, y, x] = pick(guide.latents[0][0], from_there.round())  # rounded: no blurred noise
        return latents

    def step(self, latents: Tensor, step: int, guidance: Guidance) -> Tensor:
        """From `levels[step]` to the next; with time travel there, back up, and there again."""
        level, below = self.levels[step : step + 2]
        scheduler, settings = self.pipe.scheduler, self.settings
        for again in range(self.repeats(step))[::-1]:
            predicted = self.predict(latents, step, guidance)
            push = settings.learning_rate * guidance.gradient(latents, step) if self.is_guided(step) else None
            eta, noise = self.new_noise(latents, step, guidance.regions)
            new = {"eta": eta, "noise": noise, "unguided_direction": settings.unguided_direction}
            lower = guided_step(scheduler, predicted, latents, level, below, push, **new)
            if again:  # up again as an inversion goes: without guidance and without the memory
                predicted = self.pipe.predict(lower, below, self.prompts)
                latents = ddim_step(scheduler, predicted, lower, below, level)
        return lower

    def predict(self, latents: Tensor, step: int, guidance: Guidance) -> Tensor:
        """The U-Net's prediction, with the memory in its decoder; guided by the prompt, if there is one."""
        count, level = len(self.levels) - 1, self.levels[step]
        first, last = (share * count for share in (self.settings.attention_from, self.settings.attention_to))
        looking_back = nullcontext()
        if self.layers and first <= step < last:
            own = guidance.photograph.attention[step]
            other = None if guidance.guide is guidance.photograph else guidance.guide.attention[step]
            exchange = visual_cross_attention(own, other, guidance.regions, self.settings)
            looking_back = exchange_attention(self.pipe.unet, self.layers, exchange)
        with looking_back:
            with_ = self.pipe.predict(latents, level, self.prompts)
            if not self.prompted:
                return with_
            without = self.pipe.predict(latents, level, self.null)  # it may have fewer tokens
        return without + self.settings.guidance_scale * (with_ - without)

    def is_guided(self, step: int) -> bool:
        """Whether the energies' gradient enters a step."""
        count, settings = len(self.levels) - 1, self.settings
        return step < settings.guided_share * count and (step < settings.dense_share * count or step % 2 == 0)

    def repeats(self, step: int) -> int:
        """How often a step is taken: every second one between 0.4 and 0.6 of all may be taken more often."""
        count = len(self.levels) - 1
        return self.settings.time_travel if 0.4 * count < step < 0.6 * count and step % 2 == 0 else 1

    def new_noise(self, latents: Tensor, step: int, regions: Regions) -> tuple[Tensor | float, Tensor | None]:
        """Share and values of new noise: inside of the edited region, between 0.2 and 0.4 of all steps."""
        count = len(self.levels) - 1
        if not self.settings.sde_strength or not 0.2 * count < step < 0.4 * count:
            return 0.0, None
        eta = self.settings.sde_strength * regions.inside[None, None].to(latents)
        return eta, self.noise(latents)

    def noise(self, like: Tensor) -> Tensor:
        """Noise of the shape of some latents, from the caller's generator."""
        device = "cpu" if self.generator is None else self.generator.device
        return torch.randn(like.shape, generator=self.generator, device=device).to(like)


def guided_step(
    scheduler: DDIMScheduler,
    predicted: Tensor,
    latents: Tensor,
    level: int,
    to: int,
    gradient: Tensor | None,
    *,
    unguided_direction: bool = False,
    eta: float | Tensor = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """`ddim_step` after a gradient has been added to the noise that the network predicted (Eq. 2 and 8).

    Args:
        scheduler: Its noise schedule and kind of prediction.
        predicted: What the network says of `latents` at `level`.
        latents: Those of `level`.
        level: Where they are.
        to: The timestep to go to, or `CLEAN`.
        gradient: What is added, of the latents' shape, or None.
        unguided_direction: Whether it changes the clean latents alone, as in the authors' code, and not the
            noise that is added to them again. Near pure noise the two nearly cancel: with Stable Diffusion's
            schedule the code lets ten times as much of a gradient through.
        eta: As in `ddim_step`.
        noise: As in `ddim_step`.
    """
    lower = ddim_step(scheduler, predicted, latents, level, to, eta=eta, noise=noise)
    if gradient is None or not _alpha_bar(scheduler, level):  # pure noise holds nothing to guide
        return lower
    before, after = _alpha_bar(scheduler, level), _alpha_bar(scheduler, to)
    lower = lower - ((1 - before) / before * after) ** 0.5 * gradient
    if unguided_direction:
        return lower
    sigma = eta * ((1 - after) / (1 - before) * (1 - before / after)) ** 0.5 if noise is not None else 0.0
    return lower + (1 - after - sigma**2) ** 0.5 * gradient
