r"""Motion supervision and point tracking: how DragDiffusion moves what lies at a point, and finds it again.

Both are DragGAN's (Pan et al. 2023) on the features $F$ of a diffusion model. Points are (x, y) in pixels of
the feature map; $\Omega(h, r)$ is the square of side $2r + 1$ around $h$.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dragstudy.warping import sample_at

Reduction = Literal["sum", "mean"]


def motion_supervision_loss(
    features: Float[Tensor, "1 c h w"],
    handle_points: Float[Tensor, "n 2"],
    target_points: Float[Tensor, "n 2"],
    *,
    radius: int = 1,
    step_length: float = 1.0,
    reduction: Reduction = "sum",
    stop_distance: float = 0.0,
    references: Float[Tensor, "n c k"] | None = None,
    referenced: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    r"""How much each patch differs from what lies one step further towards its target (DragDiffusion, Eq. 2).

    $\sum_i \sum_{q \in \Omega(h_i, r_1)} \lVert F_{q + d_i} - \mathrm{sg}(F_q) \rVert_1$, where $d_i$ points
    from the handle point to the target. Its gradient carries the patch along $d_i$.

    Args:
        features: $F(\hat z_t)$, with a gradient.
        handle_points: $h_i$, where the dragged content is now.
        target_points: $g_i$.
        radius: $r_1$.
        step_length: Of $d_i$; 1 in the paper. It ends at the target.
        reduction: `"sum"` of the channels' differences as in the equation; `"mean"` as in the authors' code:
            the mask term of Eq. 2 then weighs as many times more as there are channels.
        stop_distance: Points that have come closer than this have arrived and are left alone.
        references: Features of the unedited picture in the patch around each *first* handle point, as
            `patch_features` gives them, to take the place of $\mathrm{sg}(F_q)$. Not in the paper: the errors
            of one step are then not handed on to the next (GoodDrag, Zhang et al. 2024).
        referenced: Points `(n,)` that the references are for; never left alone. Anchors, which have no
            direction in Eq. 2, are held by them.

    Returns:
        The loss; 0 where there is nothing to move or hold.

    Raises:
        ValueError: If `reduction` is neither.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
    way = target_points - handle_points
    length = way.norm(dim=1, keepdim=True)
    acting = (length[:, 0] >= stop_distance) & (length[:, 0] > 0)
    here = patches(handle_points, radius)
    wanted = _read(features.detach(), here)
    if references is not None:
        wanted = torch.where(referenced[:, None], references.transpose(0, 1), wanted)
        acting = acting | referenced
    step = way * (step_length / length.clamp_min(step_length))
    ahead = _read(features, here + step[:, None])
    difference = (ahead - wanted)[:, acting].abs()
    return difference.sum() if reduction == "sum" else difference.sum() / features.shape[1]


def track_points(
    features: Float[Tensor, "1 c h w"],
    references: Float[Tensor, "n c"],
    handle_points: Float[Tensor, "n 2"],
    *,
    radius: int = 3,
) -> Float[Tensor, "n 2"]:
    r"""Where the dragged content is now: the nearest neighbour of its feature (DragDiffusion, Eq. 4).

    $h_i^{k+1} = \arg\min_{q \in \Omega(h_i^k, r_2)} \lVert F_q(\hat z_t^{k+1}) - f_i \rVert_1$

    Args:
        features: $F(\hat z_t^{k+1})$.
        references: $f_i$, what to look for: in the paper $F_{h_i^k}(z_t)$, the *unedited* picture's feature
            at the *current* point; in the authors' code at the first one, $h_i^0$.
        handle_points: $h_i^k$.
        radius: $r_2$. The square is clipped at the border of the map, as the published code's was not.

    Returns:
        The new handle points. A tie is won by the candidate closest to the point as it was.
    """
    h, w = features.shape[-2:]
    candidates = patches(handle_points, radius)
    edge = candidates.new_tensor([w, h]) - 0.5  # the map reaches half a pixel beyond its outermost centres
    distance = (_read(features, candidates) - references.T[:, :, None]).abs().sum(dim=0)
    outside = ((candidates < -0.5) | (candidates > edge)).any(dim=2)
    distance = distance.masked_fill(outside, torch.inf)
    step = (candidates - handle_points[:, None]).norm(dim=2)
    nearest = distance == distance.min(dim=1, keepdim=True).values
    best = step.masked_fill(~nearest, torch.inf).argmin(dim=1)
    return candidates[torch.arange(len(candidates)), best]


def patch_features(
    features: Float[Tensor, "1 c h w"], points: Float[Tensor, "n 2"], radius: int = 0
) -> Float[Tensor, "n c k"]:
    """Features in the patch around each point, interpolated bilinearly; radius 0 is the point alone."""
    return _read(features, patches(points, radius)).transpose(0, 1)


def patches(points: Float[Tensor, "n 2"], radius: int) -> Float[Tensor, "n k 2"]:
    """The positions of the square patch of side `2 radius + 1` around each point, row by row.

    Example:
        >>> patches(torch.tensor([[5.0, 7.0]]), 1)[0, :4].tolist()
        [[4.0, 6.0], [5.0, 6.0], [6.0, 6.0], [4.0, 7.0]]
    """
    reach = torch.arange(-radius, radius + 1).to(points)
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    return points[:, None] + torch.stack([x.flatten(), y.flatten()], dim=1)


def _read(features: Tensor, points: Tensor) -> Tensor:
    """Features `(c, n, k)` at positions `(n, k, 2)`."""
    return sample_at(features, points.permute(2, 0, 1)[None])[0]
