"""How DragonDiffusion holds an edit to its request: its energies' gradient, its visual cross-attention."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from dragstudy.attention import Exchange
from dragstudy.energies import (
    energy,
    global_similarity,
    inpainting_energy,
    local_similarities,
    local_similarity,
    on_one_grid,
    pick,
    total_energy,
)
from dragstudy.features import unet_features
from dragstudy.inversion import MemoryBank
from dragstudy.pipelines.dragon_settings import DragonSettings
from dragstudy.pipelines.object_masks import Regions

Features = list[Tensor]  # one map (c, h, w) for each block, on one grid
KeysAndValues = dict[str, tuple[Tensor, Tensor]]


class Guidance:
    """The gradient of an edit's energy by its latents, at any step.

    Args:
        unet: The backbone.
        prompts: `(1, tokens, dim)`.
        regions: What is asked for.
        settings: Weights and blocks.
        photograph: The photograph's memory.
        guide: That of the picture that the object is taken from; the photograph's where it is the same.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        prompts: Tensor,
        regions: Regions,
        settings: DragonSettings,
        photograph: MemoryBank,
        guide: MemoryBank,
    ):
        self.unet, self.prompts, self.regions, self.settings = unet, prompts, regions, settings
        self.photograph, self.guide = photograph, guide

    @torch.enable_grad()
    def gradient(self, latents: Tensor, step: int) -> Tensor:
        """Of the energy by the latents of a step, `(1, c, h, w)`, without the learning rate."""
        latents = latents.detach().requires_grad_()
        editing, keeping = self.energies(latents, step)
        if not self.settings.separate_gradients:
            return torch.autograd.grad(editing + keeping, latents)[0]
        by_edit = torch.autograd.grad(editing, latents, retain_graph=True)[0]
        by_rest = torch.autograd.grad(keeping, latents)[0]
        return torch.where(self.regions.inside.to(latents.device), by_edit, by_rest)

    def energies(self, latents: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The two parts of Eq. 7 by where they act: w_e E_edit, and w_c E_content; E_opt is in one of them.

        What an object leaves lies outside of the region that is edited, what a drag leaves inside of it.
        """
        settings, optional = self.settings, []
        with torch.no_grad():
            theirs = self.features(self.guide, step)
            original = theirs if self.guide is self.photograph else self.features(self.photograph, step)
        ours = self.look(latents, self.photograph.levels[step])
        edit, content = edit_energies(ours, theirs, original, self.regions)
        if settings.inpaint_weight or settings.contrast_weight:
            optional = vacated_energies(ours, original, self.regions, settings)
        moves = self.regions.surroundings is not None
        weights = {"edit_weight": settings.edit_weight, "content_weight": settings.content_weight}
        editing = total_energy(edit, [], [] if moves else optional, **weights)
        keeping = total_energy([], content, optional if moves else [], **weights)
        return editing, keeping

    def features(self, bank: MemoryBank, step: int) -> Features:
        """Those of a picture's inverted latents at a step."""
        return self.look(bank.latents[step], bank.levels[step])

    def look(self, latents: Tensor, level: int) -> Features:
        """Features of latents at a noise level, on a grid twice as fine as theirs."""
        blocks = list(self.settings.feature_blocks)
        inputs = latents.to(self.unet.dtype)
        found = unet_features(self.unet, inputs, level, self.prompts, blocks)
        size = 2 * latents.shape[-2], 2 * latents.shape[-1]
        return on_one_grid([found[block] for block in blocks], size, mode=self.settings.feature_interpolation)


def edit_energies(
    ours: Features, theirs: Features, original: Features, regions: Regions
) -> tuple[list[Tensor], list[Tensor]]:
    """Energies of Eq. 5, by block those of all drags, and of Eq. 6, by block."""
    edit = []
    here, there = zip(*regions.matches, strict=True)
    for our, their in zip(ours, theirs, strict=True):
        if regions.whole:
            similarities = global_similarity(pick(our, here[0]), pick(their, there[0]))
        else:
            all_of = pick(our, torch.cat(here)), pick(their, torch.cat(there))
            similarities = local_similarities(*all_of, [len(places) for places in here])
        edit.append(energy(similarities))
    content = [
        energy(local_similarity(pick(our, regions.share), pick(before, regions.share)))
        for our, before in zip(ours, original, strict=True)
    ]
    return edit, content


def vacated_energies(
    ours: Features, original: Features, regions: Regions, settings: DragonSettings
) -> list[Tensor]:
    """Energies of Eq. 9, by block and vacated region; without surroundings only its second term."""
    surroundings = torch.zeros_like(regions.share) if regions.surroundings is None else regions.surroundings
    return [
        inpainting_energy(
            pick(our, places),
            pick(before, places),
            pick(before, surroundings),
            inpaint_weight=settings.inpaint_weight,
            contrast_weight=settings.contrast_weight,
        )
        for our, before in zip(ours, original, strict=True)
        for places in regions.vacated
    ]


def visual_cross_attention(
    photograph: KeysAndValues, guide: KeysAndValues | None, regions: Regions, settings: DragonSettings
) -> Exchange:
    """Eq. 10: queries of the edit, keys and values that a step of the inversion kept.

    Args:
        photograph: Of one step, by layer.
        guide: The same of another picture, if there is one.
        regions: With two pictures, what is looked at of each.
        settings: Whether the edit's own keys and values stay beside them.
    """

    def kept(layer: str, which: int) -> Tensor:
        own = photograph[layer][which]
        if guide is None:
            return own
        other = guide[layer][which]
        if settings.attention_regions:  # [masked background | masked foreground]
            own, other = _masked(own, regions.background), _masked(other, regions.foreground)
        return torch.cat([own, other], dim=1)

    def exchange(layer: str, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [kept(layer, k).to(key).expand(len(key), -1, -1) for k in (0, 1)]
        if settings.visual_attention == "concatenate":
            found = [torch.cat(both, dim=1) for both in zip((key, value), found, strict=True)]
        return query, *found

    return exchange


def _masked(tokens: Tensor, mask: Tensor) -> Tensor:
    """Those of some tokens `(1, n, dim)` of a picture that its mask `(h, w)` covers at least half of."""
    h, w = mask.shape
    side = round((h * w / tokens.shape[1]) ** 0.5)
    covered = F.interpolate(mask[None, None].float(), (h // side, w // side), mode="area").flatten()
    chosen = (covered >= 0.5) | (covered == covered.max())
    return tokens[:, chosen.to(tokens.device)]
