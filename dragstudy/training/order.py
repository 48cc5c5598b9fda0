"""Which samples a step of training sees, and what is random in it: both follow from seed and step alone."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """Batches of indices in shuffled epochs, from any step on: the order depends on `seed` alone."""

    def __init__(self, size: int, batch_size: int, seed: int, steps: range):
        if size < 1:
            raise ValueError("the training set is empty")
        self.size, self.batch_size, self.seed, self.steps = size, batch_size, seed, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0)
        for step in self.steps:
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = torch.randperm(self.size, generator=step_generator(self.seed, epoch))
                batch.append(int(order[position % self.size]))
            yield batch


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """A CPU generator for one step of one process, independent of every other step's."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + step) * 1_009 + process) % 2**63)


class ProcessShare:
    """The share of every batch that one of several processes takes."""

    def __init__(self, sampler: StepSampler, process: int, processes: int):
        self.sampler, self.process, self.processes = sampler, process, processes

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.process :: self.processes] for batch in self.sampler)
