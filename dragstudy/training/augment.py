"""Augmentations of whole batches, drawn from an explicit generator."""

import torch
from torch import Tensor

from dragstudy.flow import pixel_grid, sample_at
from dragstudy.landmarks import MIRRORED_LANDMARKS


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


def zoom_out(batch: dict, generator: torch.Generator, *, smallest: float = 0.45, share: float = 0.6) -> dict:
    """Show some pairs from farther away, their lower edge at the picture's: webcams see more than portraits.

    Both frames of a pair shrink alike, to between `smallest` and all of their size, and stand anywhere from
    left to right. What lies beyond them repeats their sides; nobody is above them.
    """
    b, _, h, w = batch["source"].shape
    draw = torch.rand(3, b, generator=generator)
    scale = torch.where(draw[0] < share, smallest + (1 - smallest) * draw[1], 1.0).to(batch["source"])
    offset = torch.stack([w * (1 - scale) * draw[2].to(scale), h * (1 - scale)], dim=1)
    scale, offset = scale.view(-1, 1, 1, 1), offset.view(-1, 2, 1, 1)
    origin = (pixel_grid(h, w).to(scale) + 0.5 - offset) / scale - 0.5
    x, y = origin.split(1, dim=1)
    below = (y >= -0.5).float()
    edge = torch.where(x < w / 2, 0, w - 1)  # above, the sides are repeated: the first row may be hair
    origin = torch.where(y >= -0.5, origin, torch.cat([edge, -y], dim=1))
    zoomed = dict(batch)
    for key in ("source", "target"):
        zoomed[key] = sample_at(batch[key], origin)
    for key in ("mask", "target_mask", "valid"):
        zoomed[key] = (sample_at(batch[key], origin) > 0.5).float() * below
    zoomed["flow"] = sample_at(batch["flow"], origin) * scale
    for key in ("landmarks", "target_landmarks"):
        zoomed[key] = (batch[key] + 0.5) * scale[..., 0] + offset[:, None, :, 0, 0] - 0.5
    return zoomed


def mirror_pairs(batch: dict, generator: torch.Generator) -> dict:
    """Mirror each pair with probability one half: images, masks, flow (x changes sign), landmarks, drags."""
    flip = torch.rand(len(batch["flow"]), generator=generator) < 0.5
    mirrored = dict(batch)
    for key in ("source", "target", "mask", "target_mask", "valid", "flow"):
        value = batch[key]
        mirrored[key] = torch.where(flip.to(value.device).view(-1, 1, 1, 1), value.flip(3), value)
    sign = torch.where(flip, -1.0, 1.0).to(batch["flow"])
    mirrored["flow"] = mirrored["flow"] * torch.stack([sign, torch.ones_like(sign)], dim=1)[:, :, None, None]
    width = batch["source"].shape[-1]
    for key in ("landmarks", "target_landmarks"):
        points = batch[key]
        turned = torch.stack(
            [width - 1 - points[:, MIRRORED_LANDMARKS, 0], points[:, MIRRORED_LANDMARKS, 1]], dim=2
        )
        mirrored[key] = torch.where(flip.to(points.device).view(-1, 1, 1), turned, points)
    for key in {"handle_points", "target_points"} & set(batch):
        x, y = batch[key].unbind(dim=2)
        mirrored[key] = torch.stack([torch.where(flip.to(x.device)[:, None], width - 1 - x, x), y], dim=2)
    return mirrored
