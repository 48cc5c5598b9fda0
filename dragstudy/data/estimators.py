"""Dense forward flow between two frames, by a named estimator.

Every estimator answers the same question: where in `target` is the content that `source` shows at
pixel `p`? The answer is `flow[:, y, x] = (dx, dy)`, in pixels, so `target(p + flow(p)) = source(p)`.
InstantDrag uses FlowFormer (Sec. 4.1), whose weights no registry package carries; of what there is,
DIS is the best on talking heads and takes 10 ms a 256x256 pair.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from dragstudy.data.spynet import load_spynet

Frame = UInt8[np.ndarray, "h w 3"]
FrameFlow = Float32[np.ndarray, "2 h w"]

RAFT_MULTIPLE = 8  # RAFT's features have 1/8 of the image's size
RAFT_SMALLEST = 128  # below this its correlation pyramid has an empty level
SMALLEST_SIDE = 16  # DIS matches 8x8 patches and refuses less


def estimate_flow(source: Frame, target: Frame, method: str = "dis") -> FrameFlow:
    """Estimate the forward flow from `source` to `target`.

    Args:
        source: First frame, RGB, shape `(h, w, 3)`.
        target: Second frame, same shape.
        method: A key of `FLOW_ESTIMATORS`: `"dis"`, `"tvl1"`, `"spynet"` or `"raft"`.

    Returns:
        Forward flow in pixels, channel 0 is x (right), shape `(2, h, w)`.

    Raises:
        ValueError: If the method is unknown, the two sizes differ, or a side is below 16 pixels.
        FileNotFoundError: If the estimator's weights are not on this machine.
    """
    if method not in FLOW_ESTIMATORS:
        raise ValueError(f"method must be one of {sorted(FLOW_ESTIMATORS)}, got {method!r}")
    if source.shape != target.shape:
        raise ValueError(f"both frames must have one size, got {source.shape[:2]} and {target.shape[:2]}")
    if min(source.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"frames must be at least {SMALLEST_SIDE} pixels a side, got {source.shape[:2]}")
    return FLOW_ESTIMATORS[method](source, target)


def _grey(frame: Frame) -> UInt8[np.ndarray, "h w"]:
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def _batch(frame: Frame) -> Float[Tensor, "1 3 h w"]:
    """A frame as a batch of one in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255


@functools.cache
def _dis() -> Any:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def flow_dis(source: Frame, target: Frame) -> FrameFlow:
    """Dense inverse search (Kroeger et al. 2016), OpenCV's medium preset, on grey images."""
    return np.ascontiguousarray(_dis().calc(_grey(source), _grey(target), None).transpose(2, 0, 1))


def flow_tvl1(source: Frame, target: Frame) -> FrameFlow:
    """TV-L1 (Zach et al. 2007) of scikit-image on grey images: slow; behind DIS on exact smooth warps."""
    from skimage.registration import optical_flow_tvl1

    rows, columns = optical_flow_tvl1(_grey(source) / 255.0, _grey(target) / 255.0)
    return np.stack([columns, rows]).astype(np.float32)


@functools.cache
def _spynet() -> torch.nn.Module:
    from dragstudy.assets import locate

    return load_spynet(locate("spynet", "BasicVSR_REDS4.pth"))


@torch.no_grad()
def flow_spynet(source: Frame, target: Frame) -> FrameFlow:
    """SPyNet (Ranjan and Black 2017), weights of BasicVSR's REDS4 checkpoint; for motions to about 20 px."""
    return _spynet()(_batch(source), _batch(target))[0].numpy()


@functools.cache
def _raft() -> torch.nn.Module:
    from dragstudy._torchvision import require

    models = require().models.optical_flow
    weights = models.Raft_Large_Weights.DEFAULT
    stored = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    path = Path(os.environ.get("DRAGSTUDY_RAFT", stored))
    if not path.is_file():
        raise FileNotFoundError(
            f"flow estimator 'raft' needs torchvision's raft_large weights at {path} "
            "(or any file named by DRAGSTUDY_RAFT); use 'dis', which needs none"
        )
    model = models.raft_large(weights=None)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def flow_raft(source: Frame, target: Frame) -> FrameFlow:
    """RAFT (Teed and Deng 2020), torchvision's `raft_large`; needs its weights file on this machine."""
    model = _raft()
    h, w = source.shape[:2]
    pad_h, pad_w = (max(RAFT_SMALLEST, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) - side for side in (h, w))
    frames = [
        torch.nn.functional.pad(_batch(frame) * 2 - 1, (0, pad_w, 0, pad_h), mode="replicate")
        for frame in (source, target)
    ]
    return model(*frames)[-1][0, :, :h, :w].contiguous().numpy()


FLOW_ESTIMATORS: dict[str, Callable[[Frame, Frame], FrameFlow]] = {
    "dis": flow_dis,
    "tvl1": flow_tvl1,
    "spynet": flow_spynet,
    "raft": flow_raft,
}
