"""File formats of optical-flow datasets: `.flo` and 16-bit `.png` flows, `.ppm` and `.png` images."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

FLO_MAGIC = 202021.25  # the bytes "PIEH": Middlebury's sanity check of floats and byte order
KITTI_SCALE, KITTI_ZERO = 64.0, 2**15  # stored value = 64 * px + 32768
UNKNOWN = 1e9  # lengths above it mean "not known" in .flo files


def read_flo(path: Path | str) -> Float32[np.ndarray, "2 h w"]:
    """Read a Middlebury `.flo` file.

    Returns:
        Flow in pixels, channel 0 is x; values above 1e9 mark unknown pixels.

    Raises:
        ValueError: If the file is no `.flo` file or is cut short.
    """
    content = Path(path).read_bytes()
    if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != np.float32(FLO_MAGIC):
        raise ValueError(f"{path} is no .flo file: its first four bytes are not 'PIEH'")
    w, h = (int(side) for side in np.frombuffer(content, "<i4", 2, offset=4))
    if w < 1 or h < 1 or len(content) != 12 + 8 * w * h:
        raise ValueError(
            f"{path} should hold {w} x {h} vectors of 8 bytes, but has {len(content) - 12} bytes"
        )
    flow = np.frombuffer(content, "<f4", offset=12).reshape(h, w, 2)
    return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


def write_flo(path: Path | str, flow: Float32[np.ndarray, "2 h w"]) -> None:
    """Write a flow in pixels as a Middlebury `.flo` file."""
    _, h, w = flow.shape
    vectors = np.ascontiguousarray(flow.transpose(1, 2, 0), dtype="<f4").tobytes()
    Path(path).write_bytes(np.float32(FLO_MAGIC).tobytes() + np.array([w, h], "<i4").tobytes() + vectors)


def read_flow_png(path: Path | str) -> tuple[Float32[np.ndarray, "2 h w"], UInt8[np.ndarray, "h w"]]:
    """Read a flow stored as a 16-bit RGB `.png`, as KITTI and HD1K do.

    Returns:
        Flow in pixels, and 1 where it is known, else 0.

    Raises:
        ValueError: If the file is no such image.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"{path} is no 16-bit RGB .png flow")
    known = (stored[:, :, 0] > 0).astype(np.uint8)  # OpenCV's order is B, G, R
    flow = (stored[:, :, [2, 1]].astype(np.float32) - KITTI_ZERO) / KITTI_SCALE
    return np.ascontiguousarray(flow.transpose(2, 0, 1)) * known, known


def read_flow(path: Path | str) -> tuple[Float32[np.ndarray, "2 h w"], UInt8[np.ndarray, "h w"]]:
    """Read a `.flo` or `.png` flow: pixels, 0 where unknown, and 1 where known."""
    if Path(path).suffix == ".png":
        return read_flow_png(path)
    flow = read_flo(path)
    known = (np.abs(flow) < UNKNOWN).all(axis=0)
    return np.where(known, flow, 0).astype(np.float32), known.astype(np.uint8)


def read_frame(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """Read a `.ppm`, `.png` or `.jpg` frame as RGB.

    Raises:
        ValueError: If the file is no image.
    """
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError(f"cannot read frame {path}")
    return frame
