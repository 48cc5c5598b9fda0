"""Small trainings of FlowGen, and its error where it was trained and where it was not.

At 64 x 64 a training of 120 steps of 8 pairs takes 2 minutes of one core, and measuring it a quarter of one.
Errors are in pixels of the pairs, 256 x 256, whatever size the network works at.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from dragstudy.ablations.flowgen_errors import errors_of
from dragstudy.ablations.training import (
    finish_training,
    held_out_pairs,
    learning_curve,
    measuring_code,
    pairs_digest,
    seen_and_unseen,
    trainer_code,
)
from dragstudy.models.flowgen_variants import FLOWGENS
from dragstudy.sweeps import Parameters

STEPS, BATCH = 120, 8
BASE = {  # of every training, where a variant does not change it
    "steps": STEPS,
    "batch_size": BATCH,
    "size": 64,
    "warmup": 15,
    "checkpoint_every": 60,
    "validate_every": 20,
    "log_every": 10,
}
MEASURING = {
    "count": 100,  # held-out pairs
    "seen": 50,  # generated faces that were trained on, and as many that were not
    "points": [1, 5, 17, 68],  # landmarks that are dragged
    "rescalings": [],  # of `RESCALINGS`, beside the network's own
}
SECONDS = {"update": 0.09, "discriminator": 0.05, "pair": 0.02}  # a pair at 128 x 128, on one core


@dataclass(frozen=True)
class FlowGenTrials:
    """FlowGen as a `dragstudy.sweeps.Task`.

    Attributes:
        data: Folder of the pairs to train on.
        held_out: Folder of those to measure on; None takes the hundred frozen pairs.
    """

    data: Path
    held_out: Path | None = None
    name: str = "flowgen"

    def train(self, training: Parameters, folder: Path, minutes: float | None) -> float | None:
        """See `dragstudy.training.run.train_flowgen`."""
        return finish_training("flowgen", self.data, folder, minutes, training)

    @torch.no_grad()
    def measure(self, training: Parameters, measuring: Parameters, folder: Path) -> dict[str, pd.DataFrame]:
        """Tables `flowgen-errors`, see `errors_of`, and `flowgen-curve`, see `learning_curve`."""
        cls = FLOWGENS[training.get("variant", "own")]
        generator = cls.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
        held_out = held_out_pairs(self.held_out, measuring["count"])
        sets = {"held-out": (held_out, list(range(len(held_out))))}
        sets |= seen_and_unseen(self.data, training, measuring["seen"])
        rows = []
        for name, (pairs, chosen) in sets.items():
            for start in range(0, len(chosen), BATCH):
                items = [pairs[index] for index in chosen[start : start + BATCH]]
                items = [item for item in items if not item["landmarks"].isnan().any()]
                for points in measuring["points"] if items else ():
                    sized = training.get("size", 0)
                    for row in errors_of(generator, items, points, sized, measuring["rescalings"]):
                        rows.append({"set": name} | row)
        return {"flowgen-errors": pd.DataFrame(rows), "flowgen-curve": learning_curve(folder)}

    def made_by(self, training: Parameters) -> dict[str, str]:
        """Code: FlowGen's task, its networks, the loop, pairs and drags; data: the manifest of the pairs."""
        modules = ("training.flowgen", "training.loop", "training.subsets", "models.flowgen_variants")
        code = trainer_code("flowgen", *(f"dragstudy.{name}" for name in (*modules, "data.pairs")))
        return {"code": code, "data": pairs_digest(self.data)}

    def measured_by(self, measuring: Parameters) -> dict[str, str]:
        """Code: `flowgen_errors`, the networks and what both import; data: both sets of pairs."""
        modules = "dragstudy.ablations.flowgen_errors", "dragstudy.models.flowgen_variants"
        return {
            "code": measuring_code(*modules),
            "data": pairs_digest(self.data),
            "held out": pairs_digest(self.held_out),
        }

    def minutes(self, training: Parameters) -> float:
        """About how long a training takes on one core."""
        updates, adversarial = training.get("generator_updates", 4), training.get("adversarial", True)
        update = SECONDS["update"] * (1 if adversarial else 0.6)
        pair = updates * update + SECONDS["discriminator"] * adversarial
        pair = pair * (training.get("size", 256) / 128) ** 2 + SECONDS["pair"]
        return training["steps"] * training["batch_size"] * pair / 60
