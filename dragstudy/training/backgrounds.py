"""Background consistency as an ablation: FlowDiffusion trained on with each of the composites."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dragstudy.pipelines import InstantDragPipeline
from dragstudy.progress import progress
from dragstudy.training.flowdiffusion import FlowDiffusionTask
from dragstudy.training.latents import LatentPairs, encode_pairs
from dragstudy.training.loop import LoopSettings, train_loop


def composite_latents(
    pairs: Dataset, autoencoder: nn.Module, approaches: Sequence[int] = (1, 2, 3), *, seed: int = 0
) -> dict[int, LatentPairs]:
    """Encode the same pairs once for each of the composites of `composite_background`.

    Args:
        pairs: Items of a `PairDataset`.
        autoencoder: Encodes them, on its own device.
        approaches: Which; 3 is none.
        seed: Of the augmentation, which is the same for all.

    Returns:
        By approach, in half precision.
    """
    found: dict[int, dict[str, list]] = {approach: {} for approach in approaches}
    chances = {approach: torch.Generator().manual_seed(seed) for approach in approaches}
    for batch in progress(DataLoader(pairs, 16), description="latents"):
        for approach in approaches:
            encoded = encode_pairs(batch, autoencoder, approach=approach, generator=chances[approach])
            for name, value in encoded.items():
                found[approach].setdefault(name, []).append(value.half().cpu())
    return {
        approach: LatentPairs({name: torch.cat(values) for name, values in parts.items()})
        for approach, parts in found.items()
    }


def train_on(pipe: InstantDragPipeline, latents: LatentPairs, settings: LoopSettings) -> UNet2DConditionModel:
    """Train a copy of a pipeline's FlowDiffusion on some latents; the pipeline keeps its own.

    Args:
        pipe: Its U-Net is where the training starts.
        latents: What `composite_latents` gave.
        settings: How.

    Returns:
        The trained copy, with its averaged weights.
    """
    unet = deepcopy(pipe.unet).float().train().requires_grad_(True)
    task = FlowDiffusionTask(unet, pipe.null_prompt, pipe.scheduler, flow_scale=pipe.config.flow_scale)
    train_loop(task, latents, settings)
    return unet.eval().requires_grad_(False)
