"""The ablations that train: small trainings of FlowGen and FlowDiffusion, and what is measured on them."""

from dragstudy import _torchvision

_torchvision.require()  # diffusers reaches torchvision through peft and transformers as it is imported

from dragstudy.ablations.grids import SWEEPS, sweep  # noqa: E402
from dragstudy.ablations.running import run_sweep  # noqa: E402

__all__ = ["SWEEPS", "run_sweep", "sweep"]
