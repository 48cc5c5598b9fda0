"""The baseline without a network: interpolate the drags, move the pixels, inpaint what is uncovered."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dragstudy.flow import forward_splat
from dragstudy.pipelines.base import (
    DragPipeline,
    DragPipelineOutput,
    Request,
    check_output_type,
    interpolated_flow,
)
from dragstudy.pipelines.engineered import engineered

COVERED = 0.4  # a pixel less covered than this is a hole


class WarpPipeline(DragPipeline):
    """Thin-plate or moving-least-squares warp of the photograph; its holes are inpainted (Telea 2004).

    Args:
        interpolation: `"thin_plate"` or `"moving_least_squares"`.
        working_area: Pixels of the size the warp is computed at.
    """

    def __init__(self, interpolation: str = "thin_plate", working_area: int = 512 * 512):
        super().__init__()
        self.register_to_config(interpolation=interpolation, working_area=working_area)

    @engineered
    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        flow: Tensor | None = None,
        num_inference_steps: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = (),
    ) -> DragPipelineOutput | tuple:
        """Edit one image, or a list of them; arguments as in `InstantDragPipeline.__call__`.

        `num_inference_steps`, `generator` and the callback are accepted so that every method takes the same
        call; there is one step, and nothing is random.
        """
        check_output_type(output_type)
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        if flow is None:
            flow = self.predict_flow(requests)
        else:
            flow = self.fit_flow(flow, requests)
        edited = torch.cat(
            [warp_and_inpaint(r.working_image, f[None]) for r, f in zip(requests, flow, strict=True)]
        )
        if callback_on_step_end is not None:
            callback_on_step_end(self, 0, torch.tensor(0), {})
        return self.finish(requests, edited, flow, output_type, return_dict)

    def predict_flow(self, requests: Sequence[Request]) -> Tensor:
        """Interpolated flow of each request, `(b, 2, h, w)` in working pixels; the mask holds still."""
        return interpolated_flow(requests, self.config.interpolation)


def warp_and_inpaint(image: Tensor, flow: Tensor) -> Tensor:
    """Move the pixels of an image `(1, 3, h, w)` in [0, 1] along `flow` and inpaint what none covers."""
    moved, coverage = forward_splat(image, flow, mode="average")
    holes = (coverage[0, 0] < COVERED).numpy().astype(np.uint8)
    picture = (moved[0].permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    if holes.any():
        picture = cv2.inpaint(picture, holes, 5, cv2.INPAINT_TELEA)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
