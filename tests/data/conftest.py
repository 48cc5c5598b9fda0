"""Small frames with known motion, and lossless clips of them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dragstudy.data.pairs import Pair


def _textured(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Coloured noise, coarse and fine, that flow estimators can follow, uint8 `(h, w, 3)`."""
    noise = np.random.default_rng(seed).standard_normal((h, w, 3)).astype(np.float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (2.5, 8)]
    return np.clip(128 + sum(30 * layer / layer.std() for layer in layers), 0, 255).astype(np.uint8)


def _moving_square(count: int, *, size: int = 96, side: int = 40, step: int = 3) -> list[np.ndarray]:
    """Frames in which a textured square moves `step` px to the right a frame over a still background."""
    background, square = _textured(size, size, 1), _textured(side, side, 2)[:, :, ::-1]
    frames = []
    for k in range(count):
        frame = background.copy()
        x = 8 + step * k
        frame[30 : 30 + side, x : x + side] = square
        frames.append(frame)
    return frames


@pytest.fixture
def textured() -> Callable[..., np.ndarray]:
    """`textured(h, w, seed=0)`: a frame that flow estimators can follow."""
    return _textured


@pytest.fixture
def moving_square() -> Callable[..., list[np.ndarray]]:
    """`moving_square(count, size=96, side=40, step=3)`: frames of a square that moves to the right."""
    return _moving_square


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes frames as a lossless clip and returns its path."""

    def write(frames: Sequence[np.ndarray], name: str = "clip.mkv", fps: int = 10) -> Path:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(fps))
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "bgr0"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / name

    return write


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """A function that makes pair number `k` of 32 x 48 pixels, all its parts different."""

    def make(k: int = 0, *, split: str = "train", **info: object) -> Pair:
        rng = np.random.default_rng(k)
        mask = np.zeros((32, 48), np.uint8)
        mask[8:24, 10 + k % 5 : 30] = 255
        place = {"clip": "clip", "identity": f"person{k % 3}", "split": split, "fps": 10.0}
        return Pair(
            key=f"clip-{k:06d}-{k + 4:06d}",
            source=_textured(32, 48, k),
            target=_textured(32, 48, k + 1000),
            mask=mask,
            target_mask=mask[:, ::-1].copy(),
            flow=rng.uniform(-5, 5, (2, 32, 48)).astype(np.float32),
            valid=(rng.random((32, 48)) > 0.2).astype(np.uint8),
            landmarks=rng.uniform(0, 30, (68, 2)) if k % 2 else None,
            info=place | {"source_index": k, "target_index": k + 4} | info,
        )

    return make
