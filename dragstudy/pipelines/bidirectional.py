"""Bidirectional warp and inpainting, after the idea of Inpaint4Drag (Lu and Han, ICCV 2025); no network here.

The mask is what is deformed, as if it were rubber. Forward, its contour is carried to where the drags take
it: that is where the region will be. Backward, every pixel in there looks up where it comes from, so that
stretched parts have no gaps. What the region left behind, and a seam along its new edge, is inpainted.

The paper refines the mask by SAM and inpaints by Stable Diffusion. Here the mask is taken as it is, and the
rest is inpainted classically (Telea 2004).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.flow import sample_at
from dragstudy.pipelines.base import (
    DragPipeline,
    DragPipelineOutput,
    Request,
    check_output_type,
    interpolated_flow,
)
from dragstudy.pipelines.engineered import engineered

NEIGHBOURS = 4  # of a target pixel, whose motion it takes
EPSILON = 1e-6  # pixels, so that a weight at a drag's handle is finite
SHIFT = 4  # bits behind the point of a contour's coordinates
STILL = 0.05  # pixels: an edge that moves less has no seam
INPAINT_RADIUS = 5  # pixels

Region = Bool[np.ndarray, "h w"]


class BidirectionalWarpPipeline(DragPipeline):
    """Deform the mask's region by the drags inside of it, and inpaint what is uncovered.

    Differs from the paper: what is carried out of the mask is cut off at its edge, as with every method here,
    and the seam is as narrow as a classical inpainting can fill unseen. Without a mask there is no contour to
    carry: the whole picture is deformed by the thin plate through the drags, its rim held.

    Args:
        seam: Half the width of what is inpainted along the region's new edge, in pixels of the working size;
            the paper has 5, for a network.
        working_area: Pixels of the size the warp is computed at.
    """

    def __init__(self, seam: int = 1, working_area: int = 512 * 512):
        super().__init__()
        self.register_to_config(seam=seam, working_area=working_area)

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
        flow = self.predict_flow(requests) if flow is None else self.fit_flow(flow, requests)
        edited = [
            deform_and_inpaint(request.working_image, region_of(request), one[None], self.config.seam)
            for request, one in zip(requests, flow, strict=True)
        ]
        if callback_on_step_end is not None:
            callback_on_step_end(self, 0, torch.tensor(0), {})
        return self.finish(requests, torch.cat(edited), flow, output_type, return_dict)

    def predict_flow(self, requests: Sequence[Request]) -> Tensor:
        """Forward flow of each request, `(b, 2, h, w)` in working pixels; zero outside of its region."""
        flows = [
            interpolated_flow([request])
            if request.working_drags.mask is None
            else region_flow(request.working_drags, region_of(request))
            for request in requests
        ]
        return torch.cat(flows)


def region_of(request: Request) -> Region:
    """What is deformed, at the working size: the mask, or everything."""
    mask = request.working_drags.mask
    width, height = request.fit.working_size
    return np.ones((height, width), bool) if mask is None else mask >= 0.5


def region_flow(drags: DragInstruction, region: Region) -> Float[Tensor, "1 2 h w"]:
    """Spread drags over the parts of a region that they begin in.

    In each connected part, a pixel moves by the mean of the displacements of the drags that begin in it,
    weighted by inverse distance: `p' = p + sum_i w_i (t_i - h_i)`, `w_i ~ 1 / |p - h_i|`.

    Args:
        drags: Drags in pixels of the region.
        region: What is deformed, `(h, w)`.

    Returns:
        Forward flow in pixels, `(1, 2, h, w)`; zero where no drag reaches.
    """
    h, w = region.shape
    _, parts = cv2.connectedComponents(region.astype(np.uint8))
    x, y = np.clip(np.rint(drags.handle_points), 0, (w - 1, h - 1)).astype(int).T
    part_of_drag = parts[y, x]
    flow = np.zeros((h, w, 2))
    for part in set(part_of_drag.tolist()) - {0}:
        rows, columns = np.nonzero(parts == part)
        pixels, inside = np.stack([columns, rows], axis=1), part_of_drag == part
        handles, displacements = drags.handle_points[inside], drags.displacements[inside]
        # one drag after the other: of many drags the table of all distances would be large
        moved, total = np.zeros(pixels.shape), np.zeros((len(pixels), 1))
        for handle, displacement in zip(handles, displacements, strict=True):
            weight = 1 / (np.linalg.norm(pixels - handle, axis=1, keepdims=True) + EPSILON)
            moved += weight * displacement
            total += weight
        flow[rows, columns] = moved / total
    return torch.from_numpy(flow).permute(2, 0, 1)[None].float()


def deform_and_inpaint(
    image: Float[Tensor, "1 3 h w"], region: Region, flow: Float[Tensor, "1 2 h w"], seam: int = 1
) -> Float[Tensor, "1 3 h w"]:
    """Carry a region of an image along `flow` and inpaint what it leaves behind.

    Args:
        image: In [0, 1].
        region: What is deformed, `(h, w)`; all else stays.
        flow: Forward flow in pixels.
        seam: Half the width of what is inpainted along the new edge, in pixels; 0 for none.

    Returns:
        The edited image, in steps of 1/255 wherever something moves.
    """
    if not region.any() or not flow.abs().max() > 0:
        return image
    motion = flow[0].permute(1, 2, 0).double().numpy()
    covered = deformed_region(region, motion)
    came_from = look_up(region, motion, covered)
    edited = torch.where(torch.from_numpy(covered), sample_at(image, came_from), image)
    picture = (edited[0].permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    holes = region & ~covered | _seam(region, covered, came_from, seam)
    if holes.any():
        picture = cv2.inpaint(picture, holes.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def deformed_region(region: Region, motion: Float[np.ndarray, "h w 2"]) -> Region:
    """Where a region goes: the inside of its contours, carried along `motion` in pixels, `(h, w)`.

    The frame of the picture is no contour: a region that reaches it still does afterwards, unless it is moved
    away from it.
    """
    _, parts = cv2.connectedComponents(region.astype(np.uint8))
    covered = np.zeros(region.shape, bool)
    for part in range(1, parts.max() + 1):
        one = (parts == part).astype(np.uint8)
        contours, _ = cv2.findContours(one, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        covered |= _filled((_carried(contour[:, 0], motion) for contour in contours), region.shape)
    return covered


def look_up(region: Region, motion: Float[np.ndarray, "h w 2"], covered: Region) -> Float[Tensor, "1 2 h w"]:
    """Where in the source each covered pixel comes from, (x, y) in pixels; the others come from themselves.

    A pixel goes back by the mean motion of the four pixels of the region that land nearest to it, weighted by
    inverse distance: `p = p' + sum_i w_i (source_i - target_i)`.
    """
    rows, columns = np.nonzero(region)
    moved = motion[rows, columns]
    landed = cKDTree(np.stack([columns, rows], axis=1) + moved, compact_nodes=False, balanced_tree=False)
    wanted = np.stack(np.nonzero(covered)[::-1], axis=1).astype(np.float64)
    distances, nearest = landed.query(wanted, k=list(range(1, min(NEIGHBOURS, len(rows)) + 1)))
    weights = 1 / (distances + EPSILON)
    weights /= weights.sum(axis=1, keepdims=True)
    h, w = region.shape
    found = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1).astype(np.float64)
    found[covered] -= (weights[..., None] * moved[nearest]).sum(axis=1)
    return torch.from_numpy(found).permute(2, 0, 1)[None].float()


def _carried(contour: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Points `(n, 2)` of a contour after the motion."""
    return contour + motion[contour[:, 1], contour[:, 0]]


def _filled(contours: Iterable[np.ndarray], size: tuple[int, int]) -> Region:
    """The inside of an outer contour and its holes' contours, even-odd, rims included."""
    drawn = np.zeros(size, np.uint8)
    fixed = [np.rint(contour * 2**SHIFT).astype(np.int32) for contour in contours]
    cv2.fillPoly(drawn, fixed, 1, shift=SHIFT)
    return drawn > 0


def _seam(region: Region, covered: Region, came_from: Tensor, width: int) -> Region:
    """The rim of what is covered, on both sides, where it moved; it ends at the mask."""
    if width < 1:
        return np.zeros_like(region)
    shown = (covered & region).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    h, w = region.shape
    back = came_from[0].permute(1, 2, 0).numpy() - np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1)
    moves = cv2.dilate((np.linalg.norm(back, axis=2) > STILL).astype(np.uint8), disc) > 0
    rim = cv2.dilate(shown, disc) > cv2.erode(shown, disc)  # of the frame OpenCV makes no rim
    return rim & moves & region
