"""Measuring one picture as a job for any process."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dragstudy.metrics.editing import fixed_arithmetic, sentence
from dragstudy.metrics.measures import Tools, inception_features, measure

if TYPE_CHECKING:
    from dragstudy.data.samples import Sample


@dataclass(frozen=True, eq=False)
class MeasureJob:
    """One edit to be measured.

    Attributes:
        sample: What was edited.
        picture: The edit, the bytes of a PNG file.
        tools: Makes what measures.
        threads: Threads of torch and OpenCV.
    """

    sample: "Sample"
    picture: bytes
    tools: Callable[[], Tools]
    threads: int = 1


@dataclass(frozen=True, eq=False)
class FeatureJob:
    """One picture, not an edit, whose Inception features are wanted; the rest as in `MeasureJob`."""

    picture: Image.Image
    tools: Callable[[], Tools]
    threads: int = 1


def measure_edit(job: MeasureJob) -> tuple[dict[str, Any], np.ndarray | None]:
    """What `measures.measure` gives and `error`, empty if it raised none; and the Inception features."""
    tools = job.tools()
    with fixed_arithmetic(job.threads):
        try:
            edited = Image.open(io.BytesIO(job.picture)).convert("RGB")
            return {"error": ""} | measure(job.sample, edited, tools), inception_features(edited, tools)
        except Exception as error:
            return {"error": f"measuring: {sentence(error)}"}, None


def picture_features(job: FeatureJob) -> np.ndarray | None:
    """The Inception features of a picture; None without that network."""
    tools = job.tools()
    with fixed_arithmetic(job.threads):
        return inception_features(job.picture.convert("RGB"), tools)
