r"""Noise priors: what latents the sampling starts from (LightningDrag, Sec. 4.3.1), as pure functions.

A network is trained on $z_t = \sqrt{\bar\alpha_t} z_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon$. On Stable
Diffusion's noise schedule the noisiest timestep, 999, still keeps $\sqrt{\bar\alpha} = 0.068$ of the picture,
but samplers start from noise alone; the priors close this gap with the photograph.

With a zero terminal signal-to-noise ratio there is no gap: where $\bar\alpha = 0$ every prior but the one
that copies is the plain noise, and that one only moves noise about.
"""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dragstudy.drags import resize_points
from dragstudy.sde import PatchMove, copy_and_paste, plan_rounds

NoisePrior = Literal["random", "source", "mixed", "copy_paste"]


def noise_prior(
    name: str,
    noise: Float[Tensor, "b c h w"],
    source: Float[Tensor, "b c h w"] | None = None,
    alpha_bar: float | int | None = None,
    *,
    mask: Float[Tensor, "b 1 height width"] | None = None,
    moves: list[list[PatchMove]] | None = None,
    fresh_noise: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """The latents that sampling starts from.

    - `"random"`: the noise, whatever the photograph
    - `"source"`: see `noised_source`, the paper's choice
    - `"mixed"`: see `mix_by_mask`
    - `"copy_paste"`: see `paste_along_drags`

    Args:
        name: A `NoisePrior`.
        noise: Gaussian noise of deviation 1.
        source: Scaled latents of the photograph; all but `"random"` need them and `alpha_bar`.
        alpha_bar: The share of the signal's power at the timestep that the sampling starts from, in [0, 1].
        mask: In pixels, 1 = may change, for `"mixed"`. Without one everything may change: all is noise.
        moves: Of each photograph, what `plan_moves` finds, for `"copy_paste"`.
        fresh_noise: More noise like `noise`, for `"copy_paste"`.

    Raises:
        ValueError: If there is no such prior, or what it needs is missing.
    """
    check_noise_prior(name)
    if name == "random":
        return noise
    if source is None or alpha_bar is None:
        raise ValueError(f"noise_prior {name!r} needs the source's latents and alpha_bar, got none")
    noised = noised_source(source, noise, alpha_bar)
    if name == "source":
        return noised
    if name == "mixed":
        return noise if mask is None else mix_by_mask(noised, noise, mask)
    if moves is None or fresh_noise is None or len(moves) != len(noised):
        raise ValueError("noise_prior 'copy_paste' needs moves for each of the latents, and fresh_noise")
    return paste_along_drags(noised, moves, fresh_noise)


def noised_source(
    source: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], alpha_bar: float | int
) -> Float[Tensor, "b c h w"]:
    r"""What training shows the network of the photograph at a timestep (LightningDrag, Eq. 2).

    $z_t = \sqrt{\bar\alpha_t} z_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon$

    Args:
        source: Scaled latents $z_0$ of the photograph.
        noise: Gaussian noise of deviation 1.
        alpha_bar: In [0, 1]; 0 gives the noise back.

    Raises:
        ValueError: If `alpha_bar` lies outside of [0, 1].

    Example:
        >>> noised_source(torch.full((1, 4, 2, 2), 10.0), torch.zeros(1, 4, 2, 2), 0.25)[0, 0, 0, 0].item()
        5.0
    """
    if not 0 <= alpha_bar <= 1:
        raise ValueError(f"alpha_bar must lie in [0, 1], got {alpha_bar}")
    return alpha_bar**0.5 * source + (1 - alpha_bar) ** 0.5 * noise


def mix_by_mask(
    noised: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    mask: Float[Tensor, "b 1 height width"],
) -> Float[Tensor, "b c h w"]:
    """The noised source outside of the mask, and noise that knows nothing of it inside.

    The noise may be the one that `noised` was made with: no cell gets both.

    Args:
        noised: See `noised_source`.
        noise: Gaussian noise of deviation 1.
        mask: In pixels or latent cells, 1 = may change. A cell that any editable pixel lies in is noise.

    Returns:
        Either of them, cell by cell.
    """
    editable = F.adaptive_max_pool2d(mask, noised.shape[-2:]) > 0
    return torch.where(editable.to(noised.device), noise, noised)


def plan_moves(
    handle_points: np.ndarray,
    target_points: np.ndarray,
    image_size: tuple[int, int],
    latent_size: tuple[int, int],
    radius: int | None = None,
) -> list[PatchMove]:
    """The patches of latents that drags copy, each from its handle to its target at once.

    Args:
        handle_points: (x, y) in pixels of the working image, `(n, 2)`.
        target_points: The same.
        image_size: (width, height) of the working image.
        latent_size: (width, height) of its latents.
        radius: Of a patch, in latent cells. By default the share of the picture that SDE-Drag's 5 cells are
            of its 64.

    Returns:
        No move for a drag that ends in the cell where it began.

    Example:
        >>> (move,) = plan_moves(np.array([[12.0, 12.0]]), np.array([[28.0, 12.0]]), (64, 64), (8, 8))
        >>> move.source[1], move.target[1]  # columns
        (slice(0, 3, None), slice(2, 5, None))
    """
    if radius is None:
        radius = max(1, round(5 * min(latent_size) / 64))
    handles, targets = (
        torch.from_numpy(resize_points(points, image_size, latent_size))
        for points in (handle_points, target_points)
    )
    (moves,) = plan_rounds(handles, targets, latent_size[::-1], step_length=float("inf"), radius=radius)
    return moves


def paste_along_drags(
    noised: Float[Tensor, "b c h w"],
    moves: list[list[PatchMove]],
    fresh_noise: Float[Tensor, "b c h w"],
    *,
    amplification: float = 1.0,
    source_share: float = 0.3,
) -> Float[Tensor, "b c h w"]:
    """The noised source with its patches around the handles copied to the targets (Nie et al. 2023, Sec. 4).

    SDE-Drag does so half-way through the noise, where it amplifies what it pastes by 1.1; at the noisiest
    timestep that would make noise of more than deviation 1. What is left behind is covered as there: with a
    share of what was there, and noise. The noise must be fresh: that of `noised` has gone to the target.

    Args:
        noised: See `noised_source`.
        moves: Of each of them, what `plan_moves` finds; without any nothing changes.
        fresh_noise: Gaussian noise of deviation 1.
        amplification: Factor on what is pasted.
        source_share: What stays where a patch was copied from, in [0, 1].
    """
    options = {"amplification": amplification, "source_share": source_share}
    parts = zip(noised.split(1), moves, fresh_noise.split(1), strict=True)
    return torch.cat([copy_and_paste(one, plan, noise=fresh, **options) for one, plan, fresh in parts])


def source_correlation(
    latents: Float[Tensor, "b c h w"], source: Float[Tensor, "b c h w"], cells: int = 1
) -> Float[Tensor, " b"]:
    r"""How much latents have in common with the photograph's at one scale, `(b,)`, 0 for noise alone.

    Both are averaged over squares, which leaves of noise of deviation 1 only 1 / `cells`, but of a smooth
    picture nearly all; then it is the cosine of the two. It is not centred: the mean of a channel, which
    carries brightness and colour, belongs to what is in common.

    Args:
        latents: What a sampling starts from.
        source: Scaled latents of the photographs.
        cells: Side of a square in latent cells.

    Example:
        >>> noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> source_correlation(noise, 3 * noise, cells=2).round(decimals=3).item()
        1.0
    """
    coarse = [F.avg_pool2d(one, cells).flatten(1) for one in (latents, source.to(latents))]
    return F.cosine_similarity(*coarse, dim=1)


def check_noise_prior(name: str) -> None:
    """Refuse an unknown prior before anything is computed."""
    if name not in get_args(NoisePrior):
        raise ValueError(f"noise_prior must be one of {', '.join(get_args(NoisePrior))}, got {name!r}")
