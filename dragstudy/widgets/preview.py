"""What a drag does, at once: the flow of the method, and the photograph warped along it."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dragstudy.drags import DragInstruction, resize_points
from dragstudy.flow import backward_warp, invert_flow, resize_flow, sample_at
from dragstudy.images import fit_size, to_pil, to_tensor
from dragstudy.pipelines import DragPipeline
from dragstudy.pipelines.base import make_request

PREVIEW_AREA = 256 * 256  # pixels that are warped: twice the side takes four times as long

INVERSION_STEPS = 10  # more change nothing that is seen


@dataclass(frozen=True)
class Preview:
    """A picture of what the drags ask for, before any sampling.

    Attributes:
        image: The photograph, warped, of its shape and about `PREVIEW_AREA` pixels.
        flow: `(1, 2, h, w)` in pixels of `image`.
        seconds: What it took.
    """

    image: Image.Image
    flow: Tensor
    seconds: float


@torch.no_grad()
def make_preview(pipe: DragPipeline, image: Image.Image, drags: DragInstruction) -> Preview:
    """Predict the flow of the drags and warp the image along it.

    The flow is the method's own (FlowGen's), or for a method that has none the thin plate through the drags.
    Read along its inverse, the picture stretches where a splat would leave holes.

    Raises:
        ValueError: If the drags do not fit the image.
    """
    start = perf_counter()
    area = getattr(pipe.config, "working_area", PREVIEW_AREA)
    request = make_request(image, drags.handle_points, drags.target_points, drags.mask, area)
    flow = pipe.predict_flow([request]).cpu()
    width, height = fit_size(*image.size, area=PREVIEW_AREA, multiple=1)
    small = to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
    flow = resize_flow(flow, (height, width))
    warped = to_pil(backward_warp(small, invert_flow(flow, INVERSION_STEPS)))
    return Preview(warped, flow, perf_counter() - start)


def flow_arrows(flow: Tensor, size: tuple[int, int], columns: int = 16) -> np.ndarray:
    """Arrows on a grid, `(n, 4)`: x, y, and the motion dx, dy, in pixels of a picture of (width, height).

    Args:
        flow: `(1, 2, h, w)` in pixels of its own grid.
        size: Of the picture that the arrows are drawn on.
        columns: Arrows along the longer side.
    """
    width, height = size
    h, w = flow.shape[-2:]
    step = max(size) / columns
    x, y = np.meshgrid(np.arange(step / 2, width, step) - 0.5, np.arange(step / 2, height, step) - 0.5)
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    coords = torch.from_numpy(resize_points(places, size, (w, h))).T[None, :, :, None]
    motion = sample_at(flow.double(), coords)[0, :, :, 0].T.numpy() * np.array([width / w, height / h])
    return np.concatenate([places, motion], axis=1)
