"""A frame pair: the record, its files inside a WebDataset tar, and the dataset that reads them back.

Members of a pair in its tar: `key.source.jpg`, `key.target.jpg` (quality 95), `key.mask.png`,
`key.target_mask.png`, `key.valid.png`, `key.flow.npz` (`flow` uint8 `(2, h, w)` and `scale` `(2,)`, see
`dragstudy.flow.quantize_flow`) and `key.json` (landmarks and everything in `Pair.info`).
"""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from dragstudy.data.shards import ShardWriter as TarWriter
from dragstudy.data.shards import read_manifest
from dragstudy.flow import dequantize_flow, quantize_flow

JPEG_OPTIONS = [
    cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip
LANDMARKS = 68
Landmarks = Float64[np.ndarray, "68 2"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames of one clip and what lies between them.

    Attributes:
        key: Unique name, `<clip>-<source_index>-<target_index>`; no dot and no slash.
        source: First frame, RGB.
        target: Second frame, RGB.
        mask: 255 on the object of the first frame, else 0.
        target_mask: The same of the second frame.
        flow: Forward flow in pixels, not masked: what the estimator said everywhere.
        valid: 1 where forward and backward flow agree, else 0.
        landmarks: dlib's 68 points of the first frame, x, y in pixels, or None without a face.
        target_landmarks: The same of the second frame.
        info: JSON values: clip, identity, split, source_index, target_index, fps, and more if wanted.
    """

    key: str
    source: UInt8[np.ndarray, "h w 3"]
    target: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    target_mask: UInt8[np.ndarray, "h w"]
    flow: Float32[np.ndarray, "2 h w"]
    valid: UInt8[np.ndarray, "h w"]
    landmarks: Landmarks | None = None
    target_landmarks: Landmarks | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.key or set("./\\") & set(self.key):
            raise ValueError(f"a pair's key must be a name without dot and slash, got {self.key!r}")
        size = self.source.shape[:2]
        for name in ("target", "mask", "target_mask", "valid"):
            if getattr(self, name).shape[:2] != size:
                raise ValueError(
                    f"{name} of pair {self.key} has size {getattr(self, name).shape[:2]}, not {size}"
                )
        if self.flow.shape[1:] != size:
            raise ValueError(f"flow of pair {self.key} has size {self.flow.shape[1:]}, not {size}")

    @property
    def masked_flow(self) -> Float32[np.ndarray, "2 h w"]:
        """The flow where the mask is set, 0 elsewhere: the target of FlowGen's training."""
        return self.flow * (self.mask > 0)


def encode_pair(pair: Pair) -> dict[str, bytes]:
    """The members of a pair's record, suffix to bytes; the same pair gives the same bytes."""
    quantised, scale = quantize_flow(torch.from_numpy(pair.flow)[None])
    flow = io.BytesIO()
    np.savez_compressed(flow, flow=quantised[0].numpy(), scale=scale.flatten().numpy())
    points = {"landmarks": pair.landmarks, "target_landmarks": pair.target_landmarks}
    text = pair.info | {name: None if p is None else np.round(p, 3).tolist() for name, p in points.items()}
    return {
        "source.jpg": _encode(".jpg", cv2.cvtColor(pair.source, cv2.COLOR_RGB2BGR), JPEG_OPTIONS),
        "target.jpg": _encode(".jpg", cv2.cvtColor(pair.target, cv2.COLOR_RGB2BGR), JPEG_OPTIONS),
        "mask.png": _encode(".png", pair.mask),
        "target_mask.png": _encode(".png", pair.target_mask),
        "valid.png": _encode(".png", pair.valid * 255),
        "flow.npz": flow.getvalue(),
        "json": json.dumps(text, sort_keys=True).encode(),
    }


def decode_pair(key: str, members: Mapping[str, bytes]) -> Pair:
    """The pair of a record's members; frames carry JPEG's error, the flow that of its quantisation."""
    info = json.loads(members["json"])
    points = [info.pop(name) for name in ("landmarks", "target_landmarks")]
    landmarks, target_landmarks = (None if p is None else np.asarray(p, dtype=np.float64) for p in points)
    stored = np.load(io.BytesIO(members["flow.npz"]))
    scale = torch.from_numpy(stored["scale"]).view(1, 2, 1, 1)
    return Pair(
        key=key,
        source=_decode(members["source.jpg"], cv2.IMREAD_COLOR_RGB),
        target=_decode(members["target.jpg"], cv2.IMREAD_COLOR_RGB),
        mask=_decode(members["mask.png"], cv2.IMREAD_GRAYSCALE),
        target_mask=_decode(members["target_mask.png"], cv2.IMREAD_GRAYSCALE),
        flow=dequantize_flow(torch.from_numpy(stored["flow"])[None], scale)[0].numpy(),
        valid=(_decode(members["valid.png"], cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8),
        landmarks=landmarks,
        target_landmarks=target_landmarks,
        info=info,
    )


def _encode(extension: str, image: np.ndarray, options: list[int] | None = None) -> bytes:
    return cv2.imencode(extension, image, options or [])[1].tobytes()


def _decode(content: bytes, mode: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), mode)


class ShardWriter(TarWriter):
    """A `shards.ShardWriter` that takes `Pair`s."""

    def write(self, pair: Pair, **statistics: Any) -> None:
        """Keep `pair`; `statistics` are further columns of its manifest row, see `shards.COLUMNS`."""
        self.add(encode_pair(pair), pair_row(pair) | statistics)


def pair_row(pair: Pair) -> dict[str, Any]:
    """The manifest columns that a pair itself knows."""
    names = ("clip", "identity", "split", "source_index", "target_index", "fps", "estimator")
    h, w = pair.mask.shape
    return {name: pair.info[name] for name in names if name in pair.info} | {
        "key": pair.key,
        "height": h,
        "width": w,
    }


class PairDataset(Dataset):
    """The kept pairs of a folder, in manifest order, each read with one seek and one read.

    An item is a dict: `source`, `target` `(3, h, w)` in [0, 1]; `mask`, `target_mask`, `valid` `(1, h, w)`, 0
    or 1; `flow` `(2, h, w)` in pixels, not masked; `landmarks`, `target_landmarks` `(68, 2)` in pixels, NaN
    without a face; `key`. With `max_points`, also `handle_points` and `target_points` `(max_points, 2)` of
    LightningDrag pairs, padded with NaN. Picklable.

    Args:
        folder: What a `ShardWriter` made.
        split: Only pairs of this split; None for all.
        max_points: Room for drag points in an item; 0 leaves them out.
    """

    def __init__(self, folder: Path | str, split: str | None = "train", *, max_points: int = 0) -> None:
        self.folder = Path(folder)
        self.max_points = max_points
        manifest = read_manifest(self.folder)
        kept = manifest[manifest["reason"] == ""]
        if split is not None:
            kept = kept[kept["split"] == split]
        if kept.empty:
            held = sorted(set(manifest["split"]))
            raise ValueError(f"no kept pairs of split {split!r} in {self.folder}, which holds splits {held}")
        self.manifest = kept.reset_index(drop=True)
        self._records = list(zip(*(kept[name] for name in ("key", "shard", "offset", "length")), strict=True))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        pair = self.pair(index)
        item = {
            "source": _image_tensor(pair.source),
            "target": _image_tensor(pair.target),
            "mask": _mask_tensor(pair.mask),
            "target_mask": _mask_tensor(pair.target_mask),
            "valid": _mask_tensor(pair.valid),
            "flow": torch.from_numpy(pair.flow),
            "landmarks": _point_tensor(pair.landmarks, LANDMARKS),
            "target_landmarks": _point_tensor(pair.target_landmarks, LANDMARKS),
            "key": pair.key,
        }
        if self.max_points:
            for name in ("handle_points", "target_points"):
                item[name] = _point_tensor(pair.info.get(name), self.max_points)
        return item

    def pair(self, index: int) -> Pair:
        """The whole record of item `index`."""
        return decode_pair(self._records[index][0], self.members(index))

    def members(self, index: int) -> dict[str, bytes]:
        """The files of item `index`, undecoded, by suffix."""
        _, shard, offset, length = self._records[index]
        # opened for each pair: it costs 0.02 ms, and no worker process shares a file position with another
        with (self.folder / shard).open("rb") as file:
            file.seek(offset)
            return split_members(file.read(length))


def split_members(record: bytes) -> dict[str, bytes]:
    """The members of one pair's stretch of a tar: what follows the first dot of the name, to content."""
    members, position = {}, 0
    while position < len(record):
        header = tarfile.TarInfo.frombuf(record[position : position + tarfile.BLOCKSIZE], "utf-8", "strict")
        position += tarfile.BLOCKSIZE
        members[header.name.split(".", 1)[1]] = record[position : position + header.size]
        position += -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return members


def _image_tensor(frame: UInt8[np.ndarray, "h w 3"]) -> Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1).contiguous().float().div_(255)


def _mask_tensor(mask: UInt8[np.ndarray, "h w"]) -> Tensor:
    return torch.from_numpy(mask > 0)[None].float()


def _point_tensor(points: Any, count: int) -> Tensor:
    """Points as `(count, 2)` float32, NaN where there are none; more than `count` are cut."""
    padded = torch.full((count, 2), float("nan"))
    if points is not None and len(points):
        given = torch.as_tensor(np.asarray(points), dtype=torch.float32)[:count]
        padded[: len(given)] = given
    return padded
