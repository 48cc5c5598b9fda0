"""Where an edit looks in its photograph, from what `dragstudy.attention.keep_attention` keeps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def reference_attention(
    attention: Float[Tensor, "queries keys"], grid: tuple[int, int]
) -> Float[Tensor, "h w h w"]:
    """Of attention over [the edit ; the photograph], the part that goes to the photograph.

    Args:
        attention: Of one image; as many keys are the edit's own as the photograph's.
        grid: `(height, width)` of the layer, in cells.

    Returns:
        From a row and column of the edit to those of the photograph.
    """
    h, w = grid
    return attention[:, h * w :].reshape(h, w, h, w)


def cells_of(
    points: Float[Tensor, "n 2"], size: tuple[int, int], grid: tuple[int, int]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Rows and columns of the cells of a grid that points lie in, or the nearest to them.

    Args:
        points: x, y in pixels.
        size: `(height, width)` of the picture, in pixels.
        grid: The same of the grid, in cells.
    """
    x, y = (points + 0.5).unbind(dim=1)
    found = (y * grid[0] / size[0], x * grid[1] / size[1])
    rows, columns = (c.floor().long().clamp(0, side - 1) for c, side in zip(found, grid, strict=True))
    return rows, columns


def attention_near(
    reference: Float[Tensor, "h w h w"],
    places: Float[Tensor, "n 2"],
    looked_at: Float[Tensor, "n 2"],
    size: tuple[int, int],
    *,
    reach: int = 1,
) -> Float[Tensor, " n"]:
    """Share of what each place of the edit looks at in the photograph that lies near a place there.

    Args:
        reference: See `reference_attention`; only what goes to the photograph counts.
        places: Of the edit, x, y in pixels.
        looked_at: Of the photograph, one for each.
        size: `(height, width)` of both, in pixels.
        reach: Near are the cells at most so many rows and columns away.

    Returns:
        In [0, 1].
    """
    grid = tuple(reference.shape[:2])
    seen = reference[cells_of(places, size, grid)]  # (n, h, w)
    side = 2 * reach + 1
    around = F.avg_pool2d(seen[:, None], side, stride=1, padding=reach)[:, 0] * side**2
    rows, columns = cells_of(looked_at, size, grid)
    return around[torch.arange(len(seen)), rows, columns] / seen.sum(dim=(1, 2))
