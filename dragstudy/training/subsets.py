"""Parts of a data set, and pairs at another size: what trials and ablations train on."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, default_collate

from dragstudy.flow import resize_flow
from dragstudy.training.order import step_generator

VALIDATION_ITEMS = 32


def first(dataset: Dataset, limit: int) -> Dataset:
    """The first `limit` items; 0 keeps all."""
    return Subset(dataset, range(min(limit, len(dataset)))) if limit else dataset


def drawn(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`count` items, drawn by the seed; 0 keeps all. Of one seed a smaller part lies within a larger one."""
    return Subset(dataset, drawn_indices(len(dataset), count, seed)) if count else dataset


def drawn_indices(size: int, count: int, seed: int) -> list[int]:
    """Which of `size` items `drawn` takes, in the order in which they are drawn; all for 0."""
    order = torch.randperm(size, generator=step_generator(seed, size)).tolist()
    return order[: count or size]


def collate(dataset: Dataset, count: int = VALIDATION_ITEMS) -> dict:
    """A batch of `count` items spread over the whole set."""
    count = min(count, len(dataset))
    return default_collate([dataset[i * len(dataset) // count] for i in range(count)])


class Resized(Dataset):
    """The items of a `PairDataset` at `size` x `size`: flows and landmarks in pixels of that size too."""

    def __init__(self, pairs: Dataset, size: int):
        if size < 1:
            raise ValueError(f"size must be at least 1 px, got {size}")
        self.pairs, self.size = pairs, size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        return resize_pair(self.pairs[index], self.size)


def resize_pair(item: dict, size: int) -> dict:
    """Bring one item of a `PairDataset` to `size` x `size`; each new pixel is the mean of those under it.

    A mask is set where most of them are; drag points follow like landmarks.
    """
    h, w = item["flow"].shape[-2:]
    resized = dict(item)
    for key in ("source", "target", "mask", "target_mask", "valid"):
        resized[key] = F.interpolate(item[key][None], (size, size), mode="area")[0]
    for key in ("mask", "target_mask", "valid"):
        resized[key] = (resized[key] > 0.5).to(item[key])
    resized["flow"] = resize_flow(item["flow"][None], (size, size), mode="area")[0]
    scale = torch.tensor([size / w, size / h])
    for key in {"landmarks", "target_landmarks", "handle_points", "target_points"} & set(item):
        resized[key] = (item[key] + 0.5) * scale.to(item[key]) - 0.5
    return resized
