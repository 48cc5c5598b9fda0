"""Half precision where a machine computes in it, and float32 where it would only pretend to."""

from typing import Literal

import torch

# x86 instructions; without them bfloat16 takes ten times as long as float32
CPU_BF16 = ("amx_bf16", "avx512_bf16")


def fast_precision(device: torch.device | str | None = None) -> Literal["bf16", "no"]:
    """The precision that training is quickest in: what `mixed_precision="auto"` stands for.

    Args:
        device: Where; by default the GPU if there is one, else the CPU.

    Returns:
        `"bf16"` on GPUs and x86 CPUs that have instructions for it, else `"no"`, which is float32.
    """
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    found = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return "bf16" if any(found.get(name) for name in CPU_BF16) else "no"


def fast_autocast(device: torch.device) -> torch.autocast:
    """Automatic casting to `fast_precision`, for what needs no more."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_precision(device) == "bf16")
