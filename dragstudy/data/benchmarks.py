"""Folders of optical-flow benchmarks, into the same shards as clips: for InstantDrag's general-scene FlowGen.

InstantDrag, Sec. 3.2.1, also trains on FlyingChairs and Sintel. Their flow is exact, everything in them may
move, so the mask is the whole image where the benchmark has none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dragstudy.data.criteria import flow_statistics
from dragstudy.data.flow_files import read_flow, read_frame
from dragstudy.data.pairs import Pair, ShardWriter
from dragstudy.data.sampling import pair_key
from dragstudy.progress import progress

CHAIRS_TRAINING, CHAIRS_VALIDATION = 1, 2  # codes of FlyingChairs_train_val.txt


@dataclass(frozen=True)
class BenchmarkPair:
    """Where one pair of a benchmark lies.

    Attributes:
        clip: Name of the sequence.
        source_index: Number of its first frame.
        split: `"train"` or `"val"`.
        source: File of the first frame.
        target: File of the second frame.
        flow: File of the forward flow.
        occlusions: File whose bright pixels are occluded in the second frame, or None.
    """

    clip: str
    source_index: int
    split: str
    source: Path
    target: Path
    flow: Path
    occlusions: Path | None = None


def flying_chairs(folder: Path | str, *, split_file: Path | str | None = None) -> list[BenchmarkPair]:
    """List FlyingChairs: `00001_img1.ppm`, `00001_img2.ppm`, `00001_flow.flo`, in `folder` or its `data`.

    Args:
        folder: The unpacked release.
        split_file: The list of 1 (training) and 2 (validation), a line a pair; by default
            `FlyingChairs_train_val.txt` in `folder` if it is there, otherwise all is training.

    Raises:
        ValueError: If there are no pairs, or not as many as the split file has lines.
    """
    folder = Path(folder)
    flows = sorted((folder / "data" if (folder / "data").is_dir() else folder).glob("*_flow.flo"))
    if not flows:
        raise ValueError(f"{folder} holds no FlyingChairs pairs such as 00001_flow.flo")
    listed = Path(split_file) if split_file else folder / "FlyingChairs_train_val.txt"
    codes = (
        [int(code) for code in listed.read_text().split()]
        if listed.exists()
        else [CHAIRS_TRAINING] * len(flows)
    )
    if len(codes) != len(flows):
        raise ValueError(f"{listed} splits {len(codes)} pairs, but {folder} holds {len(flows)}")
    pairs = []
    for path, code in zip(flows, codes, strict=True):
        number = path.name.removesuffix("_flow.flo")
        images = [path.with_name(f"{number}_img{k}.ppm") for k in (1, 2)]
        split = "val" if code == CHAIRS_VALIDATION else "train"
        pairs.append(BenchmarkPair(f"chairs_{number}", 0, split, *images, path))
    return pairs


def sintel(
    folder: Path | str, *, render: str = "clean", validation: tuple[str, ...] = ()
) -> list[BenchmarkPair]:
    """List MPI Sintel's training part: `training/<render>/<scene>/frame_0001.png` and `training/flow/...flo`.

    Args:
        folder: The unpacked release.
        render: `"clean"`, `"final"` or `"albedo"`.
        validation: Scenes that belong to split `"val"`.

    Raises:
        ValueError: If there are no pairs.
    """
    root = Path(folder) / "training" if (Path(folder) / "training").is_dir() else Path(folder)
    pairs = []
    for flow in sorted((root / "flow").glob("*/frame_*.flo")):
        scene, number = flow.parent.name, int(flow.stem.removeprefix("frame_"))
        frames = [root / render / scene / f"frame_{k:04d}.png" for k in (number, number + 1)]
        occlusions = root / "occlusions" / scene / f"{flow.stem}.png"
        split = "val" if scene in validation else "train"
        found = occlusions if occlusions.exists() else None
        pairs.append(BenchmarkPair(f"sintel_{render}_{scene}", number, split, *frames, flow, found))
    if not pairs:
        raise ValueError(f"{folder} holds no Sintel flows such as training/flow/alley_1/frame_0001.flo")
    return pairs


def write_benchmark(
    pairs: Iterable[BenchmarkPair],
    out: Path | str,
    *,
    size: tuple[int, int] | None = None,
    pairs_per_shard: int = 1000,
    progress: Callable[..., Iterable] = progress,
) -> Counter:
    """Write a benchmark's pairs into shards; interrupted, the same call goes on.

    Args:
        pairs: What `flying_chairs` or `sintel` listed.
        out: Folder of the shards.
        size: `(height, width)` of the stored frames, flows scaled with them; None keeps the benchmark's. One
            size a batch is the reader's business: Sintel's and FlyingChairs' differ.
        pairs_per_shard: Pairs in one tar.
        progress: Wraps the pairs, called like `dragstudy.progress.progress`.

    Returns:
        How many pairs were considered now for each reason; `""` counts the kept ones.
    """
    counts: Counter = Counter()
    with ShardWriter(out, pairs_per_shard) as writer:
        pending = [pair for pair in pairs if _key(pair) not in writer]
        for item in progress(pending, description=Path(out).name, total=len(pending)):
            try:
                pair = load_benchmark_pair(item, size)
            except (ValueError, OSError):
                writer.reject({"key": _key(item), "clip": item.clip, "split": item.split}, "unreadable")
                counts["unreadable"] += 1
                continue
            writer.write(pair, **flow_statistics(pair.flow, pair.mask, pair.valid, pair.source))
            counts[""] += 1
    return counts


def load_benchmark_pair(item: BenchmarkPair, size: tuple[int, int] | None = None) -> Pair:
    """Read one pair, resized to `(height, width)` if given; occluded and unknown pixels are not `valid`.

    Raises:
        ValueError: If a file cannot be read, or frames and flow differ in size.
    """
    source, target = read_frame(item.source), read_frame(item.target)
    flow, valid = read_flow(item.flow)
    if item.occlusions is not None:
        valid = valid * (read_frame(item.occlusions)[:, :, 0] < 128).astype(np.uint8)
    if size is not None:
        source, target, flow, valid = _resized(source, target, flow, valid, size)
    whole = np.full(source.shape[:2], 255, np.uint8)
    info = {"clip": item.clip, "identity": item.clip, "split": item.split, "fps": 0.0, "estimator": "exact"}
    info |= {"source_index": item.source_index, "target_index": item.source_index + 1}
    return Pair(
        key=_key(item),
        source=source,
        target=target,
        mask=whole,
        target_mask=whole,
        flow=flow,
        valid=valid,
        info=info,
    )


def _resized(
    source: np.ndarray, target: np.ndarray, flow: np.ndarray, valid: np.ndarray, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Frames, flow and validity at another size; displacements grow with their axis."""
    (h, w), (height, width) = source.shape[:2], size
    scale = np.array([width / w, height / h], np.float32)[:, None, None]
    for image in (source, target):
        yield cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    moved = cv2.resize(flow.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR).transpose(
        2, 0, 1
    )
    yield np.ascontiguousarray(moved * scale)
    yield cv2.resize(valid, (width, height), interpolation=cv2.INTER_NEAREST)


def _key(item: BenchmarkPair) -> str:
    return pair_key(item.clip, item.source_index, item.source_index + 1)
