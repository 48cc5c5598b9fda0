"""Everything that one edit is measured by, against the photograph (O) and the true edit (E).

InstantDrag's Table 1 gives PSNR, SSIM, LPIPS and CLIP similarity both ways: close to O is what never moved,
close to E what moved rightly. A number that a sample cannot answer (no true edit, no face) is NaN.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dragstudy.data.samples import LANDMARK_SETS
from dragstudy.images import to_tensor
from dragstudy.metrics.distance import landmark_distance
from dragstudy.metrics.fidelity import background_change, image_fidelity, lpips_distance, psnr, ssim
from dragstudy.metrics.generation import InceptionFeatures
from dragstudy.metrics.matching import BackboneFeatures, Features
from dragstudy.metrics.mean_distance import Protocol, generator_for, protocol_distances, tiny_protocols
from dragstudy.metrics.paired import (
    directional_similarity,
    inner_patch_preservation,
    outer_mask_preservation,
    semantic_distance,
)
from dragstudy.metrics.perceptual import lpips_model
from dragstudy.metrics.remembered import Remembered, RememberedFeatures
from dragstudy.metrics.similarity import ClipEmbedding, Embedding, ImgsimEmbedding, image_similarity

if TYPE_CHECKING:
    from dragstudy.data.samples import Sample

FIDELITY_SIZE = 224  # px, of both pictures, in DragBench's evaluator
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Tools:
    """The networks that measure; what is missing leaves its columns out.

    Attributes:
        detector: Face landmarks of a frame `(h, w, 3)`, uint8; None where it finds no face.
        descriptor: From such a frame and its landmarks to a vector that tells people apart.
        lpips: What `lpips_model` gives, by trunk.
        embeddings: By name, see `dragstudy.metrics.similarity`.
        features: What mean distances look for points by.
        protocols: Of mean distances, by name; semantic distance reads features as `"dragdiffusion"` does.
        inception: From images `(b, 3, h, w)` in [0, 1] to features `(b, d)`.
    """

    detector: Callable[[np.ndarray], np.ndarray | None] | None = None
    descriptor: Callable[[np.ndarray, np.ndarray], np.ndarray | None] | None = None
    lpips: Mapping[str, nn.Module] = field(default_factory=dict)
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    features: Features | None = None
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    inception: Callable[[Tensor], Tensor] | None = None


@cache
def all_tools(clip: str = "") -> Tools:
    """All of them, loaded once a process; mean distances by the shipped backbone.

    Args:
        clip: Folder or hub id of a CLIP model, for its similarity beside that of AugNet's ResNet.

    Raises:
        AssetMissing: If an asset was not fetched.
        ValueError: If there is no such CLIP model.
    """
    from dragstudy.data.people import FaceLandmarks
    from dragstudy.metrics.identity import FaceDescriptor

    detector = FaceLandmarks()
    protocols = {}
    for name, protocol in tiny_protocols().items():
        if name == "dragdiffusion-per-image":
            continue  # differs from another in what it averages over: one column is enough
        if protocol.features is not None:  # the shipped autoencoder has no distribution to sample from
            own = replace(protocol.features, sample_latents=False)
            protocol = replace(protocol, features=own)
        protocols[name] = protocol
    lpips = {net: lpips_model(net) for net in ("alex", "vgg")}
    for model in lpips.values():
        model.net = Remembered(model.net)
    embeddings = {"imgsim": ImgsimEmbedding()} | ({"clip": ClipEmbedding(clip)} if clip else {})
    return Tools(
        detector=detector,
        descriptor=FaceDescriptor(detector),
        lpips=lpips,
        embeddings={name: Remembered(embedding) for name, embedding in embeddings.items()},
        features=RememberedFeatures(BackboneFeatures.tiny()),
        protocols=protocols,
        inception=InceptionFeatures(),
    )


@torch.no_grad()
def measure(sample: "Sample", edited: Image.Image, tools: Tools) -> dict[str, float]:
    """All columns of one edit; `_origin` are against the photograph, `_edit` against the true edit.

    Args:
        sample: What was edited.
        edited: The result, of the photograph's size.
        tools: What to measure by.

    Returns:
        By column: both ways `psnr` in dB, `ssim`, `lpips_alex`, `lpips_vgg`, `similarity_imgsim` (`_clip`)
        and `identity_distance`; `fidelity`, 1 - LPIPS to the photograph, both at 224 x 224;
        `landmark_distance_68` and `_17` of the face's landmarks from the true edit's, in pixels;
        `background_change` in grey levels; a `mean_distance_...` of each protocol, the mean over this
        sample's drags; and the metrics of `dragstudy.metrics.paired`, means over its drags where there is one
        value a drag.

    Raises:
        ValueError: If the picture has another size than the photograph.
    """
    if edited.size != sample.image.size:
        raise ValueError(f"an edit must have the photograph's size {sample.image.size}, got {edited.size}")
    image, origin = to_tensor(edited), to_tensor(sample.image)
    found: dict[str, float] = {}
    for name, reference in (("origin", sample.image), ("edit", sample.target)):
        found |= {f"{key}_{name}": value for key, value in _likeness(image, reference, tools).items()}
    if "alex" in tools.lpips:
        found["fidelity"] = image_fidelity(
            image, origin, model=tools.lpips["alex"], size=FIDELITY_SIZE
        ).item()
    found |= _of_the_face(edited, sample, tools)
    person = sample.person
    found["background_change"] = NAN if person is None else background_change(image, origin, person).item()
    if tools.features is not None:
        options = {"id": sample.id, "protocols": tools.protocols, "prompt": sample.prompt}
        distances = protocol_distances(origin, image, sample.drags, tools.features, **options)
        found |= {f"mean_distance_{name}": float(each.mean()) for name, each in distances.items()}
    return found | _by_region(image, sample, tools)


def inception_features(image: Image.Image, tools: Tools) -> np.ndarray | None:
    """What FID and KID are computed from, `(d,)` float32; None without Inception."""
    if tools.inception is None:
        return None
    with torch.no_grad():
        return tools.inception(to_tensor(image))[0].float().cpu().numpy()


def _likeness(image: Tensor, picture: Image.Image | None, tools: Tools) -> dict[str, float]:
    """What compares whole pictures; NaN where there is nothing to compare with."""
    networks = {f"lpips_{net}": model for net, model in tools.lpips.items()}
    embeddings = {f"similarity_{name}": embedding for name, embedding in tools.embeddings.items()}
    if picture is None:
        return dict.fromkeys(("psnr", "ssim", *networks, *embeddings), NAN)
    reference = to_tensor(picture)
    found = {"psnr": psnr(image, reference), "ssim": ssim(image, reference)}
    found |= {name: lpips_distance(image, reference, model=model) for name, model in networks.items()}
    found |= {name: image_similarity(image, reference, one) for name, one in embeddings.items()}
    return {name: value.item() for name, value in found.items()}


def _of_the_face(edited: Image.Image, sample: "Sample", tools: Tools) -> dict[str, float]:
    """Where its landmarks are, and whether it is still the same person's; NaN where no face is found."""
    if tools.detector is None:
        return {}
    frame, found = np.asarray(edited), {}
    seen = tools.detector(frame)
    for name, points in (("68", None), ("17", LANDMARK_SETS[17])):
        distance = NAN
        if sample.target_landmarks is not None:
            targets = np.asarray(sample.target_landmarks, np.float64)
            distance = landmark_distance(frame, targets, lambda _: seen, points=points)
        found[f"landmark_distance_{name}"] = distance
    if tools.descriptor is None:
        return found
    edit = None if seen is None else tools.descriptor(frame, seen)
    for name, picture, known in (
        ("origin", sample.image, sample.landmarks),
        ("edit", sample.target, sample.target_landmarks),
    ):
        there = picture is not None and known is not None
        other = tools.descriptor(np.asarray(picture), np.asarray(known, np.float64)) if there else None
        both = edit is not None and other is not None
        found[f"identity_distance_{name}"] = float(np.linalg.norm(edit - other)) if both else NAN
    return found


def _by_region(image: Tensor, sample: "Sample", tools: Tools) -> dict[str, float]:
    """RealDrag's metrics; NaN where there is no mask, or no true edit."""
    origin, drags, alex = to_tensor(sample.image), sample.drags, tools.lpips.get("alex")
    target = None if sample.target is None else to_tensor(sample.target)
    found: dict[str, Tensor | np.ndarray | float] = {}
    if tools.features is not None:
        options = {"settings": tools.protocols["dragdiffusion"].features, "prompt": sample.prompt}
        options |= {"generator": generator_for(sample.id)}
        found["semantic_distance"] = (
            NAN if target is None else semantic_distance(image, target, drags, tools.features, **options)
        )
    if alex is not None:
        mask = None if drags.mask is None else torch.from_numpy(drags.mask)[None, None]
        found["outer_mask_preservation"] = (
            NAN if mask is None else outer_mask_preservation(image, origin, mask, lpips=alex)
        )
        found["inner_patch_preservation"] = (
            NAN if target is None else inner_patch_preservation(image, target, drags, lpips=alex)
        )
    for name, one in tools.embeddings.items():
        found[f"directional_similarity_{name}"] = (
            NAN if target is None else directional_similarity(image, origin, target, one)
        )
    return {name: value if isinstance(value, float) else float(value.mean()) for name, value in found.items()}
