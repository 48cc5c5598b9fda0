"""Checkpoints: a folder a step, complete or absent, the newest one kept.

Networks and averages are safetensors. Optimiser state is torch's format, read back with `weights_only=True`.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer


def latest_checkpoint(out: Path) -> Path | None:
    """The newest complete checkpoint folder in `out`, or None."""
    found = sorted(
        path for path in out.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()
    )
    return found[-1] if found else None


def save_checkpoint(
    out: Path,
    progress: dict[str, Any],
    networks: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    averages: dict[str, EMAModel],
) -> Path:
    """Write `out/checkpoint-<step>` under another name, rename it into place, then remove the older ones.

    Args:
        out: Folder of the run.
        progress: What JSON can hold: `step`, `seconds` trained, `sums` of values not logged yet, `settings`.
        networks: Weights to keep.
        optimizers: Their optimisers' state to keep.
        averages: Their moving averages to keep.
    """
    folder = out / f"checkpoint-{progress['step']:08d}"
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, network in networks.items():
        save_file(
            {k: v.contiguous() for k, v in network.state_dict().items()}, partial / f"{name}.safetensors"
        )
        torch.save(optimizers[name].state_dict(), partial / f"{name}.optimizer.pt")
        torch.save(averages[name].state_dict(), partial / f"{name}.average.pt")
    (partial / "state.json").write_text(json.dumps(progress, indent=1))
    older = [path for path in out.glob("checkpoint-*") if path not in (partial, folder)]
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    for path in older:
        shutil.rmtree(path)
    return folder


def load_checkpoint(
    folder: Path,
    networks: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    averages: dict[str, EMAModel],
) -> tuple[int, float, dict[str, list[float]]]:
    """Restore what `save_checkpoint` wrote; return steps and seconds trained, and values not logged yet."""
    for name, network in networks.items():
        network.load_state_dict(load_file(folder / f"{name}.safetensors"))
        optimizers[name].load_state_dict(torch.load(folder / f"{name}.optimizer.pt", weights_only=True))
        averages[name].load_state_dict(torch.load(folder / f"{name}.average.pt", weights_only=True))
    state = json.loads((folder / "state.json").read_text())
    return state["step"], state["seconds"], state.get("sums", {})
