"""SPyNet: optical flow by a pyramid of small residual networks (Ranjan and Black, CVPR 2017).

From the coarsest of six levels to the finest, a five-layer network sees the first frame, the second
frame warped back by the flow so far, and that flow, and predicts what must be added to it.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dragstudy.flow import backward_warp, resize_flow

LEVELS = 6
WIDTHS = (8, 32, 64, 32, 16, 2)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SPyNet(nn.Module):
    """Six levels of 7x7 convolutions, 1.44 M parameters; differentiable in both frames."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(
        self, source: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 2 h w"]:
        """Forward flow from `source` to `target`, in pixels.

        Args:
            source: First frames in [0, 1], shape `(b, 3, h, w)`, any size.
            target: Second frames, same shape.
        """
        size = source.shape[2:]
        sources, targets = self._pyramid(source), self._pyramid(target)
        flow = sources[0].new_zeros(source.shape[0], 2, *sources[0].shape[2:])
        for k, (level, first, second) in enumerate(zip(self.levels, sources, targets, strict=True)):
            if k > 0:
                # differs from flow.resize_flow: the weights were trained with corners aligned
                flow = 2 * functional.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            flow = flow + level(torch.cat([first, backward_warp(second, flow), flow], dim=1))
        return resize_flow(flow, tuple(size))

    def _pyramid(self, frames: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The normalised frames at `LEVELS` sizes, the coarsest first; sides are made multiples of 32."""
        step = 2 ** (LEVELS - 1)
        size = [-(-side // step) * step for side in frames.shape[2:]]
        finest = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        pyramid = [(finest - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            pyramid.append(functional.avg_pool2d(pyramid[-1], 2))
        return pyramid[::-1]


def _level() -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in zip(WIDTHS, WIDTHS[1:], strict=False):
        layers += [nn.Conv2d(width_in, width_out, kernel_size=7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def load_spynet(path: Path) -> SPyNet:
    """SPyNet with the `spynet.*` entries of a BasicVSR checkpoint, ready to be called.

    Raises:
        ValueError: If the file holds no such entries.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("params", state)
    prefix = "spynet.basic_module."
    levels = {
        name.removeprefix(prefix).replace(".basic_module.", "."): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if not levels:
        raise ValueError(f"{path} holds no entries named {prefix}*")
    model = SPyNet()
    model.levels.load_state_dict(levels)
    return model.eval().requires_grad_(False)
