"""Latents of a set of pairs, computed once: the diffusion models then train without decoding a picture."""

import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dragstudy.data.composite import composite_background
from dragstudy.data.pairs import PairDataset
from dragstudy.flow import resize_flow
from dragstudy.models.autoencoder import encode
from dragstudy.models.flowdiffusion import move_and_encode
from dragstudy.progress import progress
from dragstudy.training.augment import augment_colours, mirror_pairs
from dragstudy.training.precision import fast_autocast


class LatentPairs(Dataset):
    """Pairs as latents.

    An item is `source_latents`, `target_latents` and `moved_latents` `(c, h, w)`, `coverage` `(1, h, w)` (see
    `move_and_encode`) and `flow` `(2, h, w)`. The source is the composite condition image of InstantDrag
    Sec. 3.2.3 (exchanging only what is background in both frames: broad motions would leave a ghost of the
    target in it), the flow is masked and in pixels of the latent grid.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[index] for key, value in self.tensors.items()}


def cached_latents(
    pairs: PairDataset,
    autoencoder: nn.Module,
    *,
    approach: int = 1,
    augmented: bool = True,
    seed: int = 0,
    batch_size: int = 16,
) -> LatentPairs:
    """Encode a set of pairs, or read what an earlier call with the same autoencoder left beside the shards.

    Args:
        pairs: The pairs.
        autoencoder: Encodes them, on its own device.
        approach: Background consistency, 1, 2 or 3, see `composite_background`.
        augmented: Whether to mirror half of the pairs and to change the colours of all.
        seed: Of the augmentation.
        batch_size: Pairs encoded at once.
    """
    generator = torch.Generator().manual_seed(seed) if augmented else None

    def encoded(batch: dict) -> dict[str, Tensor]:
        return encode_pairs(batch, autoencoder, approach=approach, generator=generator)

    path = pairs.folder / f"latents-{fingerprint(pairs, autoencoder, approach, augmented, seed)}.safetensors"
    return LatentPairs(load_or_encode(path, pairs, encoded, batch_size=batch_size))


def load_or_encode(
    path: Path,
    pairs: PairDataset,
    encoded: Callable[[dict], dict[str, Tensor]],
    *,
    batch_size: int,
    exact: Collection[str] = (),
) -> dict[str, Tensor]:
    """Encode all pairs, batch by batch, into a file, unless it is there; read it.

    Args:
        path: The file, its name being the fingerprint of all that decides its content.
        pairs: The pairs, in their order.
        encoded: Turns a collated batch into what is kept of it.
        batch_size: Pairs encoded at once.
        exact: What keeps its precision; everything else is stored in half precision.
    """
    if not path.exists():
        parts: dict[str, list[Tensor]] = {}
        for batch in progress(DataLoader(pairs, batch_size), description="latents"):
            for key, value in encoded(batch).items():
                parts.setdefault(key, []).append(value.cpu() if key in exact else value.half().cpu())
        partial = path.with_suffix(".partial")
        save_file({key: torch.cat(values).contiguous() for key, values in parts.items()}, partial)
        os.replace(partial, path)
    return load_file(path)


@torch.no_grad()
def encode_pairs(
    batch: dict, autoencoder: nn.Module, *, approach: int = 1, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Encode a collated batch of pairs, see `LatentPairs`.

    With a generator half of the pairs are mirrored, and both frames of a pair change their colours alike.
    """
    if generator is not None:
        batch = augment_pairs(batch, generator)
    frames, masks = (batch["source"], batch["target"]), (batch["mask"], batch["target_mask"])
    condition, target = composite_background(*frames, *masks, approach=approach, region="both")
    device = next(autoencoder.parameters()).device
    condition, target, flow = (x.to(device) for x in (condition, target, batch["flow"] * batch["mask"]))
    with fast_autocast(device):
        images = (2 * torch.cat([condition, target]) - 1).contiguous(memory_format=torch.channels_last)
        source_latents, target_latents = encode(autoencoder, images).float().chunk(2)
        moved_latents, coverage = move_and_encode(autoencoder, 2 * condition - 1, flow)
    return {
        "source_latents": source_latents,
        "target_latents": target_latents,
        "moved_latents": moved_latents.float(),
        "coverage": coverage,
        "flow": resize_flow(flow, tuple(source_latents.shape[-2:]), mode="area"),
    }


def augment_pairs(batch: dict, generator: torch.Generator) -> dict:
    """Mirror half of the pairs of a collated batch, and change the colours of all, of both frames alike."""
    batch = mirror_pairs(batch, generator)
    frames = torch.cat([batch["source"], batch["target"]], dim=2)  # one picture, so that both change alike
    source, target = augment_colours(frames, generator, strength=0.7).chunk(2, dim=2)
    return {**batch, "source": source, "target": target}


def fingerprint(pairs: PairDataset, autoencoder: nn.Module, *known: int) -> str:
    """A name for the latents of these pairs: of their keys, the autoencoder's weights and other settings."""
    digest = hashlib.sha256(repr((list(pairs.manifest["key"]), known)).encode())
    for value in autoencoder.state_dict().values():
        digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
