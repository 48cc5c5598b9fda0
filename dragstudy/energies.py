r"""How unlike its request an edit is, as energies over a U-Net's features (DragonDiffusion, Sec. 3.4.1).

$F^{gen}$ are features of the edit's latents, $F^{gud}$ those of the photograph's at the same noise level, and
masks say where in both to look. A similarity $S$ is a cosine brought to [0, 1] (Eq. 3, 4), and an energy is
$1 / (\alpha + \beta S)$ (Eq. 5, 6): from 1, where nothing is alike, down to 1/5. Its gradient is largest
where the edit is furthest from what was asked for.

What a mask chooses is compared as vectors, `(c, n)`: the features at `n` places, the k-th of the edit with
the k-th of the photograph. `pick` reads them, where a mask is true or at any points.

Two faults of the authors' code are not repeated:

- Moving takes the cosine itself for S, and $1 + 4 \cos$ is zero at a cosine of -0.25: the energy jumps from
  plus to minus infinity where features point apart. Here every similarity is that of Eq. 3.
- Point dragging clips x with the *height* of the feature map, so on a landscape picture a drag in the right
  part pulls at another column. `patch_places` leaves out what lies outside of either side.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dragstudy.warping import sample_at

ALPHA, BETA = 1.0, 4.0  # Eq. 5
EPS = 1e-8  # of a vector's length: the cosine with nothing is 0


def on_one_grid(
    features: Iterable[Float[Tensor, "1 ? ? ?"]],
    size: tuple[int, int],
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> list[Float[Tensor, "? h w"]]:
    """Bring feature maps of several blocks, `(1, c, h', w')`, to one grid of `size` (h, w): `(c, h, w)` each.

    The authors' code takes the nearest; then all points of a coarse cell are the same point.
    """
    options = {"align_corners": False} if mode == "bilinear" else {}
    return [F.interpolate(one.float(), size, mode=mode, **options)[0] for one in features]


def pick(
    features: Float[Tensor, "c h w"], where: Bool[Tensor, "h w"] | Float[Tensor, "n 2"]
) -> Float[Tensor, "c n"]:
    """F[m]: the features where a mask is true, row by row, or at points (x, y) in pixels of the map.

    Example:
        >>> features = torch.arange(6.0).view(1, 2, 3)
        >>> pick(features, features[0] > 3).tolist(), pick(features, torch.tensor([[0.5, 1.0]])).tolist()
        ([[4.0, 5.0]], [[3.5]])
    """
    if where.dtype == torch.bool:
        return features[:, where]
    if not len(where):
        return features.new_zeros(len(features), 0)
    return sample_at(features[None], where.T[None, :, None].to(features))[0, :, 0]


def patch_places(
    point: Float[Tensor, " 2"], other: Float[Tensor, " 2"], size: tuple[int, int], *, side: int = 3
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """The places of a square around each of two points, in one order; those outside the map are left out.

    Args:
        point: (x, y) in pixels of the feature map; it lies inside.
        other: The same of the square that it is compared with.
        size: (h, w) of the map.
        side: Of the squares: 3 in "Point dragging" (Sec. 3.4.3).

    Returns:
        Places around `point` and around `other`, each `(n, 2)`, at most `side` squared.
    """
    reach = torch.arange(side) - side // 2
    offsets = torch.cartesian_prod(reach, reach).flip(1).to(point)
    around = point + offsets, other + offsets
    h, w = size
    edge = point.new_tensor([w, h]) - 0.5
    inside = torch.stack([((p >= -0.5) & (p <= edge)).all(dim=1) for p in around]).all(dim=0)
    return around[0][inside], around[1][inside]


def local_similarity(features: Float[Tensor, "c n"], reference: Float[Tensor, "c n"]) -> Float[Tensor, ""]:
    """S_local of Eq. 3: place by place, then the mean over places.

    Args:
        features: Vectors of the edit, the gradient's way.
        reference: Vectors of the photograph at the places that they should look like; detached.

    Returns:
        From 0 (opposite) to 1 (the same direction); 0 for no places, with a gradient of zero.
    """
    return local_similarities(features, reference, [features.shape[1]])[0]


def local_similarities(
    features: Float[Tensor, "c n"], reference: Float[Tensor, "c n"], sizes: Sequence[int]
) -> Float[Tensor, " k"]:
    """`local_similarity` of k groups of places that lie one after the other, such as k patches."""
    cosines = F.cosine_similarity(features, reference.detach(), dim=0, eps=EPS)
    return torch.stack([(0.5 * part + 0.5).sum() / max(len(part), 1) for part in cosines.split(list(sizes))])


def global_similarity(features: Float[Tensor, "c n"], reference: Float[Tensor, "c m"]) -> Float[Tensor, ""]:
    """S_global of Eq. 4: between the means over two regions, which may differ in shape and size.

    Args:
        features: Vectors of the edit.
        reference: Vectors of the photograph, or of another; detached.

    Returns:
        From 0 to 1; 0 if either region is empty, with a gradient of zero.
    """
    if not reference.shape[1] or not features.shape[1]:
        return features.sum() * 0
    means = (vectors.mean(dim=1, keepdim=True) for vectors in (features, reference))
    return local_similarity(*means)


def energy(similarity: Float[Tensor, "*k"], alpha: float = ALPHA, beta: float = BETA) -> Float[Tensor, "*k"]:
    """Eq. 5 and 6: small where things are alike.

    Example:
        >>> [energy(torch.tensor(s)).item() for s in (0.0, 1.0)]
        [1.0, 0.20000000298023224]
    """
    return 1 / (alpha + beta * similarity)


def inpainting_energy(
    vacated: Float[Tensor, "c n"],
    original: Float[Tensor, "c n"],
    surroundings: Float[Tensor, "c m"],
    *,
    inpaint_weight: float = 2.5,
    contrast_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """E_opt of Eq. 9, for the region that an object leaves: like what is around, unlike what was there.

    Args:
        vacated: F_gen at m_ipt, the edit's features where the object was and is no more.
        original: F_gud at m_ipt, what was there.
        surroundings: F_gud at m_ref, what should be there.
        inpaint_weight: w_i.
        contrast_weight: Of the second term; 1 in the paper, 0.2 in the authors' code.
    """
    alike = energy(global_similarity(vacated, surroundings))
    return inpaint_weight * alike + contrast_weight * local_similarity(vacated, original)


def total_energy(
    edit: Sequence[Float[Tensor, "*k"]],
    content: Sequence[Float[Tensor, "*k"]],
    optional: Sequence[Float[Tensor, "*k"]] = (),
    *,
    edit_weight: float,
    content_weight: float,
    optional_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Eq. 7: w_e E_edit + w_c E_content + w_o E_opt, each averaged over what it was computed for.

    Args:
        edit: Energies of Eq. 5: of each block of features, those of its drags.
        content: Energies of Eq. 6, one for each block.
        optional: Energies of Eq. 9, one for each block and object.
        edit_weight: w_e.
        content_weight: w_c.
        optional_weight: w_o.
    """
    parts = ((edit_weight, edit), (content_weight, content), (optional_weight, optional))
    means = ((weight, torch.cat([one.reshape(-1) for one in each]).mean()) for weight, each in parts if each)
    return sum(weight * mean for weight, mean in means)
