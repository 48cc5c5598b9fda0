"""A LoRA that knows one photograph by heart: how DragDiffusion keeps what the photograph shows (Sec. 2.2).

It is trained by peft, kept in the user's cache folder by photograph and settings, and *merged* into the U-Net
for the length of a `with`: an edit then costs what it costs without, and the weights come back as they were.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dragstudy.assets import cache_dir
from dragstudy.models.lora import add_lora

ATTENTION = ("to_q", "to_k", "to_v")
FACTORS = ("lora_A.weight", "lora_B.weight")  # peft's names for the two
_kept_in: ContextVar[Path | None] = ContextVar("kept_in", default=None)


@dataclass(frozen=True)
class LoraSettings:
    """How to train a photograph's LoRA.

    Attributes:
        steps: Optimiser steps; 0 trains none.
        learning_rate: AdamW's, constant.
        layers: Ends of the names of the layers that get one.
        rank: Of the adapters.
        batch_size: Noises and timesteps a step.
        seed: Decides the first weights, the noises and the timesteps. It is not an edit's seed, so that the
            next edit of the same photograph finds the same LoRA whatever its own.
    """

    steps: int
    learning_rate: float
    layers: tuple[str, ...] = ATTENTION
    rank: int = 16
    batch_size: int = 4
    seed: int = 0


def image_lora(
    unet: UNet2DConditionModel,
    latents: Tensor,
    prompt_embeds: Tensor,
    scheduler: DDIMScheduler,
    settings: LoraSettings,
    *,
    folder: Path | None = None,
    on_step: Callable[[int], bool] | None = None,
) -> dict[str, Tensor]:
    """The LoRA of a photograph, from the cache or newly trained.

    Args:
        unet: The backbone; it leaves as it came.
        latents: Scaled latents of the photograph, `(1, c, h, w)`.
        prompt_embeds: The null prompt, or a text's embedding.
        scheduler: Its noise schedule and kind of prediction.
        settings: How to train.
        folder: Where LoRAs are kept; by default `image-lora` in the cache folder.
        on_step: Called after each step of training with its number; training ends early where it gives False,
            and is then not kept.

    Returns:
        By a layer's name and `lora_A.weight` or `lora_B.weight`, the factors, in single precision; empty for
        0 steps.

    Raises:
        ValueError: If the U-Net has adapters of its own.
    """
    if not settings.steps:
        return {}
    if getattr(unet, "peft_config", None):
        raise ValueError(
            "the U-Net already has adapters: make them part of its weights with fuse_lora() and unload_lora()"
        )
    path = lora_file(unet, latents, prompt_embeds, scheduler, settings, folder)
    if path.is_file():
        return {name: factor.to(latents.device) for name, factor in load_file(path).items()}
    factors, complete = _train(unet, latents, prompt_embeds, scheduler, settings, on_step)
    if complete:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")  # two processes may train the same one
        save_file({name: factor.cpu() for name, factor in factors.items()}, partial)
        partial.replace(path)
    return factors


def lora_file(
    unet: UNet2DConditionModel,
    latents: Tensor,
    prompt_embeds: Tensor,
    scheduler: DDIMScheduler,
    settings: LoraSettings,
    folder: Path | None = None,
) -> Path:
    """Where `image_lora` keeps a LoRA; the name follows from everything that decides it."""
    # one number a tensor tells U-Nets apart, also where only some layers were trained or fused
    weights = torch.stack([weight.detach().float().sum() for weight in unet.parameters()])
    schedule = {"kind": scheduler.config.prediction_type, "betas": scheduler.betas.tolist()}
    known = {"settings": asdict(settings), "schedule": schedule, "shape": list(latents.shape)}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for tensor in (latents, prompt_embeds, weights):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return (folder or _kept_in.get() or cache_dir() / "image-lora") / f"{digest.hexdigest()[:32]}.safetensors"


@contextmanager
def forgotten_loras() -> Iterator[None]:
    """Within it no LoRA is known, and none is remembered afterwards: an edit's seconds then hold its own."""
    with TemporaryDirectory() as folder:
        token = _kept_in.set(Path(folder))
        try:
            yield
        finally:
            _kept_in.reset(token)


@contextmanager
def merged_lora(unet: UNet2DConditionModel, factors: dict[str, Tensor]) -> Iterator[None]:
    """Within it the U-Net's weights are W + B A; afterwards they are the tensors that they were."""
    modules = dict(unet.named_modules())
    before = {}
    try:
        for name in sorted({key.rsplit(".", 2)[0] for key in factors}):
            down, up = (factors[f"{name}.{end}"] for end in FACTORS)
            before[name] = modules[name].weight.data
            change = (up @ down).to(before[name].device)
            modules[name].weight.data = (before[name].float() + change).to(before[name].dtype)
        yield
    finally:
        for name, weight in before.items():
            modules[name].weight.data = weight


def _train(
    unet: UNet2DConditionModel,
    latents: Tensor,
    prompt_embeds: Tensor,
    scheduler: DDIMScheduler,
    settings: LoraSettings,
    on_step: Callable[[int], bool] | None,
) -> tuple[dict[str, Tensor], bool]:
    """Train adapters to predict the noise in this one picture, as DreamBooth's LoRA script does."""
    generator = torch.Generator().manual_seed(settings.seed)
    frozen = {name: weight.requires_grad for name, weight in unet.named_parameters()}
    try:
        add_lora(unet, rank=settings.rank, layers=settings.layers, generator=generator, adapter_name="image")
        weights = [weight for weight in unet.parameters() if weight.requires_grad]
        for weight in weights:
            weight.data = weight.data.float()
        optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=1e-2)
        complete = True
        for step in range(settings.steps):
            with torch.enable_grad():
                loss = _loss(unet, latents, prompt_embeds, scheduler, settings.batch_size, generator)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            optimizer.step()
            if on_step is not None and not on_step(step):
                complete = step + 1 == settings.steps
                break
        state = get_peft_model_state_dict(unet, adapter_name="image")
        factors = {name: factor.detach().float().clone() for name, factor in state.items()}
    finally:
        if getattr(unet, "peft_config", None):
            unet.unload_lora()
        for name, weight in unet.named_parameters():
            weight.requires_grad_(frozen[name])
    return factors, complete


def _loss(
    unet: UNet2DConditionModel,
    latents: Tensor,
    prompt_embeds: Tensor,
    scheduler: DDIMScheduler,
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    clean = latents.expand(batch_size, -1, -1, -1)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
    timesteps = timesteps.to(clean.device)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = {"epsilon": noise, "sample": clean}.get(scheduler.config.prediction_type)
    if target is None:
        target = scheduler.get_velocity(clean, noise, timesteps)
    prompts = prompt_embeds.expand(batch_size, -1, -1)
    predicted = unet(noisy.to(unet.dtype), timesteps, prompts, return_dict=False)[0]
    return F.mse_loss(predicted.float(), target)
