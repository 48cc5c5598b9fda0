"""Fewer steps: a LoRA that makes a U-Net a latent consistency model, and the scheduler that samples from it.

LCM-LoRA (Luo et al. 2023, arXiv:2311.05556). Such a U-Net answers each step with the clean latents
themselves, and the scheduler puts new noise on them for the next: 1 to 8 steps in place of 20 or more.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler, SchedulerMixin
from safetensors import safe_open

from dragstudy.models.lora import BASE_KEY, LORA_FILE, load_lora, load_published_lora
from dragstudy.pipelines.base import DragPipeline

LCM_KEY = "lcm"  # of a file's metadata: how it was distilled
LCM_STEPS = 4
SOLVER_STEPS = 50  # those of the published ones, and of diffusers


def use_lcm(pipe: DragPipeline, source: Path | str, *, merge: bool = True) -> dict[str, Any]:
    """Give a pipeline few-step weights and the scheduler that they need.

    Args:
        pipe: A pipeline with `unet` and `scheduler`, which is changed.
        source: What `dragstudy train` wrote for few steps, or, at the size of Stable Diffusion, the file or
            folder of any LCM-LoRA.
        merge: Whether to make the adapters part of the weights, which samples faster. Adapters that are
            active already, such as those of `load_finetuned`, are merged with them. Without it they stay
            beside the weights as adapters named `"lcm"`.

    Returns:
        Arguments for calls: `num_inference_steps`, and, if guidance was distilled into the weights, guidance
        scales of 1, which give one row of the network's batch. A published LCM-LoRA of Stable Diffusion knows
        nothing of an editing method's conditions, so their guidance stays as it is.

    Raises:
        ValueError: If there are no such weights, they are of another U-Net, or the pipeline has some already.

    Example:
        pipe = dragstudy.load("instantdrag-splat")
        options = use_lcm(pipe, "data/weights/flowdiffusion-splat-lcm")
        pipe(image, handle_points, target_points, **options)
    """
    if isinstance(pipe.scheduler, LCMScheduler):
        raise ValueError("this pipeline samples in few steps already: load it anew for other weights")
    file = Path(source) / LORA_FILE if Path(source).is_dir() else Path(source)
    if not file.is_file() or file.suffix != ".safetensors":
        raise ValueError(
            f"few-step weights must be a .safetensors file or a folder with {LORA_FILE}, got {source}"
        )
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
    if BASE_KEY in metadata and LCM_KEY not in metadata:
        raise ValueError(f"the weights in {source} were trained, but not distilled to few steps")
    known = json.loads(metadata.get(LCM_KEY, "{}"))
    scheduler = lcm_scheduler(pipe.scheduler, known.get("solver_steps", SOLVER_STEPS))
    active = pipe.unet.active_adapters() if getattr(pipe.unet, "peft_config", None) else []
    if BASE_KEY in metadata:
        load_lora(pipe.unet, file, "lcm")
    else:
        load_published_lora(pipe.unet, file, "lcm")
    pipe.unet.set_adapters([*(name for name in active if name != "lcm"), "lcm"])
    if merge:
        pipe.unet.fuse_lora()
        pipe.unet.unload_lora()
    pipe.register_modules(scheduler=scheduler)
    return {"num_inference_steps": LCM_STEPS, **known.get("options", {})}


def lcm_scheduler(scheduler: SchedulerMixin, solver_steps: int = SOLVER_STEPS) -> LCMScheduler:
    """diffusers' LCMScheduler on another scheduler's noise schedule and kind of prediction.

    Args:
        scheduler: Any of diffusers' with a `beta_schedule`.
        solver_steps: Steps of the solver that was distilled; the sampler's timesteps are some of its. They
            must divide the number of training timesteps, so that the first is the noisiest.

    Raises:
        ValueError: If they do not, or no prediction of the noise can tell the clean latents at the first.
    """
    found = scheduler_like(scheduler, LCMScheduler, original_inference_steps=solver_steps)
    steps = found.config.num_train_timesteps
    if steps % solver_steps:
        raise ValueError(f"solver_steps must divide {steps} training timesteps, got {solver_steps}")
    if found.config.prediction_type == "epsilon" and found.alphas_cumprod[-1] == 0:
        raise ValueError("with zero terminal signal-to-noise ratio the prediction type must not be 'epsilon'")
    return found


def scheduler_like(scheduler: SchedulerMixin, kind: type[SchedulerMixin], **settings: Any) -> SchedulerMixin:
    """A scheduler of another kind with the noise schedule and prediction type of this one.

    Not by `kind.from_config`: it warns of every setting that the other kind has not, and gives those that
    were left at their default the other kind's, such as DDIM's clipping of latents to [-1, 1].
    """
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in scheduler.config.items() if key in known} | settings)


def step_options(
    scheduler: SchedulerMixin, generator: torch.Generator | list[torch.Generator] | None
) -> dict[str, Any]:
    """The generator for a scheduler's `step`, where it takes one: LCM's draws new noise at each."""
    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
