"""Where points are dragged from and to, as embeddings for each self-attention layer of a U-Net.

LightningDrag, Sec. 4.2.3. Handle and target points become maps, the maps a pyramid of embeddings with the
U-Net's resolutions, and each attention layer adds its projection of them to queries and keys (Eq. 4).
"""

import math
from typing import Literal, get_args

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, Int
from torch import Tensor, nn

from dragstudy.attention import self_attention_layers

PointMaps = Literal["identifiers", "origins"]

CELL = 8  # pixels of the image to a latent
WAVELENGTHS = (4, 8, 16, 32, 64)  # of the code of a place, in latents
SOFTNESS, REST = 0.5, 8.0  # in latents: where a drag's weight stops growing, where it has fallen to rest's
ORIGIN_CHANNELS = 4 * len(WAVELENGTHS) + 4
ORIGIN_GAIN = 1.3  # of the projections at the start: attention to origins clear of the rest, and no more


class PointEmbedding(ModelMixin, ConfigMixin):
    """Point embedding network: maps of handle and target points to embeddings of every attention layer.

    Args:
        layers: By the name of a self-attention layer, its level in the pyramid and its number of channels;
            see `attention_levels`.
        maps: What a map shows. `"identifiers"` (the paper's): an integer at each point, equal in both maps,
            see `identifier_maps`; the network has to find out by itself what lies between points.
            `"origins"` (ours): at every place of the target map, a code of where its content comes from,
            interpolated between the drags, see `origin_maps`. Both maps then go through the same
            convolutions, and the projections start at random instead of zero: places of the edit attend to
            their origins before any training, which an hour of it cannot do without.
        widths: Channels of the convolutions' levels, each half as large as the one before. The paper's are
            shared by both maps, half of the channels for each.
        num_levels: How many of the last levels make the pyramid; the first of them has the latents' size, so
            there are three before it if maps have the image's size, and none if they have the latents'.

    Example:
        The published network, for Stable Diffusion 1.5, has the widths 32, 64, 128, 256, 512, 1024, 2048:
        75 479 616 parameters in 13 convolutions (the paper counts twelve, and zero-initialises the last;
        the published code a projection in every attention layer, 5 622 528 parameters in all, as here).
    """

    @register_to_config
    def __init__(
        self,
        layers: dict[str, tuple[int, int]],
        maps: PointMaps = "identifiers",
        widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048),
        num_levels: int = 4,
    ):
        super().__init__()
        if maps not in get_args(PointMaps):
            raise ValueError(f"maps must be one of {', '.join(get_args(PointMaps))}, got {maps!r}")
        channels = 2 if maps == "identifiers" else ORIGIN_CHANNELS
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.downs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide, wider, 3, stride=2, padding=1, bias=False),
                nn.SiLU(),
                nn.Conv2d(wider, wider, 3, padding=1, bias=False),
                nn.SiLU(),
            )
            for wide, wider in zip(widths, widths[1:], strict=False)
        )
        dims = [width // 2 if maps == "identifiers" else width for width in widths[-num_levels:]]
        self.norms = nn.ModuleDict({_key(name): nn.LayerNorm(dims[at]) for name, (at, _) in layers.items()})
        self.projections = nn.ModuleDict(
            {_key(name): nn.Linear(dims[at], width, bias=False) for name, (at, width) in layers.items()}
        )
        for projection in self.projections.values():
            if maps == "identifiers":  # training starts as if there were no points
                nn.init.zeros_(projection.weight)
            else:
                nn.init.normal_(projection.weight, std=ORIGIN_GAIN / projection.in_features**0.5)

    def maps(
        self,
        handle_points: Float[Tensor, "b n 2"],
        target_points: Float[Tensor, "b n 2"],
        size: tuple[int, int],
        identifiers: Int[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The maps that the network takes, handles first.

        Args:
            handle_points: x, y in pixels of the image; NaN where a sample has fewer points.
            target_points: The same.
            size: `(height, width)` of the image, multiples of 8.
            identifiers: Of the pairs, from 1; by default in the order given.
        """
        if self.config.maps == "origins":
            return origin_maps(handle_points, target_points, size)
        if identifiers is None:
            identifiers = torch.arange(1, handle_points.shape[1] + 1).expand(handle_points.shape[:2])
        return identifier_maps(handle_points, target_points, identifiers, size)

    def guidance_rows(
        self,
        handle_points: Float[Tensor, "b n 2"],
        target_points: Float[Tensor, "b n 2"],
        size: tuple[int, int],
        identifiers: Int[Tensor, "b n"] | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Embeddings of no points, then of the points, `(2b, tokens, channels)`; arguments as in `maps`."""
        nowhere = torch.full_like(handle_points, torch.nan)
        parts = ((nowhere, nowhere), (handle_points, target_points))
        maps = torch.cat([self.maps(*points, size, identifiers) for points in parts])
        return self(maps.to(self.device, self.dtype))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> dict[str, tuple[Tensor, Tensor]]:
        """By the name of a layer, the embeddings of handles and of targets, each `(b, tokens, channels)`.

        Without any points identifiers give embeddings of zero, and origins say that everything stays.
        """
        any_points = maps.flatten(1).any(dim=1)[:, None, None]  # origins are never zero
        if self.config.maps == "origins":
            maps = torch.cat(maps.chunk(2, dim=1))  # handles of all samples, then targets
        pyramid = [self.conv_in(maps)]
        for down in self.downs:
            pyramid.append(down(pyramid[-1]))
        pyramid = [level.flatten(2).mT for level in pyramid[-self.config.num_levels :]]
        embeddings = {}
        for name, (level, _) in self.config.layers.items():
            norm, projection = self.norms[_key(name)], self.projections[_key(name)]
            halves = pyramid[level].chunk(2, dim=2 if self.config.maps == "identifiers" else 0)
            embeddings[name] = tuple(any_points * projection(norm(half)) for half in halves)
        return embeddings


def attention_levels(unet: UNet2DConditionModel) -> dict[str, tuple[int, int]]:
    """By the name of each self-attention layer of a U-Net, how often its grid was halved, and its channels.

    Example:
        Of Stable Diffusion 1.5's 16 layers five have the latents' grid (level 0), five each the next two, and
        the one in the middle the coarsest (level 3). The U-Net's blocks tell, not the number of tokens, which
        two levels may share.
    """
    coarsest = len(unet.config.block_out_channels) - 1
    levels = {}
    for name in self_attention_layers(unet):
        part, _, rest = name.partition(".")
        block = int(rest.split(".")[0]) if part != "mid_block" else 0
        level = {"down_blocks": block, "mid_block": coarsest, "up_blocks": coarsest - block}[part]
        levels[name] = (level, unet.get_submodule(name).to_q.in_features)
    return levels


def identifier_maps(
    handle_points: Float[Tensor, "b n 2"],
    target_points: Float[Tensor, "b n 2"],
    identifiers: Int[Tensor, "b n"],
    size: tuple[int, int],
) -> Float[Tensor, "b 2 h w"]:
    """Write the identifier of each pair at its handle in one map, at its target in the other; zero elsewhere.

    Where points meet in a pixel the largest identifier holds, whatever the order of the pairs.

    Args:
        handle_points: x, y in pixels; NaN for no point.
        target_points: The same.
        identifiers: From 1. In training they are drawn at random.
        size: `(height, width)` of the maps.
    """
    height, width = size
    maps = torch.zeros(len(handle_points), 2, height * width)
    for k, points in enumerate((handle_points, target_points)):
        known = points.isfinite().all(dim=2)
        x, y = (points.nan_to_num() + 0.5).floor().long().unbind(dim=2)
        place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        shown = identifiers.to(known.device) * known
        maps[:, k].scatter_reduce_(1, place.cpu(), shown.float().cpu(), "amax")
    return maps.unflatten(2, size).to(handle_points)


def origin_maps(
    handle_points: Float[Tensor, "b n 2"],
    target_points: Float[Tensor, "b n 2"],
    size: tuple[int, int],
) -> Float[Tensor, "b c h/8 w/8"]:
    """Say at every place of the target map where its content comes from, and of the handle map where it is.

    Both say it by sines and cosines of the place, in latents, so that a place of the edit resembles the place
    of the photograph that it should look like. Between the drags their displacements are averaged, weighted
    by the inverse fourth power of the distance, with a weight for staying at rest.

    Args:
        handle_points: x, y in pixels of the image; NaN for no point.
        target_points: The same.
        size: `(height, width)` of the image.

    Returns:
        Maps of handles, then of targets, on the grid of the latents: code of the place, displacement of what
        is there (over eight latents), nearness to a point at two scales.
    """
    rows, columns = (torch.arange(side // CELL, dtype=torch.float32) for side in size)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).to(handle_points)  # (h, w, 2)
    known = (handle_points + target_points).isfinite().all(dim=2)
    handles, targets = ((points.nan_to_num() + 0.5) / CELL - 0.5 for points in (handle_points, target_points))
    maps = []
    for start, end in ((handles, targets), (targets, handles)):
        squared = (grid[None, :, :, None] - start[:, None, None]).square().sum(dim=4)  # (b, h, w, n)
        weight = (squared + SOFTNESS**2) ** -2 * known[:, None, None]
        total = weight.sum(dim=3, keepdim=True) + REST**-4
        moved = torch.einsum("bhwn,bnc->bhwc", weight, end - start) / total
        # the handle map is the photograph's own: what is there comes from there
        place = grid.expand_as(moved) if start is handles else grid + moved
        moved = moved if start is handles else -moved  # of the same content, the same in both maps
        angles = torch.cat([place * (2 * math.pi / length) for length in WAVELENGTHS], dim=3)
        near = [(-squared / reach).exp().mul(known[:, None, None]).amax(dim=3) for reach in (1.0, 16.0)]
        maps.append(torch.cat([angles.sin(), angles.cos(), moved / 8, torch.stack(near, dim=3)], dim=3))
    return torch.cat(maps, dim=3).permute(0, 3, 1, 2).contiguous()


def _key(layer: str) -> str:
    return layer.replace(".", "-")  # no module may have a dot in its name
