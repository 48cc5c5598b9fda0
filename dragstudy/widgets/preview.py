"""What a drag does, at once: the flow of the method, and the photograph warped along it."""

from dataclasses import dataclass, replace
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
from dragstudy.widgets.mask import MaskOperation, rasterise, resize_operation
from dragstudy.widgets.sketch import Sketch

PREVIEW_AREA = 256 * 256  # pixels that are warped: twice the side takes four times as long

INVERSION_STEPS = 10  # more change nothing that is seen


@dataclass(frozen=True)
class Preview:
    """A picture of what the drags ask for, before any sampling.

    Attributes:
        sketch: What was previewed.
        image: The photograph, warped, of its shape and about `PREVIEW_AREA` pixels.
        flow: `(1, 2, h, w)` in pixels of `image`.
        seconds: What it took.
    """

    sketch: Sketch
    image: Image.Image
    flow: Tensor
    seconds: float


class PreviewMaker:
    """Makes previews of one picture after the other; what does not change from drag to drag is kept."""

    def __init__(self) -> None:
        self._image: Image.Image | None = None
        self._small: Image.Image | None = None  # of that image
        self._mask: tuple[MaskOperation, ...] = ()
        self._small_mask: np.ndarray | None = None  # of that image and that mask

    def __call__(self, pipe: DragPipeline, image: Image.Image, sketch: Sketch) -> Preview:
        """Preview a sketch on the image.

        Raises:
            ValueError: If there are no drags, or they do not fit the image.
        """
        start = perf_counter()
        drags = replace(sketch, mask=()).instruction(image.size)
        if image is not self._image:
            size = fit_size(*image.size, area=PREVIEW_AREA, multiple=1)
            self._image, self._small = image, image.resize(size, Image.Resampling.BICUBIC)
            self._mask, self._small_mask = (), None
        if sketch.mask != self._mask:
            self._small_mask = _small_mask(sketch.mask, image.size, self._small.size)
            self._mask = sketch.mask
        drags = drags.resize(self._small.size)
        drags = DragInstruction(drags.handle_points, drags.target_points, self._small_mask, self._small.size)
        flow, warped = _warp(pipe, self._small, drags)
        return Preview(sketch, warped, flow, perf_counter() - start)


def _small_mask(
    mask: tuple[MaskOperation, ...], size: tuple[int, int], small: tuple[int, int]
) -> np.ndarray | None:
    """A mask as it is painted on the small picture: on the photograph it could take seconds."""
    return rasterise([resize_operation(one, size, small) for one in mask], small) if mask else None


@torch.no_grad()
def _warp(pipe: DragPipeline, image: Image.Image, drags: DragInstruction) -> tuple[Tensor, Image.Image]:
    """The flow of the drags in pixels of the image, and the image along it.

    The flow is the method's own (FlowGen's), or for a method that has none the thin plate through the drags.
    Read along its inverse, the picture stretches where a splat would leave holes.
    """
    area = getattr(pipe.config, "working_area", PREVIEW_AREA)
    request = make_request(image, drags.handle_points, drags.target_points, drags.mask, area)
    flow = resize_flow(pipe.predict_flow([request]).cpu(), image.size[::-1])
    return flow, to_pil(backward_warp(to_tensor(image), invert_flow(flow, INVERSION_STEPS)))


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
