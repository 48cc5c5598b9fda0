"""Dense flow from drags alone, by classical interpolation: what a network must beat."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dragstudy.drags import DragInstruction

Interpolation = Literal["thin_plate", "moving_least_squares"]


def interpolate_drags(
    drags: DragInstruction,
    size: tuple[int, int],
    method: Interpolation = "thin_plate",
    *,
    pin_border: bool = True,
    stride: int = 4,
) -> Float[Tensor, "1 2 h w"]:
    """Spread drags over the whole image.

    Args:
        drags: Drags in pixels of an image of `size`.
        size: `(h, w)`.
        method: `"thin_plate"` (the least bending surface through the drags) or `"moving_least_squares"` (the
            rigid deformation of Schaefer et al. 2006: turns and moves, never shears).
        pin_border: Hold sixteen points along the image's border, so that what is far from the drags stays.
        stride: The interpolation is evaluated at every `stride`-th pixel and filled in linearly.

    Returns:
        Forward flow in pixels, `(1, 2, h, w)`.

    Raises:
        ValueError: If `method` is unknown.
    """
    if method not in ("thin_plate", "moving_least_squares"):
        raise ValueError(f"method must be 'thin_plate' or 'moving_least_squares', got {method!r}")
    handles, moved = _distinct(drags.handle_points, drags.displacements)
    return _interpolate(handles, moved, size, method, pin_border, stride)


def interpolate_sparse(sparse: Float[Tensor, "b 2 h w"], *, stride: int = 8) -> Float[Tensor, "b 2 h w"]:
    """The thin plate of `interpolate_drags`, pinned at the border, through each sparse flow of a batch.

    Args:
        sparse: Flow at the drags, zero elsewhere, in any unit, shape `(b, 2, h, w)`.
        stride: As in `interpolate_drags`.

    Returns:
        A dense flow in the unit of `sparse`, shape `(b, 2, h, w)`; zero without drags.

    Example:
        >>> sparse = torch.zeros(1, 2, 16, 16)
        >>> sparse[0, :, 8, 8] = torch.tensor([2.0, -1.0])
        >>> interpolate_sparse(sparse)[0, :, 8, 8].tolist()
        [2.0, -1.0]
    """
    size = tuple(sparse.shape[-2:])
    dense = torch.zeros_like(sparse)
    for one, filled in zip(sparse.detach().float().cpu(), dense, strict=True):
        y, x = one.any(dim=0).nonzero(as_tuple=True)
        if len(y):
            handles, moved = torch.stack([x, y], dim=1).double().numpy(), one[:, y, x].T.double().numpy()
            filled.copy_(_interpolate(handles, moved, size, "thin_plate", True, stride)[0])
    return dense


def distance_to_drags(sparse: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Distance of every pixel to the nearest drag's handle, in pixels, `(b, 1, h, w)`; infinite without any.

    Example:
        >>> sparse = torch.zeros(1, 2, 4, 8)
        >>> sparse[0, 0, 2, 1] = 5.0
        >>> distance_to_drags(sparse)[0, 0, 2].tolist()
        [1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    free = (~sparse.detach().any(dim=1)).cpu().numpy().astype(np.uint8)
    found = [
        distance_transform_edt(one)  # OpenCV's has two outcomes on machines of one core
        if not one.all()
        else np.full(one.shape, np.inf)
        for one in free
    ]
    return torch.from_numpy(np.stack(found)[:, None]).to(sparse)


def spread_drags(
    sparse: Float[Tensor, "b 2 h w"], *, softness: float | int = 0.02, stride: int = 4
) -> Float[Tensor, "b 2 h w"]:
    """Fill a sparse flow by the mean of its drags, weighted by inverse squared distance (Shepard 1968).

    Args:
        sparse: Flow at the drags, zero elsewhere, shape `(b, 2, h, w)`.
        softness: Distance, as a share of the longer side, below which a drag's weight stops growing.
        stride: The mean is computed once in cells of this many pixels and interpolated between.

    Returns:
        A flow that is near each drag at its pixel and near the mean of all drags far from them; zero without
        drags. Shape `(b, 2, h, w)`.

    Example:
        >>> sparse = torch.zeros(1, 2, 8, 8)
        >>> sparse[0, :, 3, 3] = torch.tensor([0.5, -1.0])
        >>> spread_drags(sparse)[0, :, 7, 0].tolist()
        [0.5, -1.0]
    """
    _, _, h, w = sparse.shape
    # centres of the cells that the interpolation below takes for pixels
    ys, xs = (
        (torch.arange(-(-side // stride), device=sparse.device) + 0.5) * side / -(-side // stride) - 0.5
        for side in (h, w)
    )
    coarse = sparse.new_zeros(len(sparse), 2, len(ys), len(xs))
    for one, filled in zip(sparse, coarse, strict=True):
        y, x = one.any(dim=0).nonzero(as_tuple=True)
        if len(y):
            squared = (ys[:, None, None] - y) ** 2 + (xs[None, :, None] - x) ** 2
            weights = 1 / (squared + (softness * max(h, w)) ** 2)
            weights = weights / weights.sum(dim=2, keepdim=True)
            filled.copy_(torch.einsum("yxk,ck->cyx", weights.to(one), one[:, y, x]))
    return F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)


def _interpolate(
    handles: np.ndarray, moved: np.ndarray, size: tuple[int, int], method: str, pin_border: bool, stride: int
) -> Tensor:
    if pin_border:
        border = _border_points(size)
        border = border[np.linalg.norm(border[:, None] - handles[None], axis=2).min(axis=1) > 1]
        handles = np.concatenate([handles, border])
        moved = np.concatenate([moved, np.zeros_like(border)])
    h, w = size
    ys, xs = np.arange(0, h - 1 + stride, stride), np.arange(0, w - 1 + stride, stride)
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float64)
    spread = _thin_plate if method == "thin_plate" else _moving_least_squares
    coarse = (
        torch.from_numpy(spread(handles, moved, points))
        .float()
        .view(1, len(ys), len(xs), 2)
        .permute(0, 3, 1, 2)
    )
    # grid corners are kept where they are, so that coarse point (i, j) lies on pixel (stride i, stride j)
    fine = ((len(ys) - 1) * stride + 1, (len(xs) - 1) * stride + 1)
    return F.interpolate(coarse, fine, mode="bilinear", align_corners=True)[..., :h, :w].contiguous()


def _distinct(handles: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One drag a handle; the later one wins, as in a sparse flow."""
    last = {tuple(point): k for k, point in enumerate(handles)}
    return handles[list(last.values())], moved[list(last.values())]


def _border_points(size: tuple[int, int]) -> np.ndarray:
    h, w = size
    xs, ys = np.linspace(0, w - 1, 5), np.linspace(0, h - 1, 5)
    sides = [(x, y) for x in xs for y in (0, h - 1)] + [(x, y) for y in ys[1:-1] for x in (0, w - 1)]
    return np.unique(np.array(sides, dtype=np.float64), axis=0)


def _thin_plate(handles: np.ndarray, moved: np.ndarray, points: np.ndarray) -> np.ndarray:
    # through one point or one line the thin plate is not unique; cones |x - x_i| and a constant are
    spans_plane = np.linalg.matrix_rank(handles - handles[0]) == 2
    kernel, degree = ("thin_plate_spline", 1) if spans_plane else ("linear", 0)
    return RBFInterpolator(handles, moved, kernel=kernel, degree=degree)(points)


def _moving_least_squares(handles: np.ndarray, moved: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rigid moving least squares with weights |p - v|^-2 (Schaefer et al., Sec. 2.3), at each of `points`."""
    difference = handles[None] - points[:, None]  # (m, n, 2)
    weights = 1 / np.maximum((difference**2).sum(axis=2), 1e-8)
    weights /= weights.sum(axis=1, keepdims=True)
    centre = weights @ handles  # p*
    target_centre = weights @ (handles + moved)  # q*
    p = handles[None] - centre[:, None]
    q = (handles + moved)[None] - target_centre[:, None]
    cosine = (weights * (p * q).sum(axis=2)).sum(axis=1)
    sine = (weights * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0])).sum(axis=1)
    length = np.maximum(np.hypot(cosine, sine), 1e-12)
    turned = np.where(length > 1e-9, cosine / length, 1.0), np.where(length > 1e-9, sine / length, 0.0)
    v = points - centre
    rotated = np.stack(
        [turned[0] * v[:, 0] - turned[1] * v[:, 1], turned[1] * v[:, 0] + turned[0] * v[:, 1]], axis=1
    )
    return rotated + target_centre - points
