"""Latents of a set of pairs, computed once: the diffusion models then train without decoding a picture."""

import hashlib
import os

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dragstudy.data.composite import composite_background
from dragstudy.data.pairs import PairDataset
from dragstudy.flow import resize_flow
from dragstudy.models.autoencoder import encode
from dragstudy.progress import progress


class LatentPairs(Dataset):
    """Pairs as latents; an item is `source_latents` and `target_latents` `(c, h, w)` and `flow` `(2, h, w)`.

    The source is the composite condition image of InstantDrag Sec. 3.2.3 (exchanging only what is background
    in both frames: broad motions would leave a ghost of the target in it), the flow is masked and in pixels
    of the latent grid. Every pair stands twice in the set, the second time mirrored.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["flow"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[index] for key, value in self.tensors.items()}


def cached_latents(
    pairs: PairDataset,
    autoencoder: nn.Module,
    *,
    approach: int = 1,
    mirrored: bool = True,
    batch_size: int = 16,
) -> LatentPairs:
    """Encode a set of pairs, or read what an earlier call with the same autoencoder left beside the shards.

    Args:
        pairs: The pairs.
        autoencoder: Encodes them, on its own device.
        approach: Background consistency, 1, 2 or 3, see `composite_background`.
        mirrored: Whether to add the mirror image of each pair.
        batch_size: Pairs encoded at once.
    """
    path = pairs.folder / f"latents-{_fingerprint(pairs, autoencoder, approach, mirrored)}.safetensors"
    if not path.exists():
        parts: dict[str, list[Tensor]] = {"source_latents": [], "target_latents": [], "flow": []}
        for batch in progress(DataLoader(pairs, batch_size), description="latents"):
            for flip in (False, True) if mirrored else (False,):
                for key, value in encode_pairs(batch, autoencoder, approach=approach, flip=flip).items():
                    parts[key].append(value.half().cpu())
        partial = path.with_suffix(".partial")
        save_file({key: torch.cat(values).contiguous() for key, values in parts.items()}, partial)
        os.replace(partial, path)
    return LatentPairs(load_file(path))


@torch.no_grad()
def encode_pairs(
    batch: dict, autoencoder: nn.Module, *, approach: int = 1, flip: bool = False
) -> dict[str, Tensor]:
    """Encode a collated batch of pairs: composite condition, target, masked flow on the latent grid."""
    frames, masks = (batch["source"], batch["target"]), (batch["mask"], batch["target_mask"])
    condition, target = composite_background(*frames, *masks, approach=approach, region="both")
    flow = batch["flow"] * batch["mask"]
    if flip:
        condition, target, flow = (
            condition.flip(3),
            target.flip(3),
            flow.flip(3) * flow.new_tensor([[[[-1]], [[1]]]]),
        )
    device = next(autoencoder.parameters()).device
    images = 2 * torch.cat([condition, target]).to(device) - 1
    with torch.autocast(device.type, torch.bfloat16):
        latents = encode(autoencoder, images.contiguous(memory_format=torch.channels_last)).float()
    source_latents, target_latents = latents.chunk(2)
    flow = resize_flow(flow.to(device), tuple(latents.shape[-2:]), mode="area")
    return {"source_latents": source_latents, "target_latents": target_latents, "flow": flow}


def _fingerprint(pairs: PairDataset, autoencoder: nn.Module, approach: int, mirrored: bool) -> str:
    digest = hashlib.sha256(repr((list(pairs.manifest["key"]), approach, mirrored)).encode())
    for value in autoencoder.state_dict().values():
        digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
