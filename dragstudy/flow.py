"""Optical flow: one convention, and everything that is done to a flow.

A flow is `(b, 2, h, w)`, in pixels of its own grid: channel 0 is x (right), channel 1 is y (down).
Forward flow: the content at pixel `p` of the source image moves to `p + flow[:, :, p]`.
Pixel centres lie at integers, so a grid `w` pixels wide spans [-0.5, w - 0.5], and resizing it to
`w'` pixels moves a point to `x' = (x + 0.5) * w' / w - 0.5` and a displacement to `d' = d * w' / w`.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dragstudy.warping import (
    backward_warp,
    compose_flows,
    fill_holes,
    forward_splat,
    invert_flow,
    pixel_grid,
    sample_at,
)

__all__ = [
    "backward_warp",
    "compose_flows",
    "consistency_mask",
    "dequantize_flow",
    "fill_holes",
    "flow_to_rgb",
    "forward_splat",
    "hold_anchors",
    "invert_flow",
    "normalize_flow",
    "pixel_grid",
    "quantize_flow",
    "rescale_to_drags",
    "resize_flow",
    "sample_at",
]

FlowNorm = Literal["fixed", "sample"]
Number = float | int  # checkers of types at run time tell them apart
ResizeMode = Literal["bilinear", "bicubic", "area"]

QUANTISED_ZERO = 128  # the uint8 code of a displacement of exactly zero
QUANTISED_LEVELS = 127  # codes on each side of it


def resize_flow(
    flow: Float[Tensor, "b 2 h w"], size: tuple[int, int], *, mode: ResizeMode = "bilinear"
) -> Float[Tensor, "b 2 h2 w2"]:
    """Resize a flow and scale its values with it, so that they stay pixels of their own grid.

    Args:
        flow: Flow in pixels, shape `(b, 2, h, w)`.
        size: `(h2, w2)` of the result.
        mode: `"bilinear"`, `"bicubic"` (InstantDrag's choice; no antialiasing) or `"area"` (the
            mean of the pixels that fall together: the one to shrink with).

    Returns:
        The flow in pixels of the new grid, shape `(b, 2, h2, w2)`.

    Raises:
        ValueError: If `mode` is unknown.

    Example:
        >>> resize_flow(torch.ones(1, 2, 4, 4), (8, 16))[0, :, 0, 0].tolist()
        [4.0, 2.0]
    """
    if mode not in ("bilinear", "bicubic", "area"):
        raise ValueError(f"mode must be 'bilinear', 'bicubic' or 'area', got {mode!r}.")
    h, w = flow.shape[-2:]
    corners = {} if mode == "area" else {"align_corners": False}
    resized = F.interpolate(flow, size=size, mode=mode, **corners)
    return resized * flow.new_tensor([size[1] / w, size[0] / h]).view(1, 2, 1, 1)


def normalize_flow(
    flow: Float[Tensor, "b 2 h w"], mode: FlowNorm, *, eps: Number = 1e-6
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b 2 1 1"]]:
    """Scale a flow to about [-1, 1]; also return the scale that undoes it.

    InstantDrag, Sec. 3.2.4. `"fixed"` divides x by `w` and y by `h`, so the size of a motion
    survives: FlowDiffusion needs it. `"sample"` divides each channel by its own largest
    magnitude, so small motions fill the range: FlowGen trains on it.

    Args:
        flow: Forward flow in pixels, shape `(b, 2, h, w)`.
        mode: `"fixed"` or `"sample"`.
        eps: Smallest divisor, in pixels; keeps an all-zero flow finite.

    Returns:
        The normalised flow, and the divisor in pixels, shape `(b, 2, 1, 1)`.

    Raises:
        ValueError: If `mode` is neither `"fixed"` nor `"sample"`.

    Example:
        >>> flow = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 8, 16)
        >>> normed, scale = normalize_flow(flow, "fixed")
        >>> normed[0, :, 0, 0].tolist(), scale.flatten().tolist()
        ([0.1875, -0.5], [16.0, 8.0])
    """
    b, _, h, w = flow.shape
    if mode == "fixed":
        scale = flow.new_tensor([w, h]).view(1, 2, 1, 1).expand(b, 2, 1, 1)
    elif mode == "sample":
        scale = flow.abs().amax(dim=(2, 3), keepdim=True).clamp_min(eps)
    else:
        raise ValueError(f"mode must be 'fixed' or 'sample', got {mode!r}.")
    return flow / scale, scale


def rescale_to_drags(
    flow: Float[Tensor, "b 2 h w"], sparse_flow: Float[Tensor, "b 2 h2 w2"], *, eps: Number = 1e-8
) -> Float[Tensor, "b 2 h w"]:
    """Give a generated flow the size of the drags it was generated from (InstantDrag, Sec. 3.2.4).

    Each axis is divided by its own largest magnitude and multiplied by the largest magnitude of the
    same axis of the drags. An axis along which nothing is dragged becomes zero everywhere.

    Args:
        flow: FlowGen's output, in any unit, shape `(b, 2, h, w)`.
        sparse_flow: The drags, in pixels of their own grid, shape `(b, 2, h2, w2)`.
        eps: Magnitudes below it count as zero.

    Returns:
        The flow in pixels of its own grid, shape `(b, 2, h, w)`.

    Example:
        >>> drags = torch.zeros(1, 2, 4, 4)
        >>> drags[0, 0, 1, 2] = -6.0
        >>> rescale_to_drags(torch.full((1, 2, 4, 4), 0.5), drags)[0, :, 0, 0].tolist()
        [6.0, 0.0]
    """
    (h, w), (h2, w2) = flow.shape[-2:], sparse_flow.shape[-2:]
    largest = flow.abs().amax(dim=(2, 3), keepdim=True)
    wanted = sparse_flow.abs().amax(dim=(2, 3), keepdim=True).to(flow)
    wanted = wanted * flow.new_tensor([w / w2, h / h2]).view(1, 2, 1, 1)
    usable = (largest >= eps) & (wanted >= eps)
    return flow * torch.where(usable, wanted / largest.clamp_min(eps), 0)


def hold_anchors(
    flow: Float[Tensor, "b 2 h w"],
    anchors: Float[Tensor, "n 2"] | Float[np.ndarray, "n 2"],
    moving: Float[Tensor, "m 2"] | Float[np.ndarray, "m 2"],
    *,
    radius: Number | None = None,
) -> Float[Tensor, "b 2 h w"]:
    """Stop a flow at its anchors (drags of length zero) and leave it alone at the moving handles.

    The flow is multiplied by one smooth step an anchor: 0 within 1.5 px of the anchor, 1 from
    `radius` on, or from the nearest moving handle on where that is nearer. Ours, not a paper's:
    the rescaling of `rescale_to_drags` cannot express a point that stays.

    Args:
        flow: Flow in pixels, shape `(b, 2, h, w)`.
        anchors: (x, y) of the points that stay, in pixels, shape `(n, 2)`; n may be 0.
        moving: (x, y) of the handles that move, in pixels, shape `(m, 2)`; m may be 0.
        radius: Reach of an anchor in pixels; by default a quarter of the longer side.

    Returns:
        The held flow, shape `(b, 2, h, w)`.

    Example:
        >>> flow = torch.ones(1, 2, 8, 8)
        >>> held = hold_anchors(flow, torch.tensor([[1.0, 1.0]]), torch.tensor([[6.0, 1.0]]))
        >>> held[0, 0, 1, 1].item(), held[0, 0, 1, 6].item()
        (0.0, 1.0)
    """
    h, w = flow.shape[-2:]
    anchors, moving = (torch.as_tensor(points).to(flow) for points in (anchors, moving))
    reach = torch.full_like(anchors[:, 0], max(h, w) / 4 if radius is None else radius)
    if len(moving):
        reach = torch.minimum(reach, torch.cdist(anchors, moving).amin(dim=1))
    grid = pixel_grid(h, w, device=flow.device, dtype=flow.dtype)
    for anchor, outer in zip(anchors, reach.clamp_min(1), strict=True):
        inner = torch.clamp(outer / 2, max=1.5)
        distance = (grid - anchor.view(1, 2, 1, 1)).norm(dim=1, keepdim=True)
        t = ((distance - inner) / (outer - inner)).clamp(0, 1)
        flow = flow * (t * t * (3 - 2 * t))
    return flow


def quantize_flow(
    flow: Float[Tensor, "b 2 h w"],
) -> tuple[UInt8[Tensor, "b 2 h w"], Float[Tensor, "b 2 1 1"]]:
    """Store a flow in one byte a value (InstantDrag, App. E), each channel by its own scale.

    Code 128 is exactly zero and 1..255 span [-scale, scale], so masked-out pixels stay zero and
    every other value comes back within half a step, `scale / 254` pixels.

    Args:
        flow: Flow in pixels, shape `(b, 2, h, w)`.

    Returns:
        The codes, shape `(b, 2, h, w)`, and the largest magnitude of each channel in pixels,
        shape `(b, 2, 1, 1)`.

    Raises:
        ValueError: If the flow holds NaN or infinity.

    Example:
        >>> codes, scale = quantize_flow(torch.tensor([0.0, 2.0, -1.0]).expand(1, 2, 1, 3))
        >>> codes[0, 0].tolist(), dequantize_flow(codes, scale)[0, 0, 0, :2].tolist()
        ([[128, 255, 64]], [0.0, 2.0])
    """
    scale = flow.abs().amax(dim=(2, 3), keepdim=True)
    if not torch.isfinite(scale).all():
        raise ValueError("The flow to quantise must be finite, got NaN or infinity.")
    levels = flow / torch.where(scale > 0, scale, 1) * QUANTISED_LEVELS
    return (levels.round() + QUANTISED_ZERO).to(torch.uint8), scale


def dequantize_flow(
    codes: UInt8[Tensor, "b 2 h w"], scale: Float[Tensor, "b 2 1 1"]
) -> Float[Tensor, "b 2 h w"]:
    """Undo `quantize_flow`: codes and scales in pixels back to a flow in pixels, `(b, 2, h, w)`."""
    return (codes.to(scale.dtype) - QUANTISED_ZERO) / QUANTISED_LEVELS * scale


def consistency_mask(
    forward: Float[Tensor, "b 2 h w"],
    backward: Float[Tensor, "b 2 h w"],
    *,
    alpha: Number = 0.01,
    beta: Number = 0.5,
) -> Float[Tensor, "b 1 h w"]:
    """Mark the pixels whose flow, followed there and back, returns (Sundaram et al. 2010, Eq. 5).

    A pixel counts when `|f + b(p + f)|^2 < alpha (|f|^2 + |b(p + f)|^2) + beta` and when it lands
    inside the frame: what leaves it cannot be followed back.

    Args:
        forward: Flow from source to target in pixels, shape `(b, 2, h, w)`.
        backward: Flow from target to source in pixels, shape `(b, 2, h, w)`.
        alpha: Share of the squared motion that may be lost.
        beta: Squared pixels that may always be lost.

    Returns:
        1 where the flow is consistent, else 0, shape `(b, 1, h, w)`.

    Example:
        >>> still = torch.zeros(1, 2, 4, 4)
        >>> consistency_mask(still, still).mean().item(), consistency_mask(still, still + 1).mean().item()
        (1.0, 0.0)
    """
    h, w = forward.shape[-2:]
    landed = pixel_grid(h, w, device=forward.device, dtype=forward.dtype) + forward
    returned = sample_at(backward, landed)
    lost = (forward + returned).square().sum(dim=1, keepdim=True)
    motion = (forward.square() + returned.square()).sum(dim=1, keepdim=True)
    last = forward.new_tensor([w - 0.5, h - 0.5]).view(1, 2, 1, 1)
    inside = ((landed >= -0.5) & (landed <= last)).all(dim=1, keepdim=True)
    return (inside & (lost < alpha * motion + beta)).to(forward.dtype)


def flow_to_rgb(
    flow: Float[Tensor, "b 2 h w"], *, max_flow: Number | None = None
) -> UInt8[Tensor, "b 3 h w"]:
    """Colour a flow by torchvision's wheel: hue is the direction, white is no motion.

    Args:
        flow: Flow in pixels, shape `(b, 2, h, w)`.
        max_flow: Length in pixels that gets full colour, so that several pictures can be
            compared; longer ones are drawn as if that long. By default the longest of the batch.

    Returns:
        RGB in 0..255, shape `(b, 3, h, w)`.
    """
    from dragstudy._torchvision import require

    flow_to_image = require().utils.flow_to_image
    flow = flow.detach().float().cpu()
    if max_flow is None:
        return flow_to_image(flow)
    length = flow.norm(dim=1, keepdim=True)
    flow = flow * (max_flow / length.clamp_min(max_flow))
    # torchvision divides by the longest vector it sees, so one extra row shows it `max_flow`
    ruled = F.pad(flow, (0, 0, 0, 1))
    ruled[:, 0, -1] = max_flow
    return flow_to_image(ruled)[:, :, :-1]
