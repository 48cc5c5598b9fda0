"""One measured edit as a job for any process.

It has the same result wherever and after whatever it runs: it has a generator of its own, the number of
threads is given, and all that a process keeps from one job to the next is the networks it would load again.
"""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import torch
from PIL import Image

from dragstudy.flow import resize_flow
from dragstudy.metrics.distance import end_point_error
from dragstudy.metrics.memory import peak_memory, weights_size
from dragstudy.metrics.rows import Row, load_row
from dragstudy.pipelines.image_lora import forgotten_loras

if TYPE_CHECKING:
    from dragstudy.data.samples import Sample


@dataclass(frozen=True, eq=False)
class EditJob:
    """One edit to be made.

    Attributes:
        row: How.
        sample: Of what.
        seed: Of the edit's generator.
        options: Arguments of the call, beside the row's own and in place of them.
        weights: As in `dragstudy.load`.
        device: Such as `"cuda"`; where the weights are loaded by default.
        threads: Threads of torch and OpenCV.
    """

    row: Row
    sample: "Sample"
    seed: int
    options: Mapping[str, Any]
    weights: str = "tiny"
    device: str | None = None
    threads: int = 1


def edit(job: EditJob) -> tuple[bytes | None, dict[str, Any]]:
    """Make an edit.

    Returns:
        The picture as a PNG file, None if the edit raised; and what is known of it: `error`, empty if there
        was none; `drags`, their number; `masked`, whether a mask was given; `seconds` of the call, loading
        not among them; `memory` in MiB, see `peak_memory`; `flow_error` in pixels, the end-point error of the
        method's flow on the person, where sample and method have a flow.

    Raises:
        ValueError: If the row cannot be loaded. That is no fault of the sample, so it is not a row's error.
        AssetMissing: The same.
    """
    sample, row = job.sample, job.row
    mask = sample.drags.mask if row.mask else None
    known = failed("") | {"drags": len(sample.drags.handle_points), "masked": mask is not None}
    with fixed_arithmetic(job.threads):
        if not row.method:
            return _png(sample.image), known | {"seconds": 0.0, "memory": 0.0}
        pipe, asked = _load(row.method, row.few_steps, job.weights, job.device)
        call = {"mask": mask} | asked | dict(row.options) | dict(job.options)
        call["generator"] = torch.Generator().manual_seed(job.seed)
        points = sample.drags.handle_points, sample.drags.target_points
        try:
            with forgotten_loras(), peak_memory(pipe.device) as peak:
                began = time.perf_counter()
                made = pipe(sample.image, *points, **call)
                known["seconds"] = time.perf_counter() - began
        except Exception as error:
            return None, known | {"error": sentence(error)}
    known["memory"] = (peak() + weights_size(pipe)) / 2**20
    return _png(made.images[0]), known | {"flow_error": _flow_error(made.flow, sample)}


def failed(error: str) -> dict[str, Any]:
    """What is known of an edit that was not made, and why not."""
    known = {"error": error, "drags": 0, "masked": False}
    return known | dict.fromkeys(("seconds", "memory", "flow_error"), float("nan"))


@contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Within it torch and OpenCV give the same bits each time.

    Sums depend on the number of threads; and what Intel's IPP gives, which OpenCV asks where it has a single
    thread, depends on where in memory the numbers lie: of one distance transform there are two.
    """
    before = torch.get_num_threads(), cv2.getNumThreads(), cv2.ipp.useIPP()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
        cv2.ipp.setUseIPP(before[2])


_load = lru_cache(maxsize=1)(load_row)  # jobs come row by row, and networks of full size fit only once


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _flow_error(flows: list[torch.Tensor] | None, sample: "Sample") -> float:
    if flows is None or sample.flow is None:
        return float("nan")
    flow = resize_flow(flows[0].float().cpu(), tuple(sample.flow.shape[-2:]))
    return end_point_error(flow, sample.flow, sample.person).item()


def sentence(error: Exception) -> str:
    """Kind and text of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
