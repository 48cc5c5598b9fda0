"""Pseudo drag instructions: sparse flows, drawn from dense ones or placed where a user dragged.

InstantDrag trains FlowGen to undo a sampling (Sec. 3.2.2, App. D.3): a dense flow is known at a few
pixels only, and the network fills in the rest. Flows are in pixels of their own grid, as in
`dragstudy.flow`; a pixel that is not known is zero.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from dragstudy.drags import DragInstruction, resize_points
from dragstudy.watershed import keep_pixels, sample_watershed

__all__ = [
    "FACE_23",
    "NOSE",
    "SAMPLER_CONFIGS",
    "SamplerConfig",
    "drags_from_sparse",
    "sample_drags",
    "sample_watershed",
    "sampler_config",
    "sparse_flow",
]

Weighting = Literal["uniform", "magnitude"]
GridPoints = Literal["random", "centre"]

# Added to values in [0, 1), so that every special point outranks every grid point, and these the rest.
GRID_BONUS, SPECIAL_BONUS = 1.0, 2.0

NOSE = (30,)  # the tip, in dlib's 68 landmarks counted from 0
# The paper takes 23 of dlib's 68 landmarks and does not name them. These are ours, in its spirit:
FACE_23 = (
    *(0, 4, 8, 12, 16),  # jaw: ears, corners, chin
    *(17, 19, 21, 22, 24, 26),  # brows: ends and middles
    *(30, 33),  # nose: tip and base
    *(36, 39, 42, 45),  # eyes: corners
    *(48, 51, 54, 57, 62, 66),  # mouth: corners, outer and inner lips
)


@dataclass(frozen=True)
class SamplerConfig:
    """How pseudo drags are drawn.

    Args:
        grid_size: Number of cells the frame is cut into (100 is 10 x 10 on a square frame).
        max_points: The number of points is uniform in [1, max_points].
        special_points: Indices into dlib's 68 landmarks that are preferred to grid points.
        special_always: Draw no fewer points than there are special ones, so that none is missed.
        grid_points: Which pixel of a cell is preferred: a `"random"` one, afresh each time, or its
            `"centre"`, as suits scenes without a mask.

    Raises:
        ValueError: If a number is not positive, an index is not one of the 68, or `special_always`
            asks for more points than `max_points`.
    """

    grid_size: int
    max_points: int
    special_points: tuple[int, ...] = ()
    special_always: bool = False
    grid_points: GridPoints = "random"

    def __post_init__(self) -> None:
        if self.grid_size < 1 or self.max_points < 1:
            raise ValueError(
                f"grid_size and max_points must be at least 1, got {self.grid_size} and {self.max_points}."
            )
        if not all(0 <= index < 68 for index in self.special_points):
            raise ValueError(f"special_points must be dlib landmarks 0..67, got {self.special_points}.")
        if self.special_always and len(self.special_points) > self.max_points:
            raise ValueError(
                f"special_always needs max_points >= {len(self.special_points)}, got {self.max_points}."
            )
        if self.grid_points not in ("random", "centre"):
            raise ValueError(f"grid_points must be 'random' or 'centre', got {self.grid_points!r}.")


SAMPLER_CONFIGS = {
    # "grid size of 100 and max_points of 10, always including the nose coordinate": single drags
    "config1": SamplerConfig(grid_size=100, max_points=10, special_points=NOSE, special_always=True),
    # "grid size of 100 and max_points of 50, providing 23 key locations": the paper's main model
    "config2": SamplerConfig(grid_size=100, max_points=50, special_points=FACE_23),
    # "grid size of 100 without any specific points": fine editing. No max_points is given: one a cell
    "config3": SamplerConfig(grid_size=100, max_points=100),
    # "grid size 900 without any specific points": finest editing, such as hair. Again one a cell
    "config4": SamplerConfig(grid_size=900, max_points=900),
}


def sampler_config(name: str) -> SamplerConfig:
    """Return one of InstantDrag's four published configurations (App. D.3) by name.

    | name | grid cells | points at most | special points | the paper uses it for |
    |---|---|---|---|---|
    | `"config1"` | 100 | 10 | the nose, always | single-point drags |
    | `"config2"` | 100 | 50 | 23 of the face | everything unless said otherwise: the most robust |
    | `"config3"` | 100 | not given; 100 here | none | many control points |
    | `"config4"` | 900 | not given; 900 here | none | precise, local movements |

    Raises:
        ValueError: If there is no such configuration.
    """
    if name not in SAMPLER_CONFIGS:
        raise ValueError(
            f"The sampler configuration must be one of {', '.join(SAMPLER_CONFIGS)}, got {name!r}."
        )
    return SAMPLER_CONFIGS[name]


def sparse_flow(drags: DragInstruction, size: tuple[int, int]) -> Float[Tensor, "1 2 h w"]:
    """Write drags into a sparse flow: each displacement at the pixel nearest to its handle.

    The drags follow their image to the new size first (without an `image_size` they are taken to be
    in pixels of this grid). Where two handles meet in one pixel, the later one holds. An anchor
    writes its zero, which nobody can tell from an unknown pixel: see `dragstudy.flow.hold_anchors`.

    Args:
        drags: The drags, in pixels of their image.
        size: `(h, w)` of the flow.

    Returns:
        The sparse flow, in pixels of its own grid, shape `(1, 2, h, w)`.

    Raises:
        ValueError: If the drags have no `image_size` and a point lies outside the grid.

    Example:
        >>> drags = DragInstruction([[2, 1]], [[5, 1]], image_size=(8, 8))
        >>> flow = sparse_flow(drags, (16, 16))
        >>> flow.nonzero().tolist(), flow.sum().item()
        ([[0, 0, 3, 5]], 6.0)
    """
    h, w = size
    if drags.image_size is None:
        drags = DragInstruction(drags.handle_points, drags.target_points, image_size=(w, h))
    handles, targets = (
        resize_points(points, drags.image_size, (w, h))
        for points in (drags.handle_points, drags.target_points)
    )
    columns, rows = np.clip(np.floor(handles + 0.5), 0, (w - 1, h - 1)).astype(int).T
    flow = torch.zeros(1, 2, h, w)
    for column, row, displacement in zip(columns, rows, targets - handles, strict=True):
        flow[0, :, row, column] = torch.from_numpy(displacement)
    return flow


def drags_from_sparse(sparse: Float[Tensor, "2 h w"] | Float[Tensor, "1 2 h w"]) -> DragInstruction:
    """Read the drags out of a sparse flow, row by row; those that end outside the frame are left out.

    Args:
        sparse: Sparse flow in pixels, shape `(2, h, w)` or `(1, 2, h, w)`.

    Returns:
        One drag for each pixel that is not zero, for an image of the flow's own size.

    Raises:
        ValueError: If no drag is left.

    Example:
        >>> drags = DragInstruction([[2, 1]], [[5, 1]], image_size=(8, 8))
        >>> drags_from_sparse(sparse_flow(drags, (8, 8))) == drags
        True
    """
    flow = sparse.detach().cpu().reshape(2, *sparse.shape[-2:]).double().numpy()
    h, w = flow.shape[1:]
    rows, columns = flow.any(axis=0).nonzero()
    handles = np.stack([columns, rows], axis=1).astype(np.float64)
    targets = handles + flow[:, rows, columns].T
    kept = ((targets >= -0.5) & (targets <= np.array([w, h]) - 0.5)).all(axis=1)
    return DragInstruction(handles[kept], targets[kept], image_size=(w, h))


def sample_drags(
    flow: Float[Tensor, "2 h w"],
    mask: Float[Tensor, "1 h w"] | None,
    config: SamplerConfig | str = "config2",
    *,
    generator: torch.Generator,
    landmarks: Float[Tensor, "68 2"] | Float[np.ndarray, "68 2"] | None = None,
    weighting: Weighting = "uniform",
    k: int | None = None,
) -> Float[Tensor, "2 h w"]:
    """Draw pseudo drags from a dense flow (InstantDrag, Sec. 3.2.2 and App. D.3).

    Every pixel gets s ~ U[0, 1], or s |F| in the variant for scenes without a mask; the background
    gets a value that is never chosen. One pixel of each grid cell gets a bonus, which spreads the
    points out, and the special points get a larger one. The k largest stay, and the rest is zero.

    Args:
        flow: Dense forward flow in pixels, shape `(2, h, w)`.
        mask: 1 on the object, 0 on the background, shape `(1, h, w)`; `None` is all object.
        config: How to draw, or the name of a published configuration.
        generator: Source of all randomness.
        landmarks: dlib's 68 points, (x, y) in pixels of the flow, shape `(68, 2)`; those that are
            NaN, outside the frame or on the background are passed over.
        weighting: `"uniform"`, or `"magnitude"` to prefer what moves far.
        k: Number of points; by default uniform in [1, `config.max_points`].

    Returns:
        The flow at the points drawn (never more than the mask has) and zero elsewhere, `(2, h, w)`.

    Raises:
        ValueError: If `config` or `weighting` is unknown, or `k` is less than 1.

    Example:
        >>> flow, mask = torch.ones(2, 32, 32), torch.ones(1, 32, 32)
        >>> generator = torch.Generator().manual_seed(0)
        >>> int(sample_drags(flow, mask, "config3", generator=generator, k=7)[0].sum())
        7
    """
    config = sampler_config(config) if isinstance(config, str) else config
    if weighting not in ("uniform", "magnitude"):
        raise ValueError(f"weighting must be 'uniform' or 'magnitude', got {weighting!r}.")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1 point, got {k}.")
    h, w = flow.shape[-2:]
    values = torch.rand(h * w, generator=generator, device=generator.device, dtype=torch.float64).to(
        flow.device
    )
    if weighting == "magnitude":
        length = flow.double().norm(dim=0).flatten()
        values = values * (length / length.max().clamp_min(1e-12))  # at most 1, below the bonuses
    allowed = torch.ones_like(values, dtype=torch.bool) if mask is None else mask.flatten() > 0.5
    special = _special_pixels(landmarks, config.special_points, allowed, (h, w))
    if k is None:
        fewest = max(1, len(special)) if config.special_always else 1
        draw = torch.randint(fewest, config.max_points + 1, (), generator=generator, device=generator.device)
        k = int(draw)
    ranked = values.masked_fill(~allowed, -torch.inf)
    ranked[_grid_pixels(values, allowed, config, (h, w))] += GRID_BONUS
    ranked[special] += SPECIAL_BONUS
    chosen = ranked.topk(min(k, int(allowed.sum()))).indices
    return keep_pixels(flow, chosen)


def _special_pixels(
    landmarks: Float[Tensor, "68 2"] | Float[np.ndarray, "68 2"] | None,
    indices: tuple[int, ...],
    allowed: Bool[Tensor, " hw"],
    size: tuple[int, int],
) -> Int64[Tensor, " n"]:
    """Return the distinct pixels, counted row by row, under the landmarks that may be chosen."""
    if landmarks is None or not indices:
        return torch.zeros(0, dtype=torch.int64, device=allowed.device)
    points = torch.as_tensor(landmarks)[list(indices)].to(allowed.device)
    x, y = (points + 0.5).floor().unbind(dim=1)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])  # false for NaN
    pixels = (y * size[1] + x)[inside].long().unique()
    return pixels[allowed[pixels]]


def _grid_pixels(
    values: Float64[Tensor, " hw"], allowed: Bool[Tensor, " hw"], config: SamplerConfig, size: tuple[int, int]
) -> Int64[Tensor, " n"]:
    """Return one pixel that may be chosen for each grid cell that has one, counted row by row."""
    h, w = size
    rows = min(h, max(1, round(math.sqrt(config.grid_size * h / w))))
    columns = min(w, max(1, round(config.grid_size / rows)))
    if config.grid_points == "centre":
        y = ((torch.arange(rows) + 0.5) * h / rows).long()
        x = ((torch.arange(columns) + 0.5) * w / columns).long()
        pixels = (y[:, None] * w + x).flatten().to(allowed.device)
        return pixels[allowed[pixels]]
    y, x = torch.arange(h, device=values.device), torch.arange(w, device=values.device)
    cell = ((y * rows // h)[:, None] * columns + x * columns // w).flatten()
    masked = values.masked_fill(~allowed, -1)
    best = values.new_full((rows * columns,), -1).scatter_reduce(0, cell, masked, "amax")
    wins = allowed & (masked == best[cell])
    index = torch.arange(h * w, device=values.device).masked_fill(~wins, h * w)
    first = index.new_full((rows * columns,), h * w).scatter_reduce(0, cell, index, "amin")
    return first[first < h * w]
