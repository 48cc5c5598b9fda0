"""Tiny trainings on tiny pairs that the tests of sweeps and ablations share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dragstudy.data.pairs import ShardWriter
from dragstudy.data.synthetic import synthetic_pair

from ..tiny import picture

SIDE = 128
COUNTS = {"train": 6, "val": 2, "test": 3}
FLOWGEN = {  # changes to the base of `dragstudy.ablations.flowgen`: seconds
    "steps": 4,
    "batch_size": 2,
    "size": 64,
    "base_channels": 8,
    "num_downs": 3,
    "warmup": 1,
    "log_every": 2,
    "validate_every": 2,
    "checkpoint_every": 1,
    "mixed_precision": "no",
    "count": 3,
    "seen": 2,
    "points": [1, 17],
}


def write_pairs(folder: Path) -> Path:
    """Pairs of 128 x 128 with landmarks, of splits `train`, `val` and `test`."""
    across = np.linspace(30, 98, 68)
    landmarks = np.stack([across, 64 + 20 * np.sin(across / 9)], axis=1)
    with ShardWriter(folder) as writer:
        for split, count in COUNTS.items():
            for k in range(count):
                photo = np.asarray(picture(SIDE, SIDE, k + 0.3 * len(split)))
                pair = synthetic_pair(photo, f"{split}-{k}", torch.Generator().manual_seed(k), split=split)
                mask = np.full((SIDE, SIDE), 255, np.uint8)
                known = {"mask": mask, "target_mask": mask, "landmarks": landmarks}
                writer.write(replace(pair, **known, target_landmarks=landmarks + [2.0, -1.0]))
    return folder
