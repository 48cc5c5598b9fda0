"""Photographs under known smooth motions: pairs whose flow is exact.

A smooth random displacement field says where each target pixel comes from; its inverse, found by fixed-point
iteration, is the forward flow.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dragstudy.data.pairs import Pair
from dragstudy.flow import backward_warp, invert_flow, pixel_grid

STEEPEST = 0.45  # largest change of a displacement per pixel; below 1 the motion can be inverted
STILL = 0.05  # px; less is not motion


def smooth_motion(
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    bumps: int = 4,
    largest: float = 14.0,
) -> Float[Tensor, "1 2 h w"]:
    """Draw a smooth backward flow that is zero along the border: a few moving spots with Gaussian edges.

    Args:
        size: `(h, w)`.
        generator: Source of randomness.
        bumps: Largest number of spots; at least one is drawn.
        largest: Largest displacement of a spot, in pixels.

    Returns:
        `(1, 2, h, w)` in pixels, scaled down where it would be too steep to invert.
    """
    h, w = size
    grid = pixel_grid(h, w)
    flow = torch.zeros(1, 2, h, w)
    for _ in range(int(torch.randint(1, bumps + 1, (), generator=generator))):
        draw = torch.rand(5, generator=generator)
        centre = torch.stack([draw[0] * w, draw[1] * h]).view(1, 2, 1, 1)
        radius = (0.08 + 0.22 * draw[2]) * min(h, w)
        angle, length = 2 * torch.pi * draw[3], largest * draw[4]
        moved = length * torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, 1)
        flow = flow + moved * torch.exp(-((grid - centre) ** 2).sum(1, keepdim=True) / (2 * radius**2))
    edge = torch.minimum(grid, torch.tensor([w - 1.0, h - 1.0]).view(1, 2, 1, 1) - grid).amin(1, keepdim=True)
    flow = flow * (edge / (0.1 * min(h, w))).clamp(0, 1)
    steepness = max(flow.diff(dim=d).abs().max().item() for d in (2, 3))
    return flow * min(1.0, STEEPEST / max(steepness, 1e-6))


def synthetic_pair(
    photo: UInt8[np.ndarray, "h w 3"],
    key: str,
    generator: torch.Generator,
    *,
    split: str = "train",
    **motion: float,
) -> Pair:
    """Make one pair from a photograph; the mask is where it moves, the flow is exact.

    Args:
        photo: The source frame.
        key: Key of the pair; also its clip.
        generator: Source of randomness.
        split: Split the photograph belongs to.
        **motion: Arguments of `smooth_motion`.
    """
    backward = smooth_motion(photo.shape[:2], generator, **motion)
    forward = invert_flow(backward)
    source = torch.from_numpy(photo.astype(np.float32)).permute(2, 0, 1)[None]
    target = backward_warp(source, backward)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    moving, moved = (
        (flow.norm(dim=1)[0] > STILL).numpy().astype(np.uint8) * 255 for flow in (forward, backward)
    )
    return Pair(
        key=key,
        source=photo,
        target=target,
        mask=moving,
        target_mask=moved,
        flow=forward[0].numpy(),
        valid=np.ones(photo.shape[:2], np.uint8),
        info={
            "clip": key,
            "identity": key,
            "split": split,
            "source_index": 0,
            "target_index": 1,
            "fps": 0.0,
            "estimator": "exact",
        },
    )
