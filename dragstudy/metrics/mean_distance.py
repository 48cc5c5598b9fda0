"""Mean distance: how far what was dragged is from its target, in every published protocol.

All of them look for what lay under the handle by diffusion features (`dragstudy.metrics.matching`), and all
call the result mean distance. They differ in the features, in where they look, in the unit, and in what they
average over; so the same edit has as many mean distances as there are `PROTOCOLS`, and only numbers of one
protocol can be compared. Differs from all of them: the noise comes from each sample's name and not from one
generator for all samples, so a number does not depend on the order in which files are read.

None sees much finer than the features' grid: 8 px of 256 for the shipped backbone, 16 px of 512 for Stable
Diffusion. RegionDrag's and Inpaint4Drag's repeat each cell's features over its pixels and take the first that
fits best, the cell's corner, so that even an untouched image is up to a cell away from |target - handle|.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torchmetrics import Metric

from dragstudy.drags import DragInstruction
from dragstudy.metrics.matching import Features, FeatureSettings, find_points, resize_for

Search = Literal["image", "mask", "around"]
Average = Literal["pairs", "images"]


@dataclass(frozen=True)
class Protocol:
    """One way in which a mean distance is computed.

    Attributes:
        features: How features are read; None for none, which takes every point to have stayed.
        search: Where a point is looked for: in the whole `"image"`, inside the `"mask"` of what may change,
            or in discs `"around"` its handle and its target.
        unit: `"pixels"`, or `"percent"` of the image's width (of x) and height (of y).
        average: Over all `"pairs"` of points at once, or over the means of `"images"`.
        source: Where it was read.
    """

    features: FeatureSettings | None = FeatureSettings()
    search: Search = "image"
    unit: Literal["pixels", "percent"] = "pixels"
    average: Average = "pairs"
    source: str = ""

    def adapt(self, *, timestep: int, up_block: int, side: int) -> "Protocol":
        """The same for another backbone than Stable Diffusion 2.1: where that one sees most, and at its size.

        Args:
            timestep: In 0..999.
            up_block: Index of an up block.
            side: In pixels, instead of 768, for protocols that squash pictures to the backbone's own size.
        """
        if self.features is None:
            return self
        side = self.features.side and side
        return replace(self, features=replace(self.features, timestep=timestep, up_block=up_block, side=side))


_DIFT = FeatureSettings()
_SQUASHED = replace(_DIFT, side=768, interpolation="nearest", sample_latents=False)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "annotation": Protocol(
            features=None, source="|target - handle|: a perfect tracker on the untouched image, a bar"
        ),
        "dragdiffusion": Protocol(source="Shi et al. 2024 with DragBench, run_eval_point_matching.py"),
        "dragdiffusion-per-image": Protocol(
            average="images", source="the same, every image with one weight however many drags it has"
        ),
        "draglora": Protocol(search="mask", source="Xia et al. 2025, m-MD"),
        "dragflow-md1": Protocol(
            replace(_DIFT, prompt=False), "mask", average="images", source="Zhou et al. 2025, MD1"
        ),
        "regiondrag": Protocol(
            _SQUASHED, "around", "percent", "images", source="Lu et al. 2024, evaluator.py"
        ),
        "inpaint4drag": Protocol(
            replace(_SQUASHED, prompt=False),
            "around",
            "percent",
            "images",
            source="Lu and Han 2025; also DragFlow's MD2",
        ),
    }
)


def tiny_protocols() -> dict[str, Protocol]:
    """`PROTOCOLS` for the shipped backbone; notebook 02 chose block and timestep, on generated faces."""
    return {name: p.adapt(timestep=1, up_block=2, side=256) for name, p in PROTOCOLS.items()}


def generator_for(id: str, seed: int = 42) -> torch.Generator:
    """The source of a sample's noise: the same for its name and seed, wherever and whenever it is drawn.

    Example:
        >>> first, again = (torch.rand(2, generator=generator_for("dog")) for _ in range(2))
        >>> torch.equal(first, again)
        True
    """
    digest = hashlib.sha256(f"{seed}/{id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def point_distances(
    source: Float[Tensor, "1 3 h w"],
    edited: Float[Tensor, "1 3 h w"],
    drags: DragInstruction,
    protocol: Protocol,
    features: Features,
    *,
    generator: torch.Generator,
    prompt: str = "",
) -> Float64[np.ndarray, " n"]:
    """How far what lay under each handle is from its target.

    Args:
        source: Image before, in [0, 1].
        edited: Image after, in [0, 1], of the same size.
        drags: In pixels of these images; with a mask, for a protocol that looks inside one.
        protocol: One of `PROTOCOLS`, of `tiny_protocols`, or another.
        features: What reads features, such as `BackboneFeatures.tiny()`.
        generator: Source of the noise, first for the image before; see `generator_for`.
        prompt: Of the image, for protocols that use one.

    Returns:
        One distance a drag, in the protocol's unit; drags of length zero count.

    Raises:
        ValueError: If the images differ in size, the drags lie outside of them, or the protocol needs a mask
            and there is none.
    """
    _check(source, edited, drags, protocol)
    maps = None
    if protocol.features is not None:
        maps = _maps(source, edited, protocol.features, features, generator, prompt)
    return _distances(maps, drags, protocol, tuple(source.shape[-2:]))


def protocol_distances(
    source: Float[Tensor, "1 3 h w"],
    edited: Float[Tensor, "1 3 h w"],
    drags: DragInstruction,
    features: Features,
    *,
    id: str,
    protocols: Mapping[str, Protocol] = PROTOCOLS,
    seed: int = 42,
    prompt: str = "",
) -> dict[str, Float64[np.ndarray, " n"]]:
    """`point_distances` of one edit in several protocols; those that share features compute them once.

    Args:
        source: Image before, in [0, 1].
        edited: Image after, in [0, 1], of the same size.
        drags: In pixels of these images.
        features: What reads features.
        id: Name of the sample, which the noise comes from.
        protocols: By name.
        seed: Of the noise, together with `id`.
        prompt: Of the image.

    Returns:
        By the name of a protocol, one distance a drag; NaN where it looks inside a mask and there is none.
    """
    maps: dict[FeatureSettings | None, tuple[Tensor, Tensor] | None] = {None: None}
    found = {}
    for name, protocol in protocols.items():
        if protocol.search == "mask" and drags.mask is None:
            found[name] = np.full(len(drags.handle_points), np.nan)
            continue
        _check(source, edited, drags, protocol)
        settings = protocol.features
        if settings not in maps:
            maps[settings] = _maps(source, edited, settings, features, generator_for(id, seed), prompt)
        found[name] = _distances(maps[settings], drags, protocol, tuple(source.shape[-2:]))
    return found


def mean_distance(distances: Iterable[Float[np.ndarray, "?n"]], average: Average) -> float:
    """The mean distance of some images, each given by the distances of its drags; NaN where there are none.

    Example:
        >>> images = [np.array([3.0]), np.array([0.0, 1.0, 2.0])]
        >>> mean_distance(images, "pairs"), mean_distance(images, "images")
        (1.5, 2.0)
    """
    metric = MeanDistance(average)
    for one in distances:
        metric.update(torch.from_numpy(np.array(one, dtype=np.float64)))
    return float("nan") if not metric.images else metric.compute().item()


class MeanDistance(Metric):
    """Mean distance of images, over all pairs of points at once or over the images' own means.

    As input to ``forward`` and ``update`` the metric accepts the following input

    - ``distances`` (:class:`~torch.Tensor`): float tensor of shape ``(N,)``, those of one image's drags; NaN
      are left out, and an image that has nothing else

    As output of `forward` and `compute` the metric returns the following output

    - ``mean`` (:class:`~torch.Tensor`): float scalar tensor; NaN before any distance counted

    Args:
        average: `"pairs"`, or `"images"`.
        kwargs: Additional keyword arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If `average` is neither.

    Example:
        >>> metric = MeanDistance("images")
        >>> metric.update(torch.tensor([3.0]))
        >>> metric.update(torch.tensor([0.0, 1.0, 2.0]))
        >>> metric.compute().item()
        2.0
    """

    is_differentiable: bool = False
    higher_is_better: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0

    total: Tensor
    pairs: Tensor
    total_of_means: Tensor
    images: Tensor

    def __init__(self, average: Average = "pairs", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if average not in get_args(Average):
            raise ValueError(f"average must be 'pairs' or 'images', got {average!r}")
        self.average = average
        for name in ("total", "pairs", "total_of_means", "images"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, distances: Tensor) -> None:
        """Add one image's distances."""
        known = distances.flatten().double()
        known = known[~known.isnan()]
        if len(known):
            self.total += known.sum()
            self.pairs += len(known)
            self.total_of_means += known.mean()
            self.images += 1

    def compute(self) -> Tensor:
        """The mean over everything added so far."""
        if self.average == "pairs":
            return self.total / self.pairs
        return self.total_of_means / self.images


def _check(source: Tensor, edited: Tensor, drags: DragInstruction, protocol: Protocol) -> None:
    height, width = source.shape[-2:]
    if source.shape != edited.shape or drags.image_size not in (None, (width, height)):
        raise ValueError(
            "both images and the drags must have one size, got "
            f"{tuple(source.shape)}, {tuple(edited.shape)} and {drags.image_size}"
        )
    if protocol.search == "mask" and (drags.mask is None or not (drags.mask > 0.5).any()):
        raise ValueError("this protocol looks for points inside the mask, and the drags have none")


def _maps(
    source: Tensor,
    edited: Tensor,
    settings: FeatureSettings,
    features: Features,
    generator: torch.Generator,
    prompt: str,
) -> tuple[Tensor, Tensor]:
    """Features of the image before and of the image after."""
    before, after = (
        features(resize_for(settings, image), settings, generator=generator, prompt=prompt)
        for image in (source, edited)
    )
    return before, after


def _distances(
    maps: tuple[Tensor, Tensor] | None, drags: DragInstruction, protocol: Protocol, size: tuple[int, int]
) -> Float64[np.ndarray, " n"]:
    found = drags.handle_points
    if maps is not None:
        region = None
        if protocol.search == "mask":
            region = drags.mask > 0.5
        elif protocol.search == "around":
            region = _around(drags, size)
        options = {"region": region, "interpolation": protocol.features.interpolation}
        found = find_points(*maps, drags.handle_points, size, **options)
    missed = drags.target_points - found
    if protocol.unit == "percent":
        missed = 100 * missed / np.array(size[::-1])
    return np.linalg.norm(missed, axis=1)


def _around(drags: DragInstruction, size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Pixels nearer to handle or target than the drag's length over the root of two, and at least 5 px."""
    y, x = np.mgrid[: size[0], : size[1]]
    radii = np.maximum(np.linalg.norm(drags.displacements, axis=1) / 2**0.5, 5.0)[:, None, None]

    def near(points: np.ndarray) -> np.ndarray:
        return np.hypot(x - points[:, 0, None, None], y - points[:, 1, None, None]) < radii

    return near(drags.handle_points) | near(drags.target_points)
