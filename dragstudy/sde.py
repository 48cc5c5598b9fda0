r"""A picture's way to noise and back that remembers its noises, and patches that are copied on the way.

Noise is added step by step at random; each step then remembers by how much the sampler, a DDPM step (Song et
al. 2021, Eq. 12 with eta = 1), would miss the latents that the step came from. A sampler that adds what was
remembered returns to the very picture it came from, and one that starts from other latents to a picture near
it (Cycle-SDE in Nie et al. 2023, Sec. 3; CycleDiffusion, Wu and De la Torre 2022). Their codes remember the
noise $\bar w$; here it is $\sigma \bar w$, which needs no division by a $\sigma$ that may be zero.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from dragstudy.inversion import CLEAN, ddim_levels, ddim_step

Predict = Callable[[Tensor, int], Tensor]  # from latents and their timestep to the network's prediction
Patch = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True)
class NoiseMemory:
    """A picture's random way to noise.

    Attributes:
        levels: Timesteps from the noisiest down, and `CLEAN` at the end.
        latents: `latents[i]` are those of `levels[i]`, `(b, c, h, w)`; the last are the picture's own.
        noises: What step i of the sampler, from `levels[i]` to `levels[i + 1]`, has to add to its mean.
    """

    levels: tuple[int, ...]
    latents: tuple[Tensor, ...]
    noises: tuple[Tensor, ...]


@dataclass(frozen=True)
class PatchMove:
    """A patch of latents on its way, in whole cells of their grid.

    Attributes:
        source: Rows and columns it is copied from.
        target: As many rows and columns that it is copied to.
    """

    source: Patch
    target: Patch


def equal_levels(scheduler: DDIMScheduler, num_inference_steps: int, strength: float) -> list[int]:
    """Timesteps that divide the way from the picture up to `strength` into equal steps, noisiest first.

    Args:
        scheduler: Says how many timesteps there are.
        num_inference_steps: Steps that the whole way up to pure noise would have.
        strength: t_0 / T, in (0, 1].

    Raises:
        ValueError: See `ddim_levels`, which has as many levels.

    Example:
        >>> equal_levels(DDIMScheduler(), 5, 0.6)
        [600, 400, 200, -1]
    """
    count = len(ddim_levels(scheduler, num_inference_steps, strength)) - 1
    known = scheduler.config.num_train_timesteps
    rising = {min(round(strength * known * (k + 1) / count), known - 1) for k in range(count)}
    return [*sorted(rising, reverse=True), CLEAN]


@torch.no_grad()
def remember_noises(
    predict: Predict,
    latents: Float[Tensor, "b c h w"],
    scheduler: DDIMScheduler,
    levels: Sequence[int],
    generator: torch.Generator | None,
    *,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> NoiseMemory:
    """Add noise to a picture, level by level, and find what leads back (Nie et al. 2023, Eq. 7 and 8).

    Args:
        predict: The network, at its guidance.
        latents: Scaled latents of the picture.
        scheduler: Its noise schedule and kind of prediction.
        levels: From the noisiest down to `CLEAN`.
        generator: Source of the noise.
        on_step: Called after each step with its timestep and latents; False ends the way there.
    """
    rising, noises = [latents], []
    for low, high in zip(levels[:0:-1], levels[-2::-1], strict=True):
        share = alpha_bar(scheduler, high) / alpha_bar(scheduler, low)
        fresh = randn_tensor(latents.shape, generator, latents.device, latents.dtype)
        noisy = share**0.5 * rising[-1] + (1 - share) ** 0.5 * fresh
        noises.append(rising[-1] - _mean(predict(noisy, high), noisy, scheduler, high, low))
        rising.append(noisy)
        if on_step is not None and not on_step(high, noisy):
            break
    return NoiseMemory(tuple(levels[-len(rising) :]), tuple(rising[::-1]), tuple(noises[::-1]))


@torch.no_grad()
def sample_with_memory(
    predict: Predict,
    latents: Float[Tensor, "b c h w"],
    scheduler: DDIMScheduler,
    memory: NoiseMemory,
    *,
    moves: Sequence[PatchMove] = (),
    protected: Tensor | None = None,
    on_step: Callable[[int, Tensor], Tensor | None] | None = None,
) -> Float[Tensor, "b c h w"] | None:
    """Sample from noisy latents with the noises that lead others back to their picture (Eq. 6).

    Args:
        predict: The network, as for the memory.
        latents: Those of `memory.levels[0]`: the memory's own return to its picture, exactly.
        scheduler: Its noise schedule and kind of prediction.
        memory: Of the picture.
        moves: Patches that take a copy of their noises along. By default all noises stay in place, as in the
            paper.
        protected: Boolean map `(1, 1, h, w)` where the latents are the memory's own at every level.
        on_step: Called after each step with its timestep and latents; gives back the latents to go on with,
            or None to end.

    Returns:
        Clean latents, or None if it was ended.
    """
    latents = _protect(latents, memory.latents[0], protected)
    steps = zip(memory.levels, memory.levels[1:], memory.noises, memory.latents[1:], strict=False)
    for high, low, noise, own in steps:
        carried = noise.clone()
        for move in moves:
            carried[..., *move.target] = noise[..., *move.source]
        latents = _mean(predict(latents, high), latents, scheduler, high, low) + carried
        latents = _protect(latents, own, protected)
        if on_step is not None:
            latents = on_step(low, latents)
            if latents is None:
                return None
    return latents


def plan_rounds(
    handles: Float[Tensor, "n 2"],
    targets: Float[Tensor, "n 2"],
    size: tuple[int, int],
    *,
    step_length: float,
    radius: int,
) -> list[list[PatchMove]]:
    """Cut drags into rounds of about `step_length` each, and find the patches to copy in each.

    The longest drag decides how many rounds there are; the others take as many, shorter ones. A patch reaches
    `radius` cells from its point to each side, and less where it or its target would reach over the border.

    Args:
        handles: (x, y) in latent cells, `(n, 2)`.
        targets: (x, y) in latent cells, `(n, 2)`.
        size: (height, width) of the latents.
        step_length: In latent cells.
        radius: In latent cells.

    Returns:
        Of each round, the moves of the drags; at least one round. A drag that stays in its cell has none: the
        patch would be pasted onto itself, amplified.
    """
    longest = float((targets - handles).norm(dim=1).max())
    count = max(1, math.floor(longest / step_length))
    if longest > step_length and _miss(longest, count, step_length) > _miss(longest, count + 1, step_length):
        count += 1
    rounds = []
    for k in range(count):
        starts, ends = torch.lerp(handles, targets, k / count), torch.lerp(handles, targets, (k + 1) / count)
        moves = [_plan_move(*way, size, radius) for way in zip(starts, ends, strict=True)]
        rounds.append([move for move in moves if move.source != move.target])
    return rounds


def copy_and_paste(
    latents: Float[Tensor, "b c h w"],
    moves: Sequence[PatchMove],
    *,
    amplification: float,
    source_share: float,
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """Copy patches of noisy latents, and cover what they leave with noise (Nie et al. 2023, Sec. 4).

    All patches are read before any is written: their order is of no consequence but where targets overlap.

    Args:
        latents: Noisy latents of a picture.
        moves: Patches to copy.
        amplification: Factor alpha on what is pasted.
        source_share: What stays at the source, beta; noise of share sqrt(1 - beta^2) is added to it.
        noise: Fresh noise.

    Returns:
        The edited latents.
    """
    pasted = latents.clone()
    for move in moves:
        covered = source_share * latents + (1 - source_share**2) ** 0.5 * noise
        pasted[..., *move.source] = covered[..., *move.source]
    for move in moves:
        pasted[..., *move.target] = amplification * latents[..., *move.source]
    return pasted


def alpha_bar(scheduler: DDIMScheduler, timestep: int) -> float:
    """The share of the signal's power at a timestep, or at `CLEAN`."""
    known = scheduler.final_alpha_cumprod if timestep == CLEAN else scheduler.alphas_cumprod[timestep]
    return float(known)


def _mean(predicted: Tensor, latents: Tensor, scheduler: DDIMScheduler, high: int, low: int) -> Tensor:
    """What the random sampler's step comes to on average."""
    return ddim_step(scheduler, predicted, latents, high, low, eta=1.0, noise=torch.zeros_like(latents))


def _protect(latents: Tensor, own: Tensor, protected: Tensor | None) -> Tensor:
    return latents if protected is None else torch.where(protected, own, latents)


def _miss(length: float, count: int, step_length: float) -> float:
    return abs(length / count - step_length)


def _plan_move(start: Tensor, end: Tensor, size: tuple[int, int], radius: int) -> PatchMove:
    """The move from one point to another, (x, y) in latent cells."""
    slices = []
    for a, b, length in zip(start.tolist(), end.tolist(), size[::-1], strict=True):
        here, there = (min(max(round(x), 0), length - 1) for x in (a, b))
        before = min(radius, here, there)
        after = min(radius, length - 1 - here, length - 1 - there)
        slices.append([slice(cell - before, cell + after + 1) for cell in (here, there)])
    (columns, columns_there), (rows, rows_there) = slices
    return PatchMove((rows, columns), (rows_there, columns_there))
