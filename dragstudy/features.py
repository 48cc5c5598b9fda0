"""What a U-Net makes of a picture inside: feature maps of its blocks, read by hooks that leave no trace.

A block goes by its name in the network, such as `"mid_block"` or `"up_blocks.1"`. The papers' codes count:

| here | DIFT | DragDiffusion | DragonDiffusion |
|---|---|---|---|
| `mid_block` | | 0 | |
| `up_blocks.k` | k | k + 1 | k |
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:  # importing diffusers takes seconds, and first needs dragstudy._torchvision
    from diffusers import SchedulerMixin, UNet2DConditionModel


@contextmanager
def watch(network: nn.Module, blocks: Sequence[str], *, stop: bool = False) -> Iterator[dict[str, Tensor]]:
    """Keep what some blocks of a network put out.

    The dictionary that is given fills as the network runs inside the `with`; a second run overwrites the
    first. Gradients pass through what is kept. The hooks are gone after the `with`, however it ends.

    Args:
        network: A `UNet2DConditionModel`, or any module.
        blocks: Names of modules in it, as in `named_modules()`. Of an output of several tensors (a down block
            also gives its skips) the first is kept.
        stop: Leave the `with` as soon as every block has answered: later layers do not run, and neither do
            later lines of the `with`.

    Raises:
        ValueError: If there are no blocks, or the network has none of that name.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 1))
        >>> with watch(network, ["1"], stop=True) as features:
        ...     _ = network(torch.zeros(3, 2, 2))
        >>> tuple(features["1"].shape)
        (3, 2)
    """
    modules = _find(network, blocks)
    features: dict[str, Tensor] = {}
    complete = _Complete()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            features[name] = output[0] if isinstance(output, tuple) else output
            if stop and len(features) == len(modules):
                raise complete

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield features
    except _Complete as raised:
        if raised is not complete:  # another `watch` around this one has all that it wants
            raise
        raised.__traceback__ = None  # its frames would keep the network's tensors until the next collection
    finally:
        for handle in handles:
            handle.remove()


def unet_features(
    unet: "UNet2DConditionModel",
    latents: Float[Tensor, "b c h w"],
    timestep: Tensor | int,
    prompt_embeds: Float[Tensor, "b tokens dim"],
    blocks: Sequence[str],
    **inputs: Any,
) -> dict[str, Tensor]:
    """Feature maps of some blocks for one pass through the U-Net, which ends after the last of them.

    Args:
        unet: Any `UNet2DConditionModel`.
        latents: Its input: noisy latents, and condition channels if it has some.
        timestep: In 0..999, one for all or `(b,)`.
        prompt_embeds: The null prompt, or a text's embedding; one row serves all images.
        blocks: Names of blocks.
        inputs: Further arguments of the U-Net's `forward`.

    Returns:
        By the name of a block, its output `(b, c', h', w')`. An up block's output is after its upsampling, so
        it has the grid of the next block. Gradients reach `latents` unless they are switched off.

    Raises:
        ValueError: If the U-Net has no such block, or a block did not run.
    """
    prompts = prompt_embeds.expand(len(latents), -1, -1)
    with watch(unet, blocks, stop=True) as features:
        unet(latents, timestep, prompts, **inputs)
        # only a block that never ran lets the U-Net reach its end
        raise ValueError(f"of the blocks {list(blocks)} only {list(features)} ran")
    return features


@torch.no_grad()
def diffusion_features(
    unet: "UNet2DConditionModel",
    latents: Float[Tensor, "b c h w"],
    prompt_embeds: Float[Tensor, "b tokens dim"],
    scheduler: "SchedulerMixin",
    *,
    generator: torch.Generator,
    blocks: Sequence[str] = ("up_blocks.1",),
    timestep: int = 261,
    draws: int = 8,
) -> dict[str, Tensor]:
    """Features of pictures by which parts of one are found in another (DIFT, Tang et al. 2023, Sec. 4.2).

    Noise of one timestep is added to the latents, the U-Net looks at them, and the feature maps are averaged
    over a few draws of the noise. The defaults are DragBench's, for Stable Diffusion 2.1. Every picture and
    draw has noise of its own: noise that two pictures share would match where it lies, not what they show.

    Args:
        unet: The backbone.
        latents: Scaled latents without noise.
        prompt_embeds: The null prompt, or a text's embedding; one row serves all images.
        scheduler: Its `alphas_cumprod` is the noise schedule.
        generator: Source of the noise.
        blocks: Names of blocks.
        timestep: In 0..999: early ones keep what is where, late ones what it is.
        draws: Draws of the noise.

    Returns:
        By the name of a block, features `(b, c', h', w')`.
    """
    alpha_bar = scheduler.alphas_cumprod[timestep].to(latents)
    total: dict[str, Tensor] = {}
    for _ in range(draws):
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
        features = unet_features(unet, noisy, timestep, prompt_embeds, blocks)
        total = {name: total.get(name, 0) + feature / draws for name, feature in features.items()}
    return total


class _Complete(Exception):
    """Every watched block has answered."""


def _find(network: nn.Module, blocks: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(network.named_modules())
    unknown = [name for name in blocks if not name or name not in modules]
    if unknown or not blocks:
        known = ", ".join(name for name in modules if "block" in name and name.count(".") < 2)
        raise ValueError(f"blocks must be modules of the network, such as {known}; got {list(blocks)}")
    return {name: modules[name] for name in blocks}
