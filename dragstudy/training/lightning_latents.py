"""Latents of LightningDrag's pairs with their drags and masks, computed once before training."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dragstudy.data.composite import composite_background, dilate
from dragstudy.data.pairs import PairDataset
from dragstudy.models.autoencoder import encode
from dragstudy.training.latents import LatentPairs, augment_pairs, fingerprint, load_or_encode
from dragstudy.training.precision import fast_autocast

DRAGS = ("handle_points", "target_points")


class LightningLatents(LatentPairs):
    """LightningDrag's pairs as latents.

    An item is `source_latents` and `target_latents` `(c, h, w)`; `mask` `(1, h, w)` on their grid, 1 where
    something may change; `handle_points` and `target_points` `(max_points, 2)`, x, y in pixels of the image,
    NaN where there are no more. Outside the mask both pictures are the same before they are encoded.
    """


def cached_lightning_latents(
    pairs: PairDataset,
    autoencoder: nn.Module,
    *,
    augmented: bool = True,
    seed: int = 0,
    batch_size: int = 16,
) -> LightningLatents:
    """Encode a set of pairs, or read what an earlier call with the same autoencoder left beside the shards.

    Args:
        pairs: The pairs, opened with `max_points`.
        autoencoder: Encodes them, on its own device.
        augmented: Whether to mirror half of the pairs and to change the colours of all.
        seed: Of the augmentation.
        batch_size: Pairs encoded at once.

    Raises:
        ValueError: If the pairs were opened without room for drag points.
    """
    if not pairs.max_points:
        raise ValueError("LightningDrag's latents need drags: open the pairs with max_points, got 0")
    generator = torch.Generator().manual_seed(seed) if augmented else None

    def encoded(batch: dict) -> dict[str, Tensor]:
        return encode_lightning_pairs(batch, autoencoder, generator=generator)

    name = fingerprint(pairs, autoencoder, augmented, seed, pairs.max_points)
    path = pairs.folder / f"lightning-latents-{name}.safetensors"
    # half precision would move points by up to a sixteenth of a pixel
    tensors = load_or_encode(path, pairs, encoded, batch_size=batch_size, exact=DRAGS)
    return LightningLatents(tensors)


@torch.no_grad()
def encode_lightning_pairs(
    batch: dict, autoencoder: nn.Module, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Encode a collated batch of pairs, see `LightningLatents`; a generator augments them."""
    if generator is not None:
        batch = augment_pairs(batch, generator)
    source, target, mask = editable_pair(batch)
    device = next(autoencoder.parameters()).device
    images = (2 * torch.cat([source, target]) - 1).to(device, memory_format=torch.channels_last)
    with fast_autocast(device):
        source_latents, target_latents = encode(autoencoder, images).float().chunk(2)
    # a latent may change if any of its pixels may
    grid = functional.adaptive_max_pool2d(mask, tuple(source_latents.shape[-2:]))
    latents = {"source_latents": source_latents, "target_latents": target_latents, "mask": grid}
    return latents | {name: batch[name] for name in DRAGS}


def editable_pair(batch: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and mask `(b, 1, h, w)` of a batch: the mask is 1 near what moves in either frame.

    Outside the mask the target shows the source, as a camera without noise and flicker would have seen it:
    pipelines put those pixels back, so training must not ask for others.
    """
    mask = dilate(torch.maximum(batch["mask"], batch["target_mask"]))
    frames, masks = (batch["source"], batch["target"]), (batch["mask"], batch["target_mask"])
    source, target = composite_background(*frames, *masks, approach=2, region="both")
    return source, target, mask
