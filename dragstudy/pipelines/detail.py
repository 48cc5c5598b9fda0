"""Past the autoencoder: what the photograph itself still shows after the motion.

What an f8 autoencoder loses is lost to every latent method. `transfer` adds it to the edit again, `compose`
keeps the moved photograph and asks the edit for the rest only. Not in the papers; off unless asked for.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from dragstudy.flow import fill_holes, forward_splat, resize_flow, sample_at
from dragstudy.warping import pixel_grid

Detail = Literal["none", "transfer", "compose"]

# Lengths are shares of the flow's shorter side, so that they mean the same at any working size.
SMOOTHING = 0.01  # deviation of the Gaussian that smooths the flow
FEATHER = 0.004  # deviation of the border between photograph and edit
TOLERANCE = 0.004  # how far there-and-back may end from its start
COVERED = 0.5  # a pixel less covered by moved source pixels than this was hidden before
REFINEMENTS = 5  # fixed-point steps after the splat; more change nothing


def check_detail(detail: str) -> None:
    """Refuse an unknown `detail` before anything is computed."""
    if detail not in get_args(Detail):
        raise ValueError(f"detail must be one of {', '.join(get_args(Detail))}, got {detail!r}")


def transfer(photo: Tensor, edited: Tensor, reconstructed: Tensor, flow: Tensor) -> Tensor:
    """Add to an edit what the autoencoder loses of the photograph, moved, where it can still be seen.

    Args:
        photo: The source, `(1, 3, h, w)` in [0, 1], at its own resolution.
        edited: The method's result, of the same size.
        reconstructed: The source through the autoencoder, brought to the same size.
        flow: Forward flow, `(1, 2, h2, w2)` in pixels of its own grid.

    Returns:
        `(1, 3, h, w)` in [0, 1].
    """
    came_from, visible = look_back(flow, photo.shape[-2:])
    lost = sample_at(photo - reconstructed, came_from, mode="bicubic")
    return (edited + visible * lost).clamp(0, 1)


def compose(photo: Tensor, edited: Tensor, flow: Tensor) -> Tensor:
    """Keep the moved photograph where its content is visible, and let the edit speak where it is not.

    Where the two meet, the edit is brought to the photograph's colours: their difference along the border
    is continued smoothly into what only the edit shows. Nothing else of the edit is used: its shading was
    found to say nothing about how the target's differs from the moved photograph's.

    Args:
        photo: The source, `(1, 3, h, w)` in [0, 1], at its own resolution.
        edited: The method's result, of the same size.
        flow: Forward flow, `(1, 2, h2, w2)` in pixels of its own grid.

    Returns:
        `(1, 3, h, w)` in [0, 1]; the photograph's own pixels where nothing moves.
    """
    came_from, visible = look_back(flow, photo.shape[-2:])
    moved = sample_at(photo, came_from, mode="bicubic")
    return (edited + fill_holes(moved - edited, visible)).clamp(0, 1)


def look_back(flow: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where in the source each pixel of the result comes from, and whether it could be seen there.

    The flow is smoothed (transposed convolutions leave a checkerboard in it, which a warp would show) and
    turned around by pushing its own negative along it: where two contents arrive, the one that moved further
    is taken to be nearer, as a head before its background is. A pixel is visible if enough of the source
    arrived there and the way there and back ends where it began.

    Args:
        flow: Forward flow, `(1, 2, h2, w2)` in pixels of its own grid.
        size: `(h, w)` of the photograph.

    Returns:
        (x, y) in pixels of the photograph, `(1, 2, h, w)`, and a soft mask `(1, 1, h, w)`, 1 = visible.
    """
    side = min(flow.shape[-2:])
    flow = gaussian_blur(flow, SMOOTHING * side)
    inverse, coverage = forward_splat(
        -flow, flow, mode="softmax", importance=4 * flow.norm(dim=1, keepdim=True)
    )
    grid = pixel_grid(*flow.shape[-2:]).to(flow)
    for _ in range(REFINEMENTS):  # inverse(p) = -flow(p + inverse(p))
        inverse = -sample_at(flow, grid + inverse)
    there_and_back = (inverse + sample_at(flow, grid + inverse)).norm(dim=1, keepdim=True)
    visible = (there_and_back < TOLERANCE * side) & (coverage > COVERED)
    visible = (2 * gaussian_blur(visible.float(), FEATHER * side) - 1).clamp(0, 1)  # 0 outside `visible`
    came_from = pixel_grid(*size).to(flow) + resize_flow(inverse, size)
    return came_from, F.interpolate(visible, size, mode="bilinear")


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
