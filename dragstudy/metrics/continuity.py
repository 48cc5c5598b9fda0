"""How continuous a flow is, and how far flows that should be one lie apart; both in the flow's pixels."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def roughness(flow: Float[Tensor, "b 2 h w"], inside: Float[Tensor, "#b 1 h w"]) -> Float[Tensor, " b"]:
    """Mean distance of a motion vector from the mean of its four neighbours.

    Zero for any flow that is linear in the position: shifts, turns, zooms.

    Args:
        flow: In pixels.
        inside: 1 where the flow counts; a pixel is looked at if its four neighbours count too.

    Returns:
        One number a flow, in pixels; NaN where nothing counts.

    Example:
        >>> import torch
        >>> flow = torch.zeros(1, 2, 5, 5)
        >>> flow[0, 0, 2, 2] = 4.0  # it and, by a quarter, each neighbour differ
        >>> round(9 * roughness(flow, torch.ones(1, 1, 5, 5)).item(), 4)
        8.0
    """
    kernel = flow.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])[None, None]
    b, _, h, w = flow.shape
    around = F.conv2d(flow.reshape(2 * b, 1, h, w), kernel / 4).view(b, 2, h - 2, w - 2)
    whole = F.conv2d(inside, kernel) * inside[..., 1:-1, 1:-1] == 4
    length = (flow[..., 1:-1, 1:-1] - around).norm(dim=1, keepdim=True)
    return (length * whole).sum(dim=(1, 2, 3)) / whole.expand_as(length).sum(dim=(1, 2, 3))


def disagreement(flows: Float[Tensor, "n 2 h w"], inside: Float[Tensor, "1 1 h w"]) -> float:
    """Mean distance of several flows from their mean, in pixels; zero if all are the same.

    Args:
        flows: Answers to several requests that mean one motion, in pixels.
        inside: 1 where the flows count.

    Example:
        >>> import torch
        >>> flows = torch.stack([torch.zeros(2, 4, 4), torch.full((2, 4, 4), 2.0)])
        >>> round(disagreement(flows, torch.ones(1, 1, 4, 4)), 4) == round(2**0.5, 4)
        True
    """
    length = (flows - flows.mean(dim=0, keepdim=True)).norm(dim=1, keepdim=True)
    return ((length * inside).sum() / (inside.sum() * len(flows))).item()
