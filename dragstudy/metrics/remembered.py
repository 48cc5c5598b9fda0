"""Networks that remember what they last saw: many edits of one photograph are measured against the same two
pictures, so that what a network makes of those need not be computed again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from dragstudy.metrics.matching import Features, FeatureSettings


class Remembered(nn.Module):
    """A network of one tensor whose last answers are kept; the same input gives the very same tensors.

    Args:
        network: Anything whose answer depends on its input alone.
        size: How many answers are kept.
    """

    def __init__(self, network: Callable[[Tensor], Any], size: int = 8) -> None:
        super().__init__()
        self.network, self._answers = network, _Answers(size)

    def forward(self, images: Tensor) -> Any:
        """What the network gives."""
        return self._answers.get(_digest(images), lambda: self.network(images))


class RememberedFeatures:
    """`matching.Features` that are kept for the same image, settings and noise.

    Settings that differ only in what a caller does before and after count as the same, and so do prompts
    where the settings use none. The generator ends where it would have without.

    Args:
        features: What reads them.
        size: How many maps are kept.
    """

    def __init__(self, features: Features, size: int = 8) -> None:
        self.features, self._answers = features, _Answers(size)

    def __call__(
        self, image: Tensor, settings: FeatureSettings, *, generator: torch.Generator, prompt: str = ""
    ) -> Tensor:
        """The features of an image, see `matching.Features`."""
        told = prompt if settings.prompt else ""
        read = settings.timestep, settings.up_block, settings.draws, settings.sample_latents, told

        def compute() -> tuple[Tensor, Tensor]:
            found = self.features(image, settings, generator=generator, prompt=prompt)
            return found, generator.get_state()

        found, state = self._answers.get((_digest(image), _digest(generator.get_state()), *read), compute)
        generator.set_state(state)
        return found


class _Answers:
    """The answers that were asked for last."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = compute()
        self.kept.move_to_end(key)
        if len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return self.kept[key]


def _digest(tensor: Tensor) -> tuple[Hashable, ...]:
    held = tensor.detach().cpu().contiguous()
    return held.shape, held.dtype, hashlib.sha256(held.numpy().tobytes()).digest()
