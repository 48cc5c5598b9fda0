"""Points at the hearts of moving parts: the watershed sampling of motion guidance.

Flows are in pixels of their own grid; a pixel that is not drawn is zero.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def sample_watershed(
    flow: Float[Tensor, "2 h w"],
    mask: Float[Tensor, "1 h w"] | None = None,
    *,
    k: int | None = None,
    generator: torch.Generator | None = None,
    edge_threshold: float = 0.1,
    spacing: int = 15,
) -> Float[Tensor, "2 h w"]:
    """Draw points at the hearts of moving parts (Zhan et al. 2019, Conditional Motion Propagation).

    A Sobel filter finds the motion edges; the distance to the nearest edge is the watershed map; its
    peaks, kept apart by non-maximum suppression, are the points. Here the rims of the mask and of the
    frame are edges too, so that an object which moves as one still has its heart.

    Args:
        flow: Dense forward flow in pixels, shape `(2, h, w)`.
        mask: 1 on the object, shape `(1, h, w)`; `None` is all object.
        k: Number of points at most; by default all peaks.
        generator: Draws which k of the peaks stay; without it the k farthest from any edge do.
        edge_threshold: Share of the strongest gradient from which on a pixel is an edge.
        spacing: Odd width in pixels of the window in which a point is alone.

    Returns:
        The flow at the points and zero elsewhere, shape `(2, h, w)`.

    Raises:
        ValueError: If `k` is less than 1, or `spacing` is not odd and positive.

    Example:
        >>> flow = torch.zeros(2, 64, 64)
        >>> flow[0, 8:25, 8:25], flow[1, 40:57, 40:57] = 3.0, -3.0  # two squares
        >>> drawn = sample_watershed(flow, (flow != 0).any(dim=0, keepdim=True).float())
        >>> drawn.nonzero().tolist()
        [[0, 16, 16], [1, 48, 48]]
    """
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1 point, got {k}.")
    if spacing < 1 or spacing % 2 == 0:
        raise ValueError(f"spacing must be an odd positive number of pixels, got {spacing}.")
    allowed = torch.ones_like(flow[0], dtype=torch.bool) if mask is None else mask[0] > 0.5
    open_ = F.pad((allowed & ~_motion_edges(flow, edge_threshold)).byte(), (1, 1, 1, 1))
    distance = distance_transform_edt(open_.cpu().numpy()).astype(np.float32)[1:-1, 1:-1]
    heights = torch.from_numpy(distance).to(flow.device).double()
    # a ridge has many equal heights: the position breaks the tie, so that one point a window is left
    heights = heights + 1e-9 * torch.arange(heights.numel(), device=flow.device).view_as(heights)
    highest = F.max_pool2d(heights[None], spacing, stride=1, padding=spacing // 2)[0]
    peaks = ((heights == highest) & (open_[1:-1, 1:-1] > 0)).flatten().nonzero()[:, 0]
    order = heights.flatten()[peaks].argsort(descending=True)
    if generator is not None:
        order = torch.randperm(len(peaks), generator=generator, device=generator.device).to(peaks.device)
    return keep_pixels(flow, peaks[order[:k]])


def keep_pixels(flow: Float[Tensor, "2 h w"], pixels: Int64[Tensor, " k"]) -> Float[Tensor, "2 h w"]:
    """Keep a flow at the given pixels, counted row by row, and make it zero elsewhere."""
    sparse = torch.zeros_like(flow)
    sparse.flatten(1)[:, pixels] = flow.flatten(1)[:, pixels]
    return sparse


def _motion_edges(flow: Float[Tensor, "2 h w"], threshold: float) -> Bool[Tensor, "h w"]:
    """Mark where the Sobel gradient of the flow exceeds a share of its largest value."""
    sobel = flow.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    gradient = F.conv2d(F.pad(flow[:, None], (1, 1, 1, 1), mode="replicate"), kernels).abs().amax(dim=(0, 1))
    return gradient > threshold * gradient.max().clamp_min(1e-6)
