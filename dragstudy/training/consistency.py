"""Latent consistency distillation: from a diffusion model to one that samples in a few steps.

Luo et al. 2023, "Latent Consistency Models" (arXiv:2310.04378) and "LCM-LoRA" (arXiv:2311.05556). A
consistency function f maps any point z_t of a trajectory of the probability-flow ODE to its end, the clean
latents. It is learned from neighbouring points: f(z_t, t) is drawn to f(z_s, s) where the *teacher* goes from
z_t to z_s by one step of DDIM. The teacher is guided at fixed scales, so its guidance becomes part of the
student, which needs one row of the network's batch where the teacher needs two or three; as in LCM-LoRA the
student is not told the scales. The student is the teacher with LoRA, or any network like it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, LCMScheduler, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from dragstudy.data.pairs import PairDataset
from dragstudy.data.recipes import LIGHTNING
from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.backbone import NullPrompt, make_inpainting_scheduler, make_scheduler
from dragstudy.models.flowdiffusion import flow_variant
from dragstudy.models.lora import add_lora, save_lora
from dragstudy.models.points import PointEmbedding
from dragstudy.pipelines.few_steps import LCM_KEY, lcm_scheduler, scheduler_like, step_options
from dragstudy.training.backbone import add_noise
from dragstudy.training.denoisers import Denoiser, FlowDiffusionDenoiser, LightningDenoiser
from dragstudy.training.latents import cached_latents
from dragstudy.training.lightning_latents import cached_lightning_latents
from dragstudy.training.loop import LoopSettings, train_loop
from dragstudy.training.subsets import collate, first

SAMPLED = 8  # validation items that are sampled
TEACHER_STEPS = 20


def clean_and_noise(
    scheduler: SchedulerMixin, predicted: Tensor, noisy: Tensor, timesteps: Tensor
) -> tuple[Tensor, Tensor]:
    """The clean latents and the noise that a prediction takes noisy latents to be made of.

    With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar): from the noise e, (z - s e) / a and e; from the
    velocity v, a z - s v and s z + a v.
    """
    alpha_bar = scheduler.alphas_cumprod.to(noisy)[timesteps].view(-1, 1, 1, 1)
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - s * predicted) / a, predicted
    if scheduler.config.prediction_type != "v_prediction":
        kind = scheduler.config.prediction_type
        raise ValueError(f"the prediction type must be 'epsilon' or 'v_prediction', got {kind!r}")
    return a * noisy - s * predicted, s * noisy + a * predicted


def consistency(scheduler: LCMScheduler, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """f(z_t, t) = c_skip(t) z_t + c_out(t) x_0(z_t, t): the clean latents, as LCMScheduler's step denoises.

    The boundary condition f(z_0, 0) = z_0 holds whatever the network predicts: c_skip(0) = 1, c_out(0) = 0.
    """
    clean, _ = clean_and_noise(scheduler, predicted, noisy, timesteps)
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(
        timesteps.float().view(-1, 1, 1, 1)
    )
    return c_skip * noisy + c_out * clean


@torch.no_grad()
def sample(
    network: nn.Module,
    denoiser: Denoiser,
    prepared: Any,
    scheduler: SchedulerMixin,
    noise: Tensor,
    *,
    steps: int,
    guided: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clean latents from noise `(b, c, h, w)` by a scheduler's steps; the generator is for noise it adds."""
    scheduler.set_timesteps(steps, device=noise.device)
    latents, drawn = noise, step_options(scheduler, generator)
    for timestep in scheduler.timesteps:
        predicted = denoiser.predict(network, latents, timestep.expand(len(latents)), prepared, guided=guided)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False, **drawn)[0]
    return latents


class ConsistencyTask:
    """Consistency distillation's loss, Algorithm 1 of Latent Consistency Models.

    The target is the student itself without gradient, as in diffusers' training of LCM-LoRA, and not an
    average of its weights as in the first paper.

    Args:
        student: Trained; LoRA or the whole network. It should begin as the teacher.
        teacher: Frozen here.
        denoiser: The conditions of both.
        scheduler: Of `dragstudy.pipelines.few_steps.lcm_scheduler`; its `original_inference_steps` are those
            of the solver.
        huber: c of the pseudo-Huber loss sqrt(d^2 + c^2) - c; diffusers' 0.001 makes it the absolute value.
        validation: A fixed batch. Besides the loss on it, `val_one_step` says how far one step of the student
            ends from the teacher's 20 guided steps of DDIM from the same noise (mean square), for its first
            eight items.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        denoiser: Denoiser,
        scheduler: LCMScheduler,
        *,
        huber: float = 0.1,
        validation: dict[str, Tensor] | None = None,
    ):
        self.networks = {"unet": student}
        self.teacher = teacher.eval().requires_grad_(False)
        self.denoiser, self.scheduler, self.huber, self.validation = denoiser, scheduler, huber, validation
        self._endpoint: Tensor | None = None

    def neighbours(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps `(count,)` of the solver, stratified for less variance, and those that it steps to.

        The last of its steps goes to the clean latents, timestep -1.
        """
        config = self.scheduler.config
        part = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        index = (part * config.original_inference_steps).long().clamp(max=config.original_inference_steps - 1)
        stride = config.num_train_timesteps // config.original_inference_steps
        start = (index + 1) * stride - 1
        return start, start - stride

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Pseudo-Huber distance between f at a point and f one step of the solver nearer to the data."""
        student, denoiser, scheduler = self.networks["unet"], self.denoiser, self.scheduler
        latents = denoiser.latents(batch)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        start, end = (t.to(latents.device) for t in self.neighbours(len(latents), generator))
        prepared = denoiser.prepare(batch, generator)
        noisy = add_noise(scheduler, latents, noise, start)
        predicted = denoiser.predict(student, noisy, start, prepared, guided=False)
        with torch.no_grad():
            guided = self._teacher(noisy, start, prepared)
            clean, rest = clean_and_noise(scheduler, guided, noisy, start)
            at = end.clamp(min=0)
            nearer = add_noise(scheduler, clean, rest, at)  # DDIM
            there = denoiser.predict(student, nearer, at, prepared, guided=False)
            target = consistency(scheduler, there, nearer, at)
            # differs from diffusers' script, which ends at timestep 0 and so teaches to leave the noise that
            # is there, a standard deviation of 0.03
            target = torch.where(end.view(-1, 1, 1, 1) < 0, clean, target)
        difference = consistency(scheduler, predicted, noisy, start) - target
        return ((difference.square() + self.huber**2).sqrt() - self.huber).mean()

    def losses(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        yield "unet", self.loss(batch, generator), {}

    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        student = self.networks["unet"]
        device = next(student.parameters()).device
        batch = {key: value.to(device) for key, value in self.validation.items()}
        generator = torch.Generator().manual_seed(0)  # the same noise at every validation
        loss = self.loss(batch, generator)
        few = {key: value[:SAMPLED] for key, value in batch.items()}
        latents, prepared = self.denoiser.latents(few), self.denoiser.prepare(few, generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        if self._endpoint is None:
            self._endpoint = self._guided_sample(noise, prepared)
        reached = sample(student, self.denoiser, prepared, self.scheduler, noise, steps=1)
        return {"val_loss": loss.item(), "val_one_step": (reached - self._endpoint).square().mean().item()}

    def _teacher(self, noisy: Tensor, timesteps: Tensor, prepared: Any) -> Tensor:
        self.teacher.to(noisy.device, memory_format=torch.channels_last)
        return self.denoiser.predict(self.teacher, noisy, timesteps, prepared, guided=True)

    def _guided_sample(self, noise: Tensor, prepared: Any) -> Tensor:
        self.teacher.to(noise.device, memory_format=torch.channels_last)
        ddim = scheduler_like(self.scheduler, DDIMScheduler, timestep_spacing="trailing")
        return sample(self.teacher, self.denoiser, prepared, ddim, noise, steps=TEACHER_STEPS, guided=True)


def train_flowdiffusion_lcm(
    data: Path,
    settings: LoopSettings,
    limit: int,
    *,
    autoencoder: Path,
    flowdiffusion: Path,
    flow_scale: float = 8.0,
    image_guidance_scale: float = 1.0,
    flow_guidance_scale: float = 1.0,
    solver_steps: int = 8,
    rank: int = 8,
) -> Path:
    """Distil FlowDiffusion, in the folder `flowdiffusion`, into LoRA for a few steps without guidance."""
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    latents = cached_latents(PairDataset(data, "train"), encoder)
    validation = cached_latents(PairDataset(data, "val"), encoder, augmented=False)
    scales = {"image_guidance_scale": image_guidance_scale, "flow_guidance_scale": flow_guidance_scale}
    variant = flow_variant(UNet2DConditionModel.from_pretrained(flowdiffusion))
    denoiser = FlowDiffusionDenoiser(variant, NullPrompt(), flow_scale=flow_scale, **scales)
    scheduler = lcm_scheduler(make_scheduler(), solver_steps)
    return _distil(flowdiffusion, denoiser, scheduler, latents, validation, settings, limit, rank, scales)


def train_lightning_lcm(
    data: Path,
    settings: LoopSettings,
    limit: int,
    *,
    autoencoder: Path,
    lightning: Path,
    inpainting: Path | None = None,
    max_points: int = 20,
    point_guidance_scale: float = 1.0,
    guidance_schedule: str = "inverse_square",
    solver_steps: int = 8,
    rank: int = 8,
) -> Path:
    """Distil the inpainting U-Net of LightningDrag, in the folder `lightning`, into LoRA for a few steps.

    `inpainting` is the folder of the U-Net, if it was not trained together with the other two networks. The
    teacher is not guided by default: with batches this small, distilling guidance diverged for FlowDiffusion.
    """
    encoder = AutoencoderTiny.from_pretrained(autoencoder).eval()
    pairs, held = (PairDataset(data, split, max_points=LIGHTNING.max_points) for split in ("train", "val"))
    latents = cached_lightning_latents(pairs, encoder)
    validation = cached_lightning_latents(held, encoder, augmented=False)
    single = {"torch_dtype": torch.float32}
    denoiser = LightningDenoiser(
        AppearanceEncoder.from_pretrained(lightning / "appearance_encoder", **single),
        PointEmbedding.from_pretrained(lightning / "point_embedding", **single),
        NullPrompt(),
        max_points=max_points,
        point_guidance_scale=point_guidance_scale,
        guidance_schedule=guidance_schedule,
    )
    scheduler = lcm_scheduler(make_inpainting_scheduler(), solver_steps)
    scales = {"point_guidance_scale": point_guidance_scale}
    unet = inpainting or lightning / "unet"
    return _distil(unet, denoiser, scheduler, latents, validation, settings, limit, rank, scales)


def _distil(
    teacher: Path,
    denoiser: Denoiser,
    scheduler: LCMScheduler,
    latents: Dataset,
    validation: Dataset,
    settings: LoopSettings,
    limit: int,
    rank: int,
    scales: dict[str, float],
) -> Path:
    frozen, unet = (
        UNet2DConditionModel.from_pretrained(teacher, torch_dtype=torch.float32) for _ in range(2)
    )
    add_lora(unet, rank=rank, generator=torch.Generator().manual_seed(settings.seed))
    task = ConsistencyTask(unet, frozen, denoiser, scheduler, validation=collate(validation))
    train_loop(task, first(latents, limit), settings)
    return save_lcm_lora(unet, settings.out, scheduler.config.original_inference_steps, scales)


def save_lcm_lora(unet: UNet2DConditionModel, out: Path, solver_steps: int, scales: dict[str, float]) -> Path:
    """Write a student's LoRA, and in its metadata what `dragstudy.pipelines.few_steps.use_lcm` must know.

    `scales` are the guidance scales of the teacher by the names of the pipeline's arguments, which must be 1
    when the student is sampled.
    """
    told = {"solver_steps": solver_steps, "distilled": scales, "options": dict.fromkeys(scales, 1.0)}
    save_lora(unet, out, notes={LCM_KEY: json.dumps(told)})
    return out
