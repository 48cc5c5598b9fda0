"""Augmentations of whole batches, drawn from an explicit generator."""

import torch
from torch import Tensor


def _uniform(size: int, low: float, high: float, generator: torch.Generator, like: Tensor) -> Tensor:
    draw = torch.rand(size, 1, 1, 1, generator=generator) * (high - low) + low
    return draw.to(like)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image `(b, c, h, w)` with probability one half."""
    flip = _uniform(len(images), 0, 1, generator, images) < 0.5
    return torch.where(flip, images.flip(3), images)


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cut a random square of `size` pixels out of each image `(b, c, h, w)`."""
    h, w = images.shape[-2:]
    if size > min(h, w):
        raise ValueError(f"cannot cut {size} x {size} pixels out of {w} x {h}")
    tops = torch.randint(0, h - size + 1, (len(images),), generator=generator).tolist()
    lefts = torch.randint(0, w - size + 1, (len(images),), generator=generator).tolist()
    crops = zip(images, tops, lefts, strict=True)
    return torch.stack([image[:, y : y + size, x : x + size] for image, y, x in crops])


def augment_colours(images: Tensor, generator: torch.Generator, *, strength: float = 1.0) -> Tensor:
    """Change brightness, contrast, saturation and colour temperature of images `(b, 3, h, w)` in [0, 1].

    Webcams in cool light look unlike the studio portraits of a face generator; this covers both.
    """
    b = len(images)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * _uniform(b, 1 - 0.6 * strength, 1 + 0.3 * strength, generator, images)
    images = 0.5 + (images - 0.5) * _uniform(b, 1 - 0.3 * strength, 1 + 0.15 * strength, generator, images)
    warmth = _uniform(b, -0.12 * strength, 0.12 * strength, generator, images)
    gain = torch.cat([1 + warmth, torch.ones_like(warmth), 1 - warmth], dim=1)
    return (images * gain * _uniform(b, 1 - 0.3 * strength, 1 + 0.15 * strength, generator, images)).clamp(
        0, 1
    )
