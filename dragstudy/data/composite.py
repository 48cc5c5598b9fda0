"""Background consistency: training pairs whose background does not move (InstantDrag, Sec. 3.2.3)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DILATION = 15  # side of the square that masks grow by, px: they are seldom exact at the outline


def composite_background(
    source: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    mask: Float[Tensor, "b 1 h w"],
    target_mask: Float[Tensor, "b 1 h w"],
    approach: Literal[1, 2, 3] = 1,
    *,
    region: Literal["own", "both"] = "own",
    dilation: int = DILATION,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """Give both frames one background, by changing the condition or the target (Eq. 5-7).

    With D(M) the dilated mask:

    1. condition = D(M1) * I1 + (1 - D(M1)) * I2, target = I2: the truth stays real (the paper's choice);
    2. condition = I1, target = D(M2) * I2 + (1 - D(M2)) * I1;
    3. condition = I1, target = I2.

    With masks of their own, what frame 2 shows of the object outside D(M1) stays in the condition of
    approach 1, a ghost beside the object where the motion is large. `region="both"` takes D(M1) and D(M2)
    together instead, in 1 and 2: only pixels that are background in both frames are exchanged.

    Args:
        source: First frames I1, any range.
        target: Second frames I2.
        mask: Object of the first frames M1, 0 or 1.
        target_mask: Object of the second frames M2, 0 or 1.
        approach: 1, 2 or 3.
        region: `"own"` as in the equations, or `"both"`.
        dilation: Side of the square that the masks grow by, odd, in pixels.

    Returns:
        The condition image and the target image of FlowDiffusion, each `(b, 3, h, w)`.

    Raises:
        ValueError: If `approach` is not 1, 2 or 3, `region` is unknown, or `dilation` is even.
    """
    if approach not in (1, 2, 3):
        raise ValueError(f"approach must be 1, 2 or 3, got {approach!r}")
    if region not in ("own", "both"):
        raise ValueError(f"region must be 'own' or 'both', got {region!r}")
    if approach == 3:
        return source, target
    own, other = (mask, target_mask) if approach == 1 else (target_mask, mask)
    kept = dilate(own if region == "own" else torch.maximum(own, other), dilation) > 0.5
    if approach == 1:
        return torch.where(kept, source, target), target
    return source, torch.where(kept, target, source)


def dilate(mask: Float[Tensor, "b 1 h w"], side: int = DILATION) -> Float[Tensor, "b 1 h w"]:
    """Grow a mask by a square of odd `side`, in pixels.

    Raises:
        ValueError: If `side` is even.
    """
    if side % 2 == 0:
        raise ValueError(f"side must be odd, got {side}")
    return functional.max_pool2d(mask, side, stride=1, padding=side // 2)
