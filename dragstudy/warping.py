"""Reading an image along a flow, and pushing one along it: grid, sample, warp, splat.

The convention is that of `dragstudy.flow`, which offers these functions under its own name too:
flows and coordinates are (x, y) in pixels, with pixel centres at integers.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SplatMode = Literal["average", "softmax", "sum"]


def pixel_grid(
    h: int, w: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "1 2 {h} {w}"]:
    """Return the (x, y) coordinates of every pixel centre, in pixels, shape `(1, 2, h, w)`.

    Example:
        >>> pixel_grid(2, 3)[0, 0].tolist()
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    y, x = torch.meshgrid(
        torch.arange(h, device=device, dtype=dtype),
        torch.arange(w, device=device, dtype=dtype),
        indexing="ij",
    )
    return torch.stack([x, y])[None]


def sample_at(
    image: Float[Tensor, "b c h w"],
    coords: Float[Tensor, "b 2 h2 w2"],
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "b c h2 w2"]:
    """Read an image at real-valued positions, clamped to the outermost pixel centres.

    Args:
        image: Any maps, shape `(b, c, h, w)`.
        coords: (x, y) positions in pixels of `image`, shape `(b, 2, h2, w2)`.
        mode: `"bilinear"`, or `"bicubic"`, which is sharper and may overshoot.

    Returns:
        The values found there, shape `(b, c, h2, w2)`.

    Example:
        >>> sample_at(pixel_grid(4, 4), torch.full((1, 2, 1, 1), 1.5)).flatten().tolist()
        [1.5, 1.5]
    """
    h, w = image.shape[-2:]
    dtype = torch.promote_types(image.dtype, torch.float32)  # half precision cannot hold coordinates
    size = coords.new_tensor([w, h], dtype=dtype).view(1, 2, 1, 1)
    # grid_sample without aligned corners: -1 and 1 are the outer edges, -0.5 and w - 0.5 in pixels
    grid = (2 * coords.to(dtype) + 1) / size - 1
    sampled = F.grid_sample(
        image.to(dtype), grid.permute(0, 2, 3, 1), mode=mode, padding_mode="border", align_corners=False
    )
    return sampled.to(image.dtype)


def backward_warp(
    image: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b c h w"]:
    """Pull an image along a flow: `out(p) = image(p + flow(p))`, clamped at the border.

    With the forward flow from source to target this brings the *target* back onto the source.

    Args:
        image: Image to read from, shape `(b, c, h, w)`.
        flow: Where each output pixel looks, in pixels, shape `(b, 2, h, w)`.

    Returns:
        The warped image, shape `(b, c, h, w)`.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 1, 4)
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
        >>> backward_warp(image, right).flatten().tolist()
        [1.0, 2.0, 3.0, 3.0]
    """
    h, w = flow.shape[-2:]
    dtype = torch.promote_types(flow.dtype, torch.float32)
    return sample_at(image, pixel_grid(h, w, device=flow.device, dtype=dtype) + flow)


def compose_flows(
    first: Float[Tensor, "b 2 h w"], second: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 2 h w"]:
    """The motion of one forward flow followed by another: `first(p) + second(p + first(p))`.

    Example:
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> compose_flows(right, 2 * right)[0, :, 0, 0].tolist()
        [3.0, 0.0]
    """
    return first + backward_warp(second, first)


def invert_flow(flow: Float[Tensor, "b 2 h w"], iterations: int = 30) -> Float[Tensor, "b 2 h w"]:
    """The flow that undoes a smooth one: `inverse(p) = -flow(p + inverse(p))`, by fixed-point iteration."""
    grid = pixel_grid(*flow.shape[-2:]).to(flow)
    inverse = -flow
    for _ in range(iterations):
        inverse = -sample_at(flow, grid + inverse)
    return inverse


def _splat_sum(values: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Move every pixel by its flow and add it to the four pixels it lands between, bilinearly."""
    b, c, h, w = values.shape
    x, y = (pixel_grid(h, w, device=flow.device, dtype=flow.dtype) + flow).flatten(2).unbind(1)
    left, top = x.detach().floor(), y.detach().floor()
    out = values.new_zeros(b, c, h * w)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
        index = torch.where(inside, row * w + column, 0).long()
        part = values.flatten(2) * torch.where(inside, weight, 0)[:, None]
        out = out.scatter_add(2, index[:, None].expand(b, c, -1), part)
    return out.view(b, c, h, w)


def forward_splat(
    image: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "b 2 h w"],
    *,
    mode: SplatMode = "average",
    importance: Float[Tensor, "b 1 h w"] | None = None,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 1 h w"]]:
    """Push an image along its forward flow (Niklaus and Liu, Softmax Splatting, Eq. 4-8).

    `"average"` divides by the arrived weight, so overlaps blend evenly; `"softmax"` weighs each
    pixel by `exp(importance)`, so the more important one hides the other (differences beyond 60
    count as 60); `"sum"` keeps the arrived sum itself, whose total equals the input's as long as
    nothing leaves the frame. Nothing arrives at a hole: it is zero, and its coverage is zero.

    Args:
        image: Image or latents at the source, shape `(b, c, h, w)`.
        flow: Forward flow in pixels, shape `(b, 2, h, w)`.
        mode: `"average"`, `"softmax"` or `"sum"`.
        importance: Only for `"softmax"`: larger is nearer, unitless, shape `(b, 1, h, w)`.

    Returns:
        The splatted image, shape `(b, c, h, w)`, and the coverage: the bilinear weight that
        arrived at each pixel, at most 1, shape `(b, 1, h, w)`.

    Raises:
        ValueError: If `mode` is unknown, or if `importance` and `mode` do not belong together.

    Example:
        >>> image = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
        >>> splatted, coverage = forward_splat(image, right)
        >>> splatted.flatten().tolist(), coverage.flatten().tolist()
        ([0.0, 1.0, 2.0], [0.0, 1.0, 1.0])
    """
    if mode not in ("average", "softmax", "sum"):
        raise ValueError(f"mode must be 'average', 'softmax' or 'sum', got {mode!r}.")
    if (mode == "softmax") != (importance is not None):
        raise ValueError(f"importance belongs to mode 'softmax' and only to it, got mode {mode!r}.")
    dtype = torch.promote_types(image.dtype, torch.float32)
    values, moved = image.to(dtype), flow.to(dtype)
    weight = torch.ones_like(values[:, :1])
    if importance is not None:
        importance = importance.to(dtype)
        weight = (importance - importance.amax(dim=(2, 3), keepdim=True)).clamp_min(-60).exp()
    arrived = _splat_sum(torch.cat([values * weight, weight], dim=1), moved)
    total, arrived_weight = arrived[:, :-1], arrived[:, -1:]
    coverage = arrived_weight if importance is None else _splat_sum(torch.ones_like(weight), moved)
    if mode != "sum":
        covered = coverage > 1e-6
        total = torch.where(covered, total / torch.where(covered, arrived_weight, 1), 0)
    return total.to(image.dtype), coverage.clamp(0, 1).to(image.dtype)


def fill_holes(image: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
    """Keep an image where its weight is 1, continue it smoothly where it is 0.

    Pull-push (Gortler et al. 1996, The Lumigraph, Sec. 3.4): what is missing is taken from an image of half
    the size, which is itself made of the values there are, and so on.

    Args:
        image: Any maps, shape `(b, c, h, w)`.
        weight: In [0, 1], such as the coverage of `forward_splat`, shape `(b, 1, h, w)`.

    Returns:
        The filled image, shape `(b, c, h, w)`; zero if all weights are.

    Example:
        >>> image, weight = torch.tensor([[5.0, 0.0, 7.0, 7.0]] * 2), torch.tensor([[1.0, 0.0, 1.0, 1.0]] * 2)
        >>> fill_holes(image[None, None], weight[None, None])[0, 0, 0].tolist()
        [5.0, 5.5, 7.0, 7.0]
    """
    h, w = image.shape[-2:]
    if h == w == 1:
        return weight * image
    half = ((h + 1) // 2, (w + 1) // 2)
    there = F.interpolate(weight, half, mode="area")
    means = F.interpolate(weight * image, half, mode="area") / there.clamp_min(1e-6)
    missing = F.interpolate(fill_holes(means, (2 * there).clamp(max=1)), (h, w), mode="bilinear")
    return torch.lerp(missing, image, weight)
