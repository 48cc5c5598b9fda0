"""Faces in motion: one generated identity, several poses and expressions.

The generator is the MobileStyleGAN inside the asset `random-face`: `z -> w -> image`. Moving `w` along a
direction that changes one landmark measurement (yaw, pitch, mouth, smile, eyes) and none of the others moves
the face a little and leaves its surroundings almost alone, which is what a pair of video frames would show.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from dragstudy import assets
from dragstudy.data.people import FaceLandmarks

ATTRIBUTES = ("yaw", "pitch", "mouth", "smile", "eyes")
LATENT_SIZE = 512
SHIPPED_DIRECTIONS = Path(__file__).resolve().parents[2] / "data" / "weights" / "face-directions.safetensors"


class FaceGenerator:
    """The face generator of the asset `random-face`, run by OpenVINO.

    Args:
        precision: `"f32"` gives the same picture on every machine; `"bf16"` is about three times as fast on
            CPUs that know it (OpenVINO would take it silently), at differences of a few grey levels.
        threads: 0 takes all cores.
    """

    def __init__(self, precision: str = "f32", threads: int = 0):
        import openvino

        core = openvino.Core()

        def compiled(name: str, hint: str):
            model = assets.locate("random-face", f"{name}.xml")
            options = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,  # else the processes of a pool all sit on the first core
            }
            return core.compile_model(str(model), "CPU", options)

        self._mapping = compiled("MappingNetwork", "f32")
        self._synthesis = compiled("SynthesisNetwork", precision)
        rng = np.random.default_rng(0)
        self.mean_style = self.styles(rng.standard_normal((2048, LATENT_SIZE))).mean(axis=0)

    def styles(self, z: np.ndarray) -> np.ndarray:
        """Map Gaussian codes `(n, 512)` to styles `w`, `(n, 512)` float32."""
        return np.concatenate([self._mapping(row[None].astype(np.float32))[0] for row in z])

    def truncate(self, style: np.ndarray, truncation: float) -> np.ndarray:
        """Pull styles towards the mean face: 0 is the mean face, 1 leaves them (truncation trick)."""
        return self.mean_style + truncation * (style - self.mean_style)

    def image(self, style: np.ndarray, size: int = 256) -> np.ndarray:
        """Draw one style `(512,)` as uint8 RGB `(size, size, 3)`, area-averaged down from 1024 px."""
        full = self._synthesis(style[None].astype(np.float32))[0][0]
        full = np.clip((full.transpose(1, 2, 0) + 1) * 127.5, 0, 255)
        return np.round(cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def measure_attributes(landmarks: np.ndarray) -> np.ndarray:
    """Five scale-free measurements of a face from its 68 landmarks, in the order of `ATTRIBUTES`.

    Args:
        landmarks: dlib's points, `(68, 2)`, x, y in pixels.

    Returns:
        `(5,)`: nose tip left or right of the jaw's middle, nose tip below the eyes relative to eyes-chin,
        inner lip gap, mouth width, and eye opening; all but the second in units of the eye distance.
    """
    left_eye, right_eye = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes = (left_eye + right_eye) / 2
    unit = np.linalg.norm(right_eye - left_eye)
    jaw_middle = (landmarks[2] + landmarks[14]) / 2
    eye_gap = (landmarks[[40, 41, 46, 47], 1].mean() - landmarks[[37, 38, 43, 44], 1].mean()) / unit
    return np.array(
        [
            (landmarks[30, 0] - jaw_middle[0]) / unit,
            (landmarks[30, 1] - eyes[1]) / (landmarks[8, 1] - eyes[1]),
            (landmarks[66, 1] - landmarks[62, 1]) / unit,
            (landmarks[54, 0] - landmarks[48, 0]) / unit,
            eye_gap,
        ]
    )


@dataclass(frozen=True)
class AttributeDirections:
    """Directions in style space, each changing one attribute and, to first order, no other.

    Attributes:
        vectors: `(5, 512)`; adding `vectors[k]` changes attribute k by one standard deviation, as far as
            the regression is right.
        deviations: `(5,)` that standard deviation over random faces, in the units of `measure_attributes`.
        correlations: `(5,)` correlation of prediction and measurement on faces kept out of the fit.
    """

    vectors: np.ndarray
    deviations: np.ndarray
    correlations: np.ndarray


def fit_directions(
    generator: FaceGenerator,
    *,
    num_faces: int = 400,
    truncation: float = 0.8,
    ridge: float = 30.0,
    seed: int = 0,
) -> AttributeDirections:
    """Find the attribute directions by ridge regression of landmark measurements on styles.

    The rows of the regression `A (5, 512)` overlap (an open mouth also widens the smile's measure). Its
    pseudo-inverse decouples them: `A @ pinv(A) = I`, so each column moves one attribute alone.

    Args:
        generator: The face generator.
        num_faces: Random faces measured; a fifth of them is kept out of the fit to report correlations.
        truncation: Truncation of those faces.
        ridge: Weight of the squared norm, in units of styles with unit variance.
        seed: Seed of the random faces.
    """
    rng = np.random.default_rng(seed)
    styles = generator.truncate(generator.styles(rng.standard_normal((num_faces, LATENT_SIZE))), truncation)
    detect = FaceLandmarks()
    found = [(style, detect(generator.image(style))) for style in styles]
    kept = [(style, measure_attributes(points)) for style, points in found if points is not None]
    x = np.stack([style for style, _ in kept]).astype(np.float64) - generator.mean_style
    y = np.stack([values for _, values in kept])
    deviations = y.std(axis=0)
    y = (y - y.mean(axis=0)) / deviations
    spread = x.std()
    x, train = x / spread, np.arange(len(x)) >= len(x) // 5
    gram = x[train].T @ x[train] + ridge * np.eye(LATENT_SIZE)
    weights = np.linalg.solve(gram, x[train].T @ y[train]).T  # A, (5, 512)
    predicted = x[~train] @ weights.T
    correlations = np.array(
        [np.corrcoef(predicted[:, k], y[~train, k])[0, 1] for k in range(len(ATTRIBUTES))]
    )
    return AttributeDirections(np.linalg.pinv(weights).T * spread, deviations, correlations)


def sample_motion(num_frames: int, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """Draw attribute offsets for the frames of one identity, `(num_frames, 5)` in standard deviations.

    Each frame moves one to three attributes: most motions in a talking head are partial. Head turns are kept
    smaller than expressions, because the background follows the head when it turns far.
    """
    limits = strength * np.array([1.1, 0.9, 1.6, 1.3, 1.3])
    offsets = rng.uniform(-1, 1, (num_frames, len(ATTRIBUTES))) * limits
    order = rng.random((num_frames, len(ATTRIBUTES))).argsort(axis=1)
    active = order < rng.integers(1, 4, (num_frames, 1))
    return offsets * active


def generate_identity(
    generator: FaceGenerator,
    directions: AttributeDirections,
    seed: int,
    *,
    num_frames: int = 7,
    size: int = 256,
    strength: tuple[float, float] = (0.6, 1.4),
) -> list[np.ndarray]:
    """Draw one identity in motion: `num_frames` uint8 RGB `(size, size, 3)`; `seed` decides all.

    The strength of its motion is drawn between the two of `strength`: up to 1.4 is talk, above 2 are
    grimaces.
    """
    rng = np.random.default_rng([seed, 1])
    style = generator.truncate(
        generator.styles(rng.standard_normal((1, LATENT_SIZE)))[0], rng.uniform(0.6, 0.8)
    )
    offsets = sample_motion(num_frames, rng, strength=rng.uniform(*strength))
    return [generator.image(style + offset @ directions.vectors, size) for offset in offsets]


def save_identities(
    out: Path, identities: Sequence[int], *, precision: str = "f32", **drawing: Any
) -> Iterator[int]:
    """Write identities as `out/00012/3.jpg`, one on each core, and yield each seed as its folder is complete.

    `drawing` goes to `generate_identity`. Folders that exist are complete (they are renamed into place) and
    are skipped, so an interrupted run goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in identities if not (out / f"{seed:05d}").exists()]
    if missing:
        # a network this small keeps two processes busier than two threads
        workers = ProcessPoolExecutor(
            min(len(missing), os.cpu_count() or 1), multiprocessing.get_context("spawn")
        )
        with workers as pool:
            yield from pool.map(partial(_save_identity, out, precision, drawing), missing)


def _save_identity(out: Path, precision: str, drawing: Mapping[str, Any], seed: int) -> int:
    generator, directions = _drawer(precision)
    unfinished = out / f"{seed:05d}.partial"
    unfinished.mkdir(exist_ok=True)
    for k, frame in enumerate(generate_identity(generator, directions, seed, **drawing)):
        Image.fromarray(frame).save(unfinished / f"{k}.jpg", quality=95)
    os.replace(unfinished, out / f"{seed:05d}")
    return seed


@cache
def _drawer(precision: str) -> tuple[FaceGenerator, AttributeDirections]:
    """The generator of this process and its directions, made once."""
    return FaceGenerator(precision, threads=1), load_directions()


def save_directions(directions: AttributeDirections, path: Path) -> None:
    """Write directions as safetensors."""
    save_file({name: np.ascontiguousarray(value) for name, value in vars(directions).items()}, path)


def load_directions(path: Path = SHIPPED_DIRECTIONS) -> AttributeDirections:
    """Read directions; by default those in this repository (see the card in `data/weights`)."""
    return AttributeDirections(**load_file(path))
