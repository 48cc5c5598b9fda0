r"""DDIM and its inversion, with a memory of everything on the way.

With $\bar\alpha_t$ the noise schedule, a network's prediction gives at any time both the clean latents $z_0$
and the noise $\epsilon$. A deterministic step, in either direction, puts them together again for another time
$s$ (Song et al. 2021, Eq. 12): $z_s = \sqrt{\bar\alpha_s} z_0 + \sqrt{1 - \bar\alpha_s} \epsilon$.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from dragstudy.attention import exchange_attention, keep_keys_and_values

if TYPE_CHECKING:  # importing diffusers takes seconds, and first needs dragstudy._torchvision
    from diffusers import DDIMScheduler, UNet2DConditionModel

CLEAN = -1  # the timestep that stands for latents without noise


@dataclass(frozen=True)
class MemoryBank:
    """A picture's latents at each noise level, as an inversion found them (DragonDiffusion, Sec. 3.3).

    Attributes:
        levels: Timesteps from the noisiest down, and `CLEAN` at the end: step i of a sampler goes from
            `levels[i]` to `levels[i + 1]`.
        latents: `latents[i]` are those of `levels[i]`, `(b, c, h, w)`; the last are the picture's own.
        attention: Of step i, by the name of a self-attention layer, its keys and values `(b, tokens, dim)`;
            empty where none were asked for.
    """

    levels: tuple[int, ...]
    latents: tuple[Tensor, ...]
    attention: tuple[dict[str, tuple[Tensor, Tensor]], ...] = field(default=())


def ddim_levels(scheduler: "DDIMScheduler", num_inference_steps: int, strength: float = 1.0) -> list[int]:
    """Timesteps of the last part of a DDIM sampler, from the noisiest down, and `CLEAN` at the end.

    Args:
        scheduler: Its spacing decides which timesteps there are.
        num_inference_steps: Steps from pure noise to the picture.
        strength: Share of them that is kept, in (0, 1], at least one: 0.7 of 50 steps are the last 35.

    Raises:
        ValueError: If there are no steps, or more than the network knows timesteps, or the strength is not in
            (0, 1].

    Example:
        >>> from diffusers import DDIMScheduler
        >>> ddim_levels(DDIMScheduler(), 10, 0.3)
        [200, 100, 0, -1]
    """
    known = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= known:
        raise ValueError(f"num_inference_steps must be in 1..{known}, got {num_inference_steps}")
    if not 0 < strength <= 1:
        raise ValueError(f"the share of steps to invert must lie in (0, 1], got {strength}")
    scheduler.set_timesteps(num_inference_steps)
    kept = max(1, round(strength * num_inference_steps))
    # with as many steps as timesteps, an offset would lift the first over the last timestep
    return [*(min(timestep, known - 1) for timestep in scheduler.timesteps[-kept:].tolist()), CLEAN]


def clean_and_noise(
    scheduler: "DDIMScheduler", predicted: Tensor, latents: Tensor, timestep: int
) -> tuple[Tensor, Tensor]:
    """What the prediction at `timestep` says that `latents` are made of: clean latents and noise."""
    alpha_bar = _alpha_bar(scheduler, timestep)
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (latents - noise * predicted) / signal, predicted
    if kind == "sample":
        return predicted, (latents - signal * predicted) / noise
    return signal * latents - noise * predicted, signal * predicted + noise * latents  # v_prediction


def ddim_step(
    scheduler: "DDIMScheduler",
    predicted: Float[Tensor, "b c h w"],
    latents: Float[Tensor, "b c h w"],
    timestep: int,
    to: int,
    *,
    eta: float | Tensor = 0.0,
    noise: Tensor | None = None,
) -> Float[Tensor, "b c h w"]:
    """One step of the sampler.

    Args:
        scheduler: Its noise schedule and kind of prediction.
        predicted: What the network says of `latents` at `timestep`.
        latents: Those of `timestep`.
        timestep: Where they are.
        to: The timestep to go to, or `CLEAN`.
        eta: How much of the noise is new, from 0 (DDIM) to 1 (DDPM): one number, or a map `(1, 1, h, w)`.
        noise: The new noise, of the latents' shape; without it the step is deterministic.

    Returns:
        Latents of `to`.
    """
    clean, epsilon = clean_and_noise(scheduler, predicted, latents, timestep)
    before, after = _alpha_bar(scheduler, timestep), _alpha_bar(scheduler, to)
    if noise is None:
        return after**0.5 * clean + (1 - after) ** 0.5 * epsilon
    sigma = eta * ((1 - after) / (1 - before) * (1 - before / after)) ** 0.5  # Song et al. 2021, Eq. 16
    kept = abs(1 - after - sigma**2) ** 0.5  # rounding could make it negative where there is no signal before
    return after**0.5 * clean + kept * epsilon + sigma * noise


@torch.no_grad()
def invert(
    unet: "UNet2DConditionModel",
    latents: Float[Tensor, "b c h w"],
    prompt_embeds: Float[Tensor, "1 tokens dim"],
    scheduler: "DDIMScheduler",
    levels: Sequence[int],
    *,
    fixed_point_iterations: int = 0,
    attention_layers: Sequence[str] = (),
    memory_device: torch.device | str | None = None,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> MemoryBank:
    """Find the noise from which deterministic DDIM makes these latents, without guidance.

    A step up needs the network's answer for the latents that it is to find. Like the papers' codes, the
    answer for the latents before the step stands in for it: an error that grows with the length of the steps.
    A fixed-point iteration (Pan et al. 2023) asks again with what was found, and reaches the true inverse.

    Args:
        unet: The backbone.
        latents: Scaled latents of a picture.
        prompt_embeds: The null prompt, or a text's embedding; one row serves all.
        scheduler: Its noise schedule and kind of prediction.
        levels: As `ddim_levels` gives them.
        fixed_point_iterations: How often to ask again in each step; each costs one run of the U-Net.
        attention_layers: Self-attention layers whose keys and values to keep.
        memory_device: Where to keep those; by default where they are.
        on_step: Called after each step with its timestep and latents; False ends the inversion there.

    Returns:
        The memory, from the noisiest level down.
    """
    prompts = prompt_embeds.expand(len(latents), -1, -1)
    rising = [latents]
    attention: list[dict] = []
    for low, high in zip(levels[:0:-1], levels[-2::-1], strict=True):
        found, kept = rising[-1], {}
        record = exchange_attention(unet, attention_layers, keep_keys_and_values(kept, memory_device))
        with record:
            for _ in range(1 + fixed_point_iterations):
                predicted = unet(found.to(unet.dtype), high, prompts, return_dict=False)[0].to(latents)
                found = _step_up(scheduler, predicted, rising[-1], found, low, high)
        rising.append(found)
        attention.append(kept)
        if on_step is not None and not on_step(high, found):
            break
    kept_attention = tuple(attention[::-1]) if attention_layers else ()
    return MemoryBank(tuple(levels[-len(rising) :]), tuple(rising[::-1]), kept_attention)


@torch.no_grad()
def denoise(
    unet: "UNet2DConditionModel",
    latents: Float[Tensor, "b c h w"],
    prompt_embeds: Float[Tensor, "1 tokens dim"],
    scheduler: "DDIMScheduler",
    levels: Sequence[int],
) -> Float[Tensor, "b c h w"]:
    """Take latents of `levels[0]` down to the last level by DDIM, without guidance: undoes `invert`."""
    prompts = prompt_embeds.expand(len(latents), -1, -1)
    for level, below in zip(levels[:-1], levels[1:], strict=True):
        predicted = unet(latents.to(unet.dtype), level, prompts, return_dict=False)[0].to(latents)
        latents = ddim_step(scheduler, predicted, latents, level, below)
    return latents


def _step_up(
    scheduler: "DDIMScheduler", predicted: Tensor, latents: Tensor, asked: Tensor, low: int, high: int
) -> Tensor:
    """From `low` to `high` with the noise that the network saw in `asked` when it was told `high`."""
    _, epsilon = clean_and_noise(scheduler, predicted, asked, high)
    before, after = _alpha_bar(scheduler, low), _alpha_bar(scheduler, high)
    clean = (latents - (1 - before) ** 0.5 * epsilon) / before**0.5
    return after**0.5 * clean + (1 - after) ** 0.5 * epsilon


def _alpha_bar(scheduler: "DDIMScheduler", timestep: int) -> float:
    known = scheduler.final_alpha_cumprod if timestep == CLEAN else scheduler.alphas_cumprod[timestep]
    return float(known)
