"""Small trainings of FlowDiffusion from the shipped backbone, and what they paint, told every pixel's way.

A training of 480 steps of 8 pairs takes 4.5 minutes of one core with bfloat16 and 10 without; measuring it,
1.5 and 3: a hundred edits of 6 steps with the guidance that is the pipeline's default. The first one also
encodes all pairs, which takes a core 13 minutes with bfloat16 and half an hour without, once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from filelock import FileLock
from torch import Tensor
from torch.utils.data import default_collate

from dragstudy._fingerprints import weights_sha256
from dragstudy.ablations.flowdiffusion_edits import edit_pair, make_editor, measure_pair, measuring_networks
from dragstudy.ablations.training import (
    finish_training,
    held_out_pairs,
    learning_curve,
    measuring_code,
    pairs_digest,
    seen_and_unseen,
    trainer_code,
)
from dragstudy.data.pairs import PairDataset
from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.pipelines.weights import FLOW_SCALE, PLAINLY, WEIGHTS
from dragstudy.sweeps import Parameters
from dragstudy.training.backbone import add_noise, diffusion_target
from dragstudy.training.flowdiffusion import FlowDiffusionTask
from dragstudy.training.latents import cached_latents, encode_pairs

STEPS, BATCH = 480, 8  # from as many pairs, batches of 16 learn less
BASE = {  # of every training, where a variant does not change it
    "steps": STEPS,
    "batch_size": BATCH,
    "warmup": 30,
    "variant": "concat",
    "checkpoint_every": 240,
    "validate_every": 60,
    "log_every": 60,
}
MEASURING = {
    "count": 100,  # held-out pairs that are edited
    "sampling_steps": 6,
    "detail": "none",  # of the pipeline
    "seen": 50,  # generated faces that were trained on, and as many that were not
}
NOISE_LEVELS = (100, 300, 500, 700, 900)  # timesteps of the losses
SECONDS_PER_PAIR = 0.15  # of training, on one core without bfloat16


@dataclass(frozen=True)
class FlowDiffusionTrials:
    """FlowDiffusion as a `dragstudy.sweeps.Task`.

    Attributes:
        data: Folder of the pairs to train on.
        held_out: Folder of those to measure on; None takes the hundred frozen pairs.
        weights: Folder of the autoencoder and the backbone that it starts from.
    """

    data: Path
    held_out: Path | None = None
    weights: Path = WEIGHTS
    name: str = "flowdiffusion"

    def train(self, training: Parameters, folder: Path, minutes: float | None) -> float | None:
        """See `dragstudy.training.run.train_flowdiffusion`."""
        with FileLock(self.data / ".latents.lock"):  # else each process would encode all pairs
            for split, augmented in (("train", True), ("val", False)):
                cached_latents(PairDataset(self.data, split), self._autoencoder(), augmented=augmented)
        start = {name: self.weights / name for name in ("autoencoder", "backbone")}
        return finish_training("flowdiffusion", self.data, folder, minutes, dict(training) | start)

    @torch.no_grad()
    def measure(self, training: Parameters, measuring: Parameters, folder: Path) -> dict[str, pd.DataFrame]:
        """Tables `flowdiffusion-edits`, `flowdiffusion-losses` and `flowdiffusion-curve`.

        Edits are as `measure_pair` has them. Losses have one row a pair: `set`, `"held-out"`,
        `"train"` (generated faces that were trained on) or `"val"` (others), `key` and `loss`, the mean over
        `NOISE_LEVELS`.
        """
        unet = UNet2DConditionModel.from_pretrained(folder, **PLAINLY).eval()
        normed = {"flow_scale": training.get("flow_scale", FLOW_SCALE)}
        normed |= {"normalization": training.get("normalization", "fixed")}
        pipe = make_editor(unet, self._autoencoder(), **normed)
        options = {"num_inference_steps": measuring["sampling_steps"], "detail": measuring["detail"]}
        items = list(held_out_pairs(self.held_out, measuring["count"]))
        edits = [
            measure_pair(edit_pair(pipe, item, **options), item, *measuring_networks()) for item in items
        ]
        task = FlowDiffusionTask(unet, NullPrompt(), make_scheduler(), drop_image=0, drop_flow=0, **normed)
        losses = [
            {"set": name, "key": key, "loss": loss}
            for name, batches in self._latents(training, measuring).items()
            for keys, batch in batches
            for key, loss in zip(keys, pair_losses(task, batch), strict=True)
        ]
        return {
            "flowdiffusion-edits": pd.DataFrame(edits),
            "flowdiffusion-losses": pd.DataFrame(losses),
            "flowdiffusion-curve": learning_curve(folder),
        }

    def made_by(self, training: Parameters) -> dict[str, str]:
        """Code: the task, its networks, the loop, latents; the data; the weights that it starts from."""
        modules = ("flowdiffusion", "latents", "loop", "subsets")
        code = trainer_code("flowdiffusion", *(f"dragstudy.training.{name}" for name in modules))
        start = {
            name: weights_sha256(str(self.weights / name), WEIGHTS) for name in ("autoencoder", "backbone")
        }
        return {"code": code, "data": pairs_digest(self.data)} | start

    def measured_by(self, measuring: Parameters) -> dict[str, str]:
        """Code: `flowdiffusion_edits`, the training's own, and what both import; data: both sets of pairs."""
        modules = "dragstudy.ablations.flowdiffusion_edits", "dragstudy.training.latents"
        return {
            "code": measuring_code(*modules),
            "data": pairs_digest(self.data),
            "held out": pairs_digest(self.held_out),
        }

    def minutes(self, training: Parameters) -> float:
        """About how long a training takes on one core."""
        return training["steps"] * training["batch_size"] * SECONDS_PER_PAIR / 60

    def _autoencoder(self) -> AutoencoderTiny:
        return _autoencoder(self.weights)

    def _latents(
        self, training: Parameters, measuring: Parameters
    ) -> dict[str, Iterable[tuple[list[str], dict[str, Tensor]]]]:
        """Keys and latents of each set, batch by batch."""
        found = {"held-out": _held_out_latents(self.held_out, measuring["count"], self.weights)}
        for name, (pairs, chosen) in seen_and_unseen(self.data, training, measuring["seen"]).items():
            latents = cached_latents(pairs, self._autoencoder(), augmented=name == "train")
            keys = [pairs.manifest["key"][index] for index in chosen]
            found[name] = _batched(keys, [latents[index] for index in chosen])
        return found


@torch.no_grad()
def pair_losses(task: FlowDiffusionTask, batch: dict[str, Tensor]) -> list[float]:
    """Mean loss of each pair over `NOISE_LEVELS`; the noise of a level is the same for every pair."""
    latents = batch["target_latents"].float()
    total = torch.zeros(len(latents))
    for level in NOISE_LEVELS:
        generator = torch.Generator().manual_seed(level)
        noise = torch.randn(latents.shape[1:], generator=generator).expand_as(latents)
        timesteps = torch.full((len(latents),), level)
        noisy = add_noise(task.scheduler, latents, noise, timesteps)
        predicted = task.predict(noisy, timesteps, batch, generator)
        target = diffusion_target(task.scheduler, latents, noise, timesteps)
        total += (predicted - target).square().mean(dim=(1, 2, 3))
    return (total / len(NOISE_LEVELS)).tolist()


@cache
def _autoencoder(weights: Path) -> AutoencoderTiny:
    return AutoencoderTiny.from_pretrained(weights / "autoencoder", **PLAINLY).eval()


@cache
def _held_out_latents(held_out: Path | None, count: int, weights: Path) -> list[tuple[list[str], Any]]:
    """Encoded once a process: they are the same for every training."""
    items = list(held_out_pairs(held_out, count))
    batches = [default_collate(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return [(batch["key"], encode_pairs(batch, _autoencoder(weights))) for batch in batches]


def _batched(keys: list[str], latents: list[dict]) -> Iterator[tuple[list[str], Any]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH], default_collate(latents[start : start + BATCH])
