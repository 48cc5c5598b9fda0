"""Edits against the true edit, region by region: the four metrics that RealDrag names (arXiv 2512.12287).

Reconstructed: of that paper only the abstract could be read. It names semantical distance (SeD), outer mask
preserving score (OMPS), inner patch preserving score (IPPS) and directional similarity (DiS), and says that
they tell pixel-level matching, what lies outside of the mask, and agreement with the desired task, given the
true edit. Each function says exactly what it computes; its numbers are not to be set beside RealDrag's.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy.drags import DragInstruction
from dragstudy.metrics.fidelity import image_fidelity
from dragstudy.metrics.matching import Features, FeatureSettings, find_points, resize_for
from dragstudy.metrics.similarity import Embedding

PATCH = 64  # side of the squares that are compared, px
_DIFT = FeatureSettings()


def semantic_distance(
    edited: Float[Tensor, "1 3 h w"],
    target: Float[Tensor, "1 3 h w"],
    drags: DragInstruction,
    features: Features,
    *,
    generator: torch.Generator,
    settings: FeatureSettings = _DIFT,
    prompt: str = "",
) -> Float64[np.ndarray, " n"]:
    """How far from each target what the true edit shows there is found in the edited image, in pixels.

    Like DragBench's mean distance, but what is sought is what should have arrived, as the true edit shows it,
    and not what lay under the handle before it moved: a mouth that opens need not look as it did closed. The
    true edit itself has distance 0, and the untouched image about the length of the drag.

    Args:
        edited: Edited image, in [0, 1].
        target: The true edit, in [0, 1], of the same size.
        drags: In pixels of these images; only the target points count.
        features: What reads features, such as `BackboneFeatures.tiny()`.
        generator: Source of the noise, first for the true edit.
        settings: How features are read; the defaults are DragBench's.
        prompt: Of the image, for settings that use one.

    Returns:
        One distance a drag, shape `(n,)`.
    """
    wanted, given = (
        features(resize_for(settings, image), settings, generator=generator, prompt=prompt)
        for image in (target, edited)
    )
    points, size = drags.target_points, tuple(target.shape[-2:])
    found = find_points(wanted, given, points, size, interpolation=settings.interpolation)
    return np.linalg.norm(found - points, axis=1)


def outer_mask_preservation(
    edited: Float[Tensor, "b 3 h w"],
    source: Float[Tensor, "b 3 h w"],
    mask: Float[Tensor, "b 1 h w"],
    *,
    lpips: nn.Module | None = None,
    size: int | None = 224,
) -> Float[Tensor, " b"]:
    """Image fidelity outside of the mask, `(b,)`, at most 1: 1 - LPIPS with the inside grey in both images.

    This is what DragFlow's evaluator calls background fidelity (IF_bg). The grey counts as preserved, so the
    larger the mask, the nearer to 1: numbers of one set of masks can be compared.

    Args:
        edited: Edited images, in [0, 1].
        source: The photographs, in [0, 1].
        mask: Above 0.5 where the image may change.
        lpips: What `lpips_model` gives; AlexNet by default.
        size: Side that both are brought to first, as in `lpips_distance`.
    """
    outside = (mask <= 0.5).to(edited)
    images = (0.5 + (image - 0.5) * outside for image in (edited, source))
    return image_fidelity(*images, model=lpips, size=size)


def inner_patch_preservation(
    edited: Float[Tensor, "1 3 h w"],
    target: Float[Tensor, "1 3 h w"],
    drags: DragInstruction,
    *,
    lpips: nn.Module | None = None,
    side: int = PATCH,
) -> Float[Tensor, " n"]:
    """Image fidelity around each target point, against the true edit, `(n,)`: 1 where the squares are equal.

    1 - LPIPS of the square around the target in the edited image and in the true edit. Near the border the
    square is moved inwards.

    Args:
        edited: Edited image, in [0, 1].
        target: The true edit, in [0, 1], of the same size.
        drags: In pixels of these images; only the target points count.
        lpips: What `lpips_model` gives; AlexNet by default.
        side: Of the squares in pixels, at least 32.

    Raises:
        ValueError: If the images are smaller than a square.
    """
    h, w = target.shape[-2:]
    if min(h, w) < side:
        raise ValueError(f"squares of {side} px do not fit into an image of {w}x{h}")
    corners = np.floor(drags.target_points + 0.5).astype(int) - side // 2
    corners = np.clip(corners, 0, (w - side, h - side))
    patches = (
        torch.cat([image[..., y : y + side, x : x + side] for x, y in corners]) for image in (edited, target)
    )
    return image_fidelity(*patches, model=lpips)


def directional_similarity(
    edited: Float[Tensor, "b 3 h w"],
    source: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    embedding: Embedding,
) -> Float[Tensor, " b"]:
    """Whether the edit changed what the image shows in the direction in which it should, `(b,)` in [-1, 1].

    The cosine between the way from the photograph to the edited image and the way from it to the true edit,
    in the space of an image embedding (StyleGAN-NADA's directional CLIP score, with the true edit in place of
    a text). The true edit has 1; an untouched image has no direction, and 0.

    Args:
        edited: Edited images, in [0, 1].
        source: The photographs, in [0, 1].
        target: The true edits, in [0, 1].
        embedding: As in `dragstudy.metrics.similarity`.
    """
    start = embedding(source)
    return F.cosine_similarity(embedding(edited) - start, embedding(target) - start, dim=1)
