"""Past the autoencoder: the photograph's own pixels where they can be seen after the motion.

What an f8 autoencoder loses is lost to every latent method. Not in the papers; off unless asked for.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from dragstudy.flow import backward_warp, forward_splat, invert_flow, sample_at
from dragstudy.warping import pixel_grid

Detail = Literal["none", "compose"]

SMOOTHING = 0.016  # deviation of the Gaussian that smooths the flow, as a share of the shorter side
FEATHER = 0.008  # the same for the border between photograph and diffusion
TOLERANCE = 0.004  # how far there-and-back may end from its start, as a share of the shorter side
COVERED = 0.6  # a pixel less covered by moved source pixels than this was hidden before


def check_detail(detail: str) -> None:
    """Refuse an unknown `detail` before anything is computed."""
    if detail not in get_args(Detail):
        raise ValueError(f"detail must be one of {', '.join(get_args(Detail))}, got {detail!r}")


def compose(photo: Tensor, edited: Tensor, flow: Tensor) -> Tensor:
    """Keep the moved photograph where its content is visible, and let the edit speak where it is not.

    The flow is smoothed first (transposed convolutions leave a checkerboard in it, which a warp would show),
    inverted, and checked there and back; what it uncovers, folds or tears is left to the edit, with a soft
    border between the two.

    Args:
        photo: The source, `(1, 3, h, w)` in [0, 1], at its own resolution.
        edited: The method's result, of the same size.
        flow: Forward flow in pixels of the photograph, `(1, 2, h, w)`.

    Returns:
        `(1, 3, h, w)` in [0, 1].
    """
    side = min(photo.shape[-2:])
    flow = gaussian_blur(flow, SMOOTHING * side)
    inverse = invert_flow(flow)
    there_and_back = inverse + sample_at(flow, pixel_grid(*flow.shape[-2:]) + inverse)
    _, coverage = forward_splat(torch.zeros_like(flow[:, :1]), flow, mode="average")
    visible = (there_and_back.norm(dim=1, keepdim=True) < TOLERANCE * side) & (coverage > COVERED)
    share = (2 * gaussian_blur(visible.float(), FEATHER * side) - 1).clamp(0, 1)  # 0 outside `visible`
    return share * backward_warp(photo, inverse) + (1 - share) * edited


def gaussian_blur(image: Tensor, deviation: float) -> Tensor:
    """Blur an image `(b, c, h, w)` by a Gaussian of `deviation` pixels; the border is repeated outwards."""
    radius = min(max(1, round(3 * deviation)), min(image.shape[-2:]) - 1)
    if radius < 1 or deviation <= 0:
        return image
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(image.shape[1], 1, 1, -1)
    for kernel, padding in ((weights, (radius, radius, 0, 0)), (weights.mT, (0, 0, radius, radius))):
        image = F.conv2d(F.pad(image, padding, mode="replicate"), kernel, groups=image.shape[1])
    return image
