"""How far things are from where they should be, in pixels: flows, landmarks, and what was dragged."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from dragstudy import _torchvision
from dragstudy.flow import sample_at

_torchvision.require()  # torchmetrics imports torchvision

from torchmetrics import Metric  # noqa: E402

PATCH = 21  # side of the square that template matching looks for, px


def end_point_error(
    flow: Float[Tensor, "b 2 h w"],
    target: Float[Tensor, "b 2 h w"],
    mask: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Mean distance between the ends of two flows' vectors in each image, `(b,)` in pixels.

    Args:
        flow: Predicted flow in pixels.
        target: True flow in pixels.
        mask: Weight of each pixel, 1 = counts; everything by default. An empty mask gives NaN.

    Example:
        >>> zero = torch.zeros(1, 2, 4, 4)
        >>> end_point_error(zero, zero + torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).item()
        5.0
    """
    distance = (flow - target).norm(dim=1, keepdim=True)
    weight = torch.ones_like(distance) if mask is None else mask.to(distance)
    return (distance * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))


class EndPointError(Metric):
    """The end-point error of optical flow: the mean length of `flow - target`, in pixels, inside a mask.

    As input to ``forward`` and ``update`` the metric accepts the following input

    - ``flow`` (:class:`~torch.Tensor`): predicted flow in pixels of shape ``(N, 2, H, W)``
    - ``target`` (:class:`~torch.Tensor`): true flow in pixels of shape ``(N, 2, H, W)``
    - ``mask`` (:class:`~torch.Tensor`, optional): weight of each pixel of shape ``(N, 1, H, W)``, 1 = counts

    As output of `forward` and `compute` the metric returns the following output

    - ``epe`` (:class:`~torch.Tensor`): float scalar tensor, the mean over all pixels that count, each with
      the same weight; images with larger masks weigh more. NaN before any pixel counted.

    Args:
        kwargs: Additional keyword arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = EndPointError()
        >>> metric.update(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4) * 3)
        >>> round(metric.compute().item(), 3)
        4.243
    """

    is_differentiable: bool = True
    higher_is_better: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0

    total: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, flow: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of flows."""
        if flow.shape != target.shape or flow.ndim != 4 or flow.shape[1] != 2:
            raise ValueError(
                f"flow and target must have one shape (N, 2, H, W), got {tuple(flow.shape)} and "
                f"{tuple(target.shape)}"
            )
        distance = (flow - target).norm(dim=1, keepdim=True).double()
        weight = torch.ones_like(distance) if mask is None else mask.to(distance)
        self.total += (distance * weight).sum()
        self.weight += weight.sum()

    def compute(self) -> Tensor:
        """The mean over everything added so far."""
        return (self.total / self.weight).float()


def landmark_distance(
    image: np.ndarray,
    target_landmarks: Float[np.ndarray, "k 2"],
    detector: Callable[[np.ndarray], np.ndarray | None],
    *,
    points: Sequence[int] | None = None,
) -> float:
    """Mean distance of a face's landmarks from where they should be, in pixels (DragonDiffusion, Sec. 4).

    Args:
        image: Edited frame, uint8 RGB `(h, w, 3)`.
        target_landmarks: Where they should be, x, y, shape `(k, 2)`; rows of NaN do not count.
        detector: From a frame to landmarks `(k, 2)`, or None where it finds no face; for instance
            `dragstudy.data.people.FaceLandmarks()`.
        points: Indices of the landmarks that count; all by default.

    Returns:
        The mean distance; NaN if there is no face, or no landmark to compare.

    Example:
        >>> landmark_distance(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2)), lambda frame: np.ones((2, 2)))
        1.4142135623730951
    """
    found = detector(image)
    if found is None:
        return float("nan")
    distances = np.linalg.norm(found - target_landmarks, axis=1)
    distances = distances if points is None else distances[list(points)]
    known = np.isfinite(distances)
    return float(distances[known].mean()) if known.any() else float("nan")


def drag_distance(
    source: Float[Tensor, "1 3 h w"],
    edited: Float[Tensor, "1 3 h w"],
    handle_points: Float[np.ndarray, "n 2"],
    target_points: Float[np.ndarray, "n 2"],
    *,
    features: Callable[[Tensor], Tensor] | None = None,
) -> Float64[np.ndarray, " n"]:
    """How far what lay under each handle is from its target, in pixels.

    DragBench's mean distance is the mean of these with `features` of a diffusion model (DIFT): what lay under
    the handle is sought everywhere in the edited image, and found where the features are most alike. Without
    features a square of 21 px around the handle is sought instead, by normalised cross-correlation: no
    network, fit for small motions that keep their appearance.

    Args:
        source: Image before, in [0, 1].
        edited: Image after, in [0, 1], of the same size.
        handle_points: x, y in pixels.
        target_points: x, y in pixels.
        features: From an image `(1, 3, h, w)` in [0, 1] to a map `(1, c, h2, w2)` of any resolution.

    Returns:
        One distance a drag, shape `(n,)`.
    """
    handles = np.asarray(handle_points, dtype=np.float64)
    if features is None:
        found = match_patches(source, edited, handles)
    else:
        found = match_features(features(source), features(edited), handles, tuple(source.shape[-2:]))
    return np.linalg.norm(found - np.asarray(target_points), axis=1)


def match_patches(
    source: Float[Tensor, "1 3 h w"], edited: Float[Tensor, "1 3 h w"], points: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "n 2"]:
    """Where in `edited` the square of `PATCH` px around each point of `source` correlates best.

    Both images are mirrored beyond their border, so that a point there is found too.

    Returns:
        x, y in pixels, shape `(n, 2)`, exact to half a pixel; NaN for a square of one colour, which says
        nothing.
    """
    margin = PATCH // 2
    before, after = (
        cv2.copyMakeBorder(
            np.ascontiguousarray(image[0].permute(1, 2, 0).float().cpu().numpy()),
            *(margin,) * 4,
            cv2.BORDER_REFLECT_101,
        )
        for image in (source, edited)
    )
    h, w = source.shape[-2:]
    found = np.full(points.shape, np.nan)
    for k, (x, y) in enumerate(np.clip(np.floor(points + 0.5), 0, (w - 1, h - 1)).astype(int)):
        patch = before[y : y + PATCH, x : x + PATCH]  # its centre in the image is (x, y)
        if patch.std(axis=(0, 1)).max() > 1e-3:
            scores = cv2.matchTemplate(after, patch, cv2.TM_CCOEFF_NORMED)
            best_y, best_x = np.unravel_index(scores.argmax(), scores.shape)
            found[k] = points[k] + (best_x - x, best_y - y)
    return found


def match_features(
    source: Float[Tensor, "1 c h w"],
    edited: Float[Tensor, "1 c h w"],
    points: Float64[np.ndarray, "n 2"],
    size: tuple[int, int],
) -> Float64[np.ndarray, "n 2"]:
    """Where in an image of `size` `(h, w)` the features have the largest cosine with those at each point.

    Differs from DragBench's evaluator: the cosines are brought to the image's size, not the features, which
    gives nearly the same place for a fraction of the memory. Returns x, y in pixels, shape `(n, 2)`.
    """
    (h, w), (rows, columns) = size, source.shape[-2:]
    scale = np.array([columns / w, rows / h])
    coords = torch.from_numpy((points + 0.5) * scale - 0.5).T[None, :, :, None].to(source)
    wanted = F.normalize(sample_at(source, coords)[0, :, :, 0], dim=0)  # (c, n)
    cosines = torch.einsum("cn,chw->nhw", wanted, F.normalize(edited[0], dim=0))
    cosines = F.interpolate(cosines[None], size=size, mode="bilinear", align_corners=False)[0]
    best = cosines.flatten(1).argmax(dim=1).cpu().numpy()
    return np.stack([best % w, best // w], axis=1).astype(np.float64)
