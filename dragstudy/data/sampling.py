"""Which frames of a clip are paired, what a pair is called, and which split an identity belongs to."""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

Number = float | int
CLIP_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
VIDEO_ID = (
    r".{11}"  # CelebV-Text's and TalkingHead-1KH's clip names begin with their video's id of 11 characters
)


def find_clips(folder: Path | str) -> list[Path]:
    """All clips in a folder and the folders below it, sorted.

    Raises:
        ValueError: If there are none.
    """
    clips = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)
    if not clips:
        raise ValueError(f"no clips in {folder}: their names end in {', '.join(CLIP_SUFFIXES)}")
    return clips


def clip_name(path: Path | str) -> str:
    """A clip's name in keys and manifest: its file's name without suffix, all but word signs made _."""
    return re.sub(r"[^\w-]", "_", Path(path).stem)


def identities_by_name(clips: Iterable[Path], pattern: str = VIDEO_ID) -> dict[str, str]:
    """Identity of each clip: the part of its name that `pattern` matches at the start, or the whole name."""
    names = [clip_name(path) for path in clips]
    return {name: found.group() if (found := re.match(pattern, name)) else name for name in names}


def pair_key(clip: str, source_index: int, target_index: int) -> str:
    """Name of a pair: `<clip>-<source_index>-<target_index>`."""
    return f"{clip}-{source_index:06d}-{target_index:06d}"


def sample_windows(
    frames: int, max_interval: int, count: int | None, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw pairs of frames by sliding windows of every width from 1 to `max_interval`.

    Args:
        frames: Frames in the clip.
        max_interval: Largest distance of two frames.
        count: Pairs wanted, all different; None takes every one. Widths get equal numbers, as far as they go.
        generator: Source of randomness.

    Returns:
        `(source_index, target_index)` with source before target, in the order in which a clip shows them.
    """
    starts = [generator.permutation(max(0, frames - width)).tolist() for width in range(1, max_interval + 1)]
    queue = deque((width, left) for width, left in enumerate(starts, start=1) if left)
    pairs: list[tuple[int, int]] = []
    while queue and (count is None or len(pairs) < count):
        width, left = queue.popleft()
        start = left.pop()
        pairs.append((start, start + width))
        if left:
            queue.append((width, left))
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def assign_splits(
    identities: Iterable[str], fractions: Mapping[str, Number], generator: np.random.Generator
) -> dict[str, str]:
    """Give each identity one split, so that no face is both trained and tested on.

    Args:
        identities: Names, repeats allowed.
        fractions: Share of the identities for each split, `{"train": 0.9, "test": 0.1}`; they sum to 1.
        generator: Source of randomness.

    Raises:
        ValueError: If the fractions do not sum to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"the fractions must sum to 1, got {dict(fractions)}")
    names = generator.permutation(sorted(set(identities))).tolist()
    ends = np.round(np.cumsum(list(fractions.values())) * len(names)).astype(int)
    splits = {}
    for split, start, end in zip(fractions, [0, *ends], ends, strict=False):
        splits |= dict.fromkeys(names[start:end], split)
    return splits
