"""Parts of a data set: the first items to train on in a trial, some of all to validate with."""

from torch.utils.data import Dataset, Subset, default_collate

VALIDATION_ITEMS = 32


def first(dataset: Dataset, limit: int) -> Dataset:
    """The first `limit` items; 0 keeps all."""
    return Subset(dataset, range(min(limit, len(dataset)))) if limit else dataset


def collate(dataset: Dataset, count: int = VALIDATION_ITEMS) -> dict:
    """A batch of `count` items spread over the whole set."""
    count = min(count, len(dataset))
    return default_collate([dataset[i * len(dataset) // count] for i in range(count)])
