"""Generated faces of people nobody was trained on, from one pose to another (as DragonDiffusion's Table 1).

The paper drags 800 CelebA-HQ faces by their landmarks; here the generator of `dragstudy.data.faces` draws a
person in two poses, so that the true edit is known. A face of the manifest is a seed, which decides the
person, and two poses along the directions of `faces.ATTRIBUTES`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from filelock import FileLock

from dragstudy import assets
from dragstudy.data.estimators import estimate_flow
from dragstudy.data.faces import LATENT_SIZE, AttributeDirections, FaceGenerator, load_directions
from dragstudy.data.frames import FrameFacts, consistent, people_analyser
from dragstudy.data.pairs import Pair, decode_pair, encode_pair, split_members
from dragstudy.data.samples import Sample, frozen_manifest, place_of, sample_of_pair
from dragstudy.data.shards import tar_members
from dragstudy.metrics.identity import FaceDescriptor

SEEDS = range(5000, 6000)  # far from those of `recipes.IDENTITIES`
FACES = 100
SIZE = 256
POSE_LIMITS = (1.8, 1.4, 1.6, 1.3, 1.3)  # standard deviations, in the order of `faces.ATTRIBUTES`
LEAST_MOTION = 2.5  # pixels that the landmarks move by on average
FARTHEST_IDENTITY = 0.4  # of dlib's descriptors in both poses; the generator's people change as they turn far


@dataclass(frozen=True, eq=False)
class FaceBenchmark:
    """The frozen faces; each is drawn when it is first asked for, in a second, and kept in the cache folder.

    Attributes:
        name: Name, of which the number of points is a part.
        ids: Ids in the manifest's order.
        points: How many landmarks are dragged, see `samples.LANDMARK_SETS`.
    """

    name: str
    ids: tuple[str, ...]
    points: int = 68

    def sample(self, id: str) -> Sample:
        """Load one sample; its flow is not known.

        Raises:
            ValueError: If there is none of this id, or no face is found in what is drawn.
            AssetMissing: If the generator or a detector was not fetched.
        """
        place_of(self.ids, id, self.name)
        rows = {row["id"]: row for row in frozen_manifest("faces-68")["faces"]}
        return sample_of_pair(cached_face(rows[id]), self.points, known_flow=False)


def cached_face(row: Mapping[str, Any]) -> Pair:
    """The pair of one row of the manifest, from the cache folder; drawn if it is not there."""
    wanted = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:8]
    path = assets.cache_dir() / "benchmarks" / "faces-68" / f"{row['id']}-{wanted}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            pair = draw_face(row)
            if fault := fault_of(pair):
                raise ValueError(
                    f"{row['id']} cannot be used here: {fault}; install the versions in constraints.txt"
                )
            partial = path.with_suffix(".part")
            partial.write_bytes(tar_members(encode_pair(pair), row["id"]))
            os.replace(partial, path)
    return decode_pair(row["id"], split_members(path.read_bytes()))


def draw_face(row: Mapping[str, Any]) -> Pair:
    """Draw both poses of a row and find what there is in them."""
    generator, directions = _generator()
    style = _style(generator, row["seed"], row["truncation"])
    drawn = [generator.image(style + np.array(row[end]) @ directions.vectors, SIZE) for end in _ENDS]
    source, target = (FrameFacts(frame, people_analyser()) for frame in drawn)
    forward, backward = estimate_flow(*drawn), estimate_flow(*drawn[::-1])
    counts = {"faces": [source.faces, target.faces], "hands": [source.hands, target.hands]}
    return Pair(
        row["id"], *drawn, source.mask, target.mask, forward, consistent(forward, backward),
        landmarks=source.landmarks, target_landmarks=target.landmarks, info=counts,
    )  # fmt: skip


def fault_of(pair: Pair) -> str:
    """Why a drawn pair cannot be used; nothing if it can."""
    if pair.info["faces"] != [1, 1] or pair.info["hands"] != [0, 0]:
        return "there must be one face and no hand in each pose"
    if pair.landmarks is None or pair.target_landmarks is None:
        return "dlib finds no face in one of the poses"
    both = np.concatenate([pair.landmarks, pair.target_landmarks])
    if not ((both >= 0) & (both <= SIZE - 1)).all():
        return "a landmark lies outside of the picture"
    if mean_motion(pair) < LEAST_MOTION:
        return f"the landmarks move by less than {LEAST_MOTION} px"
    return ""


def mean_motion(pair: Pair) -> float:
    """How far the landmarks of a pair lie apart on average, in pixels."""
    return float(np.linalg.norm(pair.landmarks - pair.target_landmarks, axis=1).mean())


def choose_faces(seeds: Iterable[int] = SEEDS) -> Iterator[dict[str, Any]]:
    """Rows of the manifest: the seeds whose faces can be used, in their order.

    The manifest holds the first `FACES` of them. A row has the person's `seed` and `truncation`, the poses
    `source` and `target`, and to compare with `motion`, the mean motion of the landmarks in pixels, and
    `identity`, the distance of dlib's descriptors.
    """
    describe = FaceDescriptor(people_analyser().landmarks)
    for seed in seeds:
        chance = np.random.default_rng([seed, 3])
        truncation = round(chance.uniform(0.6, 0.8), 3)
        poses = np.round(chance.uniform(-1, 1, (2, len(POSE_LIMITS))) * POSE_LIMITS, 2).tolist()
        row = {"id": f"face-{seed:05d}", "seed": seed, "truncation": truncation}
        row |= dict(zip(_ENDS, poses, strict=True))
        pair = draw_face(row)
        if fault_of(pair):
            continue
        both = (pair.source, pair.landmarks), (pair.target, pair.target_landmarks)
        identity = float(np.linalg.norm(np.subtract(*(describe(*one) for one in both))))
        if identity <= FARTHEST_IDENTITY:
            yield row | {"motion": round(mean_motion(pair), 2), "identity": round(identity, 2)}


_ENDS = ("source", "target")


@cache
def _generator() -> tuple[FaceGenerator, AttributeDirections]:
    return FaceGenerator("f32"), load_directions()  # f32: the same picture on every machine


def _style(generator: FaceGenerator, seed: int, truncation: float) -> np.ndarray:
    codes = np.random.default_rng([seed, 1]).standard_normal((1, LATENT_SIZE))
    return generator.truncate(generator.styles(codes)[0], truncation)
