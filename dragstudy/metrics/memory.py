"""How much memory a piece of work needs at its peak, beyond what was in use before it."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

_PROCESS = Path("/proc/self")  # Linux


@contextmanager
def peak_memory(device: torch.device | str = "cpu") -> Iterator[Callable[[], float]]:
    """Within it the peak is watched; what it gives then tells the bytes beyond what was in use before.

    On a GPU that is torch's own count. On the CPU it is the resident memory of the process, whose highest
    mark the kernel is asked to forget first: the work's tensors and all else that its libraries take. What
    earlier work left with the allocator is given back before; some may stay, so it is good to a few MiB.
    NaN where there is no such mark: only Linux has one.
    """
    found = float("nan")
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            yield lambda: found
        finally:
            found = float(torch.cuda.max_memory_allocated(device) - before)
        return
    before = _forget_peak()
    try:
        yield lambda: found
    finally:
        if before is not None:
            found = max(0.0, _status("VmHWM") - before)


def weights_size(pipe: DiffusionPipeline) -> int:
    """Bytes of a pipeline's parameters and buffers."""
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _forget_peak() -> float | None:
    """Start a new highest mark; the bytes in use now, None where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:  # some containers forbid it
        return None
    return _status("VmRSS")


def _status(name: str) -> float:
    """A number of bytes from the process' status."""
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024.0 * float(line.split()[1])
    raise ValueError(f"{_PROCESS / 'status'} has no {name}")
