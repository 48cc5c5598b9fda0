"""The benchmarks that editing methods are compared on, each frozen as a manifest of ids in a fixed order."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from filelock import FileLock

from dragstudy import assets
from dragstudy.data import recipes
from dragstudy.data.curate import CurateSettings, curate_clips
from dragstudy.data.dragbench import DragBench
from dragstudy.data.face_benchmark import FaceBenchmark
from dragstudy.data.pairs import PairDataset
from dragstudy.data.samples import (
    LANDMARK_SETS,
    Benchmark,
    Sample,
    frozen_manifest,
    place_of,
    sample_of_pair,
    spread,
)
from dragstudy.data.sampling import clip_name, find_clips
from dragstudy.data.shards import read_manifest

__all__ = [
    "BENCHMARKS",
    "LANDMARK_SETS",
    "Benchmark",
    "DragBench",
    "FaceBenchmark",
    "PairBenchmark",
    "Sample",
    "open_benchmark",
]

BENCHMARKS = {
    "talking-head": "pairs of frames of people that nobody was trained on, 100 (InstantDrag, Table 1)",
    "faces-68": "generated faces of such people in two poses, 100 (DragonDiffusion, Table 1)",
    "dragbench": "DragBench's folder, 205 images with 349 drags and no true edits (DragDiffusion, Sec. 5)",
    "clips": "pairs of frames of any folder of clips",
}
CLIP_SETTINGS = CurateSettings(pairs_per_clip=60, mask="flow", require_face=False)  # people or anything else


@dataclass(frozen=True)
class PairBenchmark:
    """Pairs of frames of a folder that curation made: the first is to be edited into the second.

    Attributes:
        name: Name, of which the number of points is a part.
        ids: Keys of the pairs.
        open_pairs: Opens the folder, when the first sample is asked for.
        points: How many landmarks are dragged, see `samples.LANDMARK_SETS`.
    """

    name: str
    ids: tuple[str, ...]
    open_pairs: Callable[[], PairDataset]
    points: int = 68

    @cached_property
    def pairs(self) -> PairDataset:
        """The folder's pairs."""
        return self.open_pairs()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.pairs.manifest["key"])}

    def sample(self, id: str) -> Sample:
        """Load one sample; its flow is the curation's estimate.

        Raises:
            ValueError: If there is none of this id, or the folder lacks the pair.
        """
        place_of(self.ids, id, self.name)
        if id not in self._places:
            raise ValueError(
                f"{self.pairs.folder} lacks the frozen pair {id}: curation dropped it here, so numbers would "
                "not be comparable; install the versions in constraints.txt"
            )
        return sample_of_pair(self.pairs.pair(self._places[id]), self.points)


def open_benchmark(
    name: str, *, points: int = 68, path: Path | str | None = None, count: int | None = None
) -> Benchmark:
    """Open a benchmark by name; samples are loaded, and where needed made, when they are asked for.

    Args:
        name: One of `BENCHMARKS`.
        points: How many of dlib's landmarks are dragged, a key of `LANDMARK_SETS`; DragBench has drags of its
            own.
        path: The folder of `"dragbench"` (in its published layout) or of `"clips"`.
        count: Only so many samples, spread evenly over all.

    Raises:
        ValueError: If there is no such benchmark, an argument does not go with it, or the folder holds
            nothing that can be used.

    Example:
        >>> few = open_benchmark("talking-head", points=17, count=3)
        >>> few.name, few.ids[0]
        ('talking-head-17', 'cap12_edit-000014-000022')
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark must be one of {', '.join(BENCHMARKS)}, got {name!r}")
    if points not in LANDMARK_SETS:
        raise ValueError(f"points must be one of {', '.join(map(str, LANDMARK_SETS))}, got {points!r}")
    if (path is not None) != (name in ("dragbench", "clips")):
        wants = "needs the path of a folder" if path is None else "has no folder"
        raise ValueError(f"benchmark {name!r} {wants}")
    if name == "dragbench" and points != 68:
        raise ValueError(f"dragbench has drags of its own: points cannot be {points}")
    made = _OPEN[name](path, points)
    return replace(made, ids=spread(made.ids, count))


def _talking_head(_: None, points: int) -> PairBenchmark:
    ids = tuple(frozen_manifest("talking-head")["ids"])
    return PairBenchmark(_named("talking-head", points), ids, recipes.held_out_pairs, points)


def _faces(_: None, points: int) -> FaceBenchmark:
    ids = tuple(row["id"] for row in frozen_manifest("faces-68")["faces"])
    return FaceBenchmark(_named("faces", points) if points != 68 else "faces-68", ids, points)


def _dragbench(path: Path | str, _: int) -> DragBench:
    return DragBench.open(path)


def _clips(path: Path | str, points: int) -> PairBenchmark:
    folder = curated(path)
    pairs = PairDataset(folder, "test")
    name = _named(f"clips-{clip_name(Path(path).resolve())}", points)
    return PairBenchmark(name, tuple(pairs.manifest["key"]), partial(PairDataset, folder, "test"), points)


_OPEN = {"talking-head": _talking_head, "faces-68": _faces, "dragbench": _dragbench, "clips": _clips}


def _named(name: str, points: int) -> str:
    return name if points == 68 else f"{name}-{points}"


def curated(path: Path | str) -> Path:
    """Pairs of all clips of a folder, in the cache folder; the first call makes them there.

    Clips of other names or lengths are another set of pairs: the manifest of one never changes.

    Raises:
        ValueError: If the folder has no clips, or none of their frames can be used.
    """
    clips = find_clips(path)
    made_of = [(clip.relative_to(path).as_posix(), clip.stat().st_size) for clip in clips], CLIP_SETTINGS
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:8]
    folder = assets.cache_dir() / "pairs" / f"clips-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        curate_clips(clips, folder, CLIP_SETTINGS, splits=dict.fromkeys(map(clip_name, clips), "test"))
    reasons = read_manifest(folder)["reason"].value_counts()
    if not reasons.get("", 0):
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise ValueError(f"no pair of frames of the clips in {path} can be used: {counted}")
    return folder
