"""Curation: clips become frame pairs worth training on, and a manifest that says why the others are not.

InstantDrag, Sec. 3.2.1 and its appendix: frames at 10 fps, two of them at most 8 apart, no low-bitrate clips,
no pair in which a hand or a person appears or leaves, masks of the person, flow from the first to the second
frame. Added here: near-identical pairs, scene cuts and unreliable flow go too.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dragstudy.data.composite import composite_background
from dragstudy.data.criteria import REASONS, CurateSettings, judge
from dragstudy.data.estimators import Frame
from dragstudy.data.frames import Analyser, FrameFacts, people_analyser
from dragstudy.data.pairs import ShardWriter
from dragstudy.data.sampling import assign_splits, clip_name, find_clips, pair_key, sample_windows
from dragstudy.data.video import (
    Crop,
    clip_info,
    face_crop,
    mask_crop,
    read_frames,
    sample_frames,
    sampled_times,
    square_crop,
)
from dragstudy.images import fit_size
from dragstudy.progress import progress

__all__ = [
    "REASONS",
    "CurateSettings",
    "assign_splits",
    "composite_background",
    "curate_clips",
    "curate_frames",
    "pair_key",
    "sample_windows",
]

Number = float | int
SETTINGS = "settings.json"


def curate_frames(
    frames: Iterable[Frame],
    clip: str,
    identity: str,
    pairs: Sequence[tuple[int, int]],
    writer: ShardWriter,
    settings: CurateSettings,
    *,
    split: str = "train",
    fps: Number = 0,
    analyser: Analyser | None = None,
    progress: Callable[..., Iterable] = progress,
) -> Counter:
    """Consider pairs of frames and write the good ones; pairs the writer knows already are passed over.

    Args:
        frames: All frames of the clip in order, of one size, RGB; a list or anything that yields them.
        clip: Name of the clip, without dots and slashes.
        identity: Whose face it is.
        pairs: `(source_index, target_index)` into `frames`, in any order and direction.
        writer: Takes the pairs and the reasons.
        settings: Which pairs are good.
        split: Split of the identity.
        fps: Frames a second, 0 where the frames have no time; only noted.
        analyser: Finds masks, landmarks and counts; MediaPipe and dlib if None.
        progress: Wraps the considered pairs, called like `dragstudy.progress.progress`.

    Returns:
        How many pairs were considered now for each reason; `""` counts the kept ones.
    """
    pending = {
        (i, j): {"key": pair_key(clip, i, j), "clip": clip, "identity": identity, "split": split}
        | {"source_index": i, "target_index": j, "fps": float(fps), "estimator": settings.estimator}
        for i, j in sorted(pairs, key=lambda pair: (max(pair), pair))
        if pair_key(clip, i, j) not in writer
    }
    counts: Counter = Counter()
    met = _meetings(frames, list(pending), analyser or people_analyser())
    for (i, j), source, target in progress(met, description=clip, total=len(pending)):
        row = pending.pop((i, j))
        reason, pair, measured = judge(source, target, row, settings)
        counts[reason] += 1
        if pair is None:
            writer.reject(row | measured, reason)
        else:
            writer.write(pair, **measured)
    for row in pending.values():  # frames that never came
        counts["unreadable"] += 1
        writer.reject(row, "unreadable")
    return counts


def curate_clips(
    clips: Sequence[Path],
    out: Path,
    settings: CurateSettings,
    *,
    identities: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    analyser: Analyser | None = None,
    progress: Callable[..., Iterable] = progress,
) -> Counter:
    """Turn clips into shards and a manifest in `out`; interrupted, the same call goes on.

    Args:
        clips: Video files, or folders of them; the clips' names without suffix must differ.
        out: Folder of the shards, made if absent; clips may be added to it by later calls.
        settings: The rules; an existing folder must have been made with the same.
        identities: Whose face a clip shows, by clip name; a clip's own name where it is not listed.
        splits: Split by identity; those not listed are trained on.
        analyser: Finds masks, landmarks and counts; MediaPipe and dlib if None.
        progress: Wraps the considered pairs of each clip, called like `dragstudy.progress.progress`.

    Returns:
        How many pairs were considered now for each reason; `""` counts the kept ones.

    Raises:
        ValueError: If two clips have one name, the folder has other settings, or an identity another split.
        FileNotFoundError: If a clip does not exist.
    """
    paths = _named(clips)
    _keep_settings(Path(out), settings)
    analyser = analyser or people_analyser()
    counts: Counter = Counter()
    with ShardWriter(out, settings.pairs_per_shard) as writer:
        places = _places(paths, writer, identities or {}, splits or {})
        for place in places:
            counts += _curate_clip(paths[place["clip"]], place, writer, settings, analyser, progress)
    return counts


def _places(
    paths: Mapping[str, Path], writer: ShardWriter, identities: Mapping[str, str], splits: Mapping[str, str]
) -> list[dict[str, str]]:
    """Clip, identity and split of each clip; an identity keeps the split it has in the folder."""
    held = {row["identity"]: row["split"] for row in writer.rows.values()}
    places = []
    for clip in paths:
        identity = identities.get(clip, clip)
        split = splits.get(identity, held.get(identity, "train"))
        if held.setdefault(identity, split) != split:
            raise ValueError(
                f"identity {identity!r} is in split {held[identity]!r} of {writer.out}, not {split!r}"
            )
        places.append({"clip": clip, "identity": identity, "split": split})
    return places


def _curate_clip(
    path: Path,
    place: dict[str, str],
    writer: ShardWriter,
    settings: CurateSettings,
    analyser: Analyser,
    progress: Callable[..., Iterable],
) -> Counter:
    """Consider the pairs of one clip; a clip that cannot be used at all is one row of the manifest."""
    clip = place["clip"]
    if clip in writer:
        return Counter()
    row = place | {"key": clip, "fps": float(settings.fps), "estimator": settings.estimator}
    try:
        info, count = clip_info(path), len(sampled_times(path, fps=settings.fps))
        reason = "low_bitrate" if info.bits_per_pixel < settings.min_bits_per_pixel else ""
        reason = "too_short" if count < 2 else reason
    except ValueError:
        reason = "unreadable"
    if reason:
        writer.reject(row, reason)
        return Counter({reason: 1})
    generator = np.random.default_rng([settings.seed, *clip.encode()])
    pairs = sample_windows(count, settings.max_interval, settings.pairs_per_clip, generator)
    if all(pair_key(clip, *pair) in writer for pair in pairs):
        return Counter()
    crop, size = _framing(path, settings, analyser)
    frames = (frame for _, _, frame in read_frames(path, fps=settings.fps, size=size, crop=crop))
    details = {"split": place["split"], "fps": settings.fps, "analyser": analyser, "progress": progress}
    return curate_frames(frames, clip, place["identity"], pairs, writer, settings, **details)


def _framing(path: Path, settings: CurateSettings, analyser: Analyser) -> tuple[Crop | None, tuple[int, int]]:
    """The crop of a clip, one for all its frames, and the `(height, width)` it is resized to."""
    frames = sample_frames(path)
    h, w = (
        frames[0].shape[:2] if frames else (settings.size, settings.size)
    )  # nothing decodable: found out later
    if settings.crop == "none":
        width, height = fit_size(w, h, area=settings.size**2, multiple=64)
        return None, (height, width)
    crop = square_crop((h, w), ((w - 1) / 2, (h - 1) / 2), min(h, w))
    faces = [analyser.landmarks(frame) for frame in frames] if settings.crop == "face" else []
    if found := [points for points in faces if points is not None]:
        crop = face_crop((h, w), found)
    elif settings.crop != "centre" and frames:
        crop = mask_crop((h, w), [analyser.mask(frame) for frame in frames])
    return crop, (settings.size, settings.size)


def _named(clips: Sequence[Path]) -> dict[str, Path]:
    """Clips by name, folders replaced by what they hold."""
    paths: dict[str, Path] = {}
    listed = (found for path in map(Path, clips) for found in (find_clips(path) if path.is_dir() else [path]))
    for path in listed:
        name = clip_name(path)
        if not path.is_file():
            raise FileNotFoundError(f"no clip at {path}")
        if name in paths:
            raise ValueError(f"two clips are named {name!r}: {paths[name]} and {path}")
        paths[name] = path
    return paths


def _keep_settings(out: Path, settings: CurateSettings) -> None:
    """Write the settings beside the shards, or compare with those that are there."""
    path = out / SETTINGS
    wanted = asdict(settings)
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        if other := [name for name in wanted if held.get(name) != wanted[name]]:
            given = ", ".join(f"{name}={held.get(name)!r}, not {wanted[name]!r}" for name in other)
            raise ValueError(f"{out} was made with {given}: use another folder or the same settings")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def _meetings(
    frames: Iterable[Frame], pairs: Collection[tuple[int, int]], analyser: Analyser
) -> Iterator[tuple[tuple[int, int], FrameFacts, FrameFacts]]:
    """Each pair with its two frames, as soon as both have come; a frame is held no longer than needed."""
    partners: dict[int, list[tuple[int, int]]] = {}
    last_use: dict[int, int] = {}
    for pair in pairs:
        partners.setdefault(max(pair), []).append(pair)
        for index in pair:
            last_use[index] = max(last_use.get(index, 0), max(pair))
    held: dict[int, FrameFacts] = {}
    wanted = range(max(last_use, default=-1) + 1)
    for index, frame in zip(wanted, frames, strict=False):
        if index in last_use:
            held[index] = FrameFacts(frame, analyser)
        for i, j in partners.get(index, ()):
            yield (i, j), held[i], held[j]
        held = {k: facts for k, facts in held.items() if last_use[k] > index}
