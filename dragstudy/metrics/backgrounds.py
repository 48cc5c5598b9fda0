"""What a composite does to a pair of frames, and where an edit changes the background."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragstudy.data.composite import DILATION, composite_background, dilate

RINGS = (8, 16, 32, 64)  # px from the person's outline: where one ring ends and the next begins


def measure_composite(
    item: Mapping[str, Any],
    approach: Literal[1, 2, 3],
    region: Literal["own", "both"] = "own",
    *,
    dilation: int = DILATION,
) -> dict[str, float]:
    """What `composite_background` makes of a pair.

    Args:
        item: Of a `PairDataset`.
        approach: 1, 2 or 3, none.
        region: As there.
        dilation: As there; what counts as background does not depend on it.

    Returns:
        By name:

        - `left`: mean difference of condition and target outside both people, in grey levels; what a network
          would have to guess of the background; NaN where the people fill the frames
        - `ghost`: share of the other frame's person that shows in the changed frame outside its own
        - `seam`: how much larger the step across the border of the composite is than at the same place of
          the frame before, in grey levels
    """
    frames = [item[name][None] for name in ("source", "target")]
    people = [item[name][None] for name in ("mask", "target_mask")]
    made = composite_background(*frames, *people, approach, region=region, dilation=dilation)
    outside = dilate(torch.maximum(*people)) < 0.5
    left = (made[0] - made[1]).abs().mean(dim=1, keepdim=True)[outside].mean()
    if approach == 3:
        return {"left": 255 * left.item(), "ghost": 0.0, "seam": 0.0}
    own, other = people if approach == 1 else people[::-1]
    kept = dilate(own if region == "own" else torch.maximum(*people), dilation) > 0.5
    ghost = ((other > 0.5) & ~kept).sum() / (other > 0.5).sum()
    before, after = frames[approach - 1], made[approach - 1]
    seam = border_step(after, kept) - border_step(before, kept)
    return {"left": 255 * left.item(), "ghost": ghost.item(), "seam": 255 * seam}


def border_step(image: Float[Tensor, "1 3 h w"], region: Tensor) -> float:
    """Mean difference of neighbouring pixels of which one is in a region `(1, 1, h, w)` and one is not."""
    steps = []
    for axis in (-2, -1):
        across = region.float().diff(dim=axis) != 0
        steps.append(image.diff(dim=axis).abs().mean(dim=1, keepdim=True)[across])
    return torch.cat(steps).mean().item()


def background_rings(
    image: Float[Tensor, "1 3 h w"],
    reference: Float[Tensor, "1 3 h w"],
    mask: Float[Tensor, "1 1 h w"],
    rings: Sequence[int] = RINGS,
) -> dict[str, float]:
    """Mean absolute change by distance from a person, in grey levels of 0..255.

    Args:
        image: Edited image, in [0, 1].
        reference: The image before.
        mask: 1 on the person. Where the person moves, give both frames' masks together.
        rings: Distances from the mask in pixels, growing: a ring ends at each, and the last reaches from the
            last of them to the border.

    Returns:
        By the name of a ring, such as `"change_8_16"` and `"change_64"`; NaN where it has no pixel.
    """
    away = cv2.distanceTransform((mask[0, 0] < 0.5).numpy().astype(np.uint8), cv2.DIST_L2, 5)
    change = 255 * (image - reference).abs().mean(dim=1)[0].numpy()
    found = {}
    for begin, end in zip((0, *rings), (*rings, np.inf), strict=True):
        inside = (away > begin) & (away <= end)
        name = f"change_{begin}_{end}" if np.isfinite(end) else f"change_{begin}"
        found[name] = float(change[inside].mean()) if inside.any() else float("nan")
    return found
