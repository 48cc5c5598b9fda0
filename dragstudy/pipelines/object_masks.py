"""Where in its features an edit is to look like what: the masks of DragonDiffusion's five tasks (Sec. 3.4.3).

| paper | here |
|---|---|
| m_gen, m_gud | both sides of `Regions.matches`: where the edit should look like which places of the guide |
| m_share | `share`: where it should look like the photograph |
| m_ipt, m_ref | `vacated`, `surroundings`: what an object leaves, and what should be there |

The grid of the features has a cell for 4 x 4 pixels of the working image, that of the latents one for 8 x 8.
A mask holds the cells that it covers at least half of, or else the one that it covers most of.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dragstudy.drags import resize_points
from dragstudy.energies import patch_places
from dragstudy.images import Fit
from dragstudy.pipelines.base import Request

FEATURE_CELL, LATENT_CELL = 4, 8  # sides in pixels of the working image
MARGIN = 8  # pixels of the working image that may change around an object, by default

Places = Tensor  # boolean (h, w), or (n, 2) x, y in pixels of the grid


@dataclass(frozen=True)
class Regions:
    """What an edit asks for, on the grids of features and of latents.

    Attributes:
        matches: Places of the edit and places of the guide that should look alike; one for each drag.
        share: Where the edit should look like the photograph, boolean, `(h, w)`.
        inside: Latents that the editing itself may change, boolean, `(h/2, w/2)`.
        vacated: Places that something leaves.
        surroundings: Places of the photograph that vacated ones should look like; None: of no matter.
        copies: Latents of the edit and of the guide's that the authors' code begins them with.
        whole: Whether regions are matched as a whole (Eq. 4) rather than place by place (Eq. 3).
        foreground: The object in the guide, boolean at its working size, where the guide is another picture.
        background: All but the object in the photograph, the same.
    """

    matches: list[tuple[Places, Places]]
    share: Tensor
    inside: Tensor
    vacated: list[Places] = field(default_factory=list)
    surroundings: Tensor | None = None
    copies: list[tuple[Places, Places]] = field(default_factory=list)
    whole: bool = False
    foreground: Tensor | None = None
    background: Tensor | None = None


@dataclass(frozen=True)
class Placement:
    """Where an object goes: what is at q in its own picture, to `centre + scale * (q - origin)`.

    Attributes:
        origin: (x, y) in pixels of the picture that shows the object.
        centre: (x, y) in pixels of the picture that it goes to.
        scale: Its growth.
    """

    origin: np.ndarray
    centre: np.ndarray
    scale: float = 1.0

    def back(self, points: np.ndarray) -> np.ndarray:
        """Where the object shows what is at these points `(n, 2)` after it has been placed."""
        return self.origin + (points - self.centre) / self.scale

    def mask(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The object's mask after it has been placed, `(h, w)` of a picture of `size` (width, height)."""
        shift = self.centre - self.scale * self.origin
        matrix = np.array([[self.scale, 0, shift[0]], [0, self.scale, shift[1]]])
        placed = cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        return (placed >= 0.5).astype(np.float32)


def check_object(mask: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """An object's mask as 0 and 1, `(h, w)`.

    Raises:
        ValueError: If it is of another size (width, height) than its picture, or nothing is in it.
    """
    mask = np.asarray(mask)
    if mask.shape != size[::-1]:
        raise ValueError(f"{name} must have its image's size {size[0]}x{size[1]}, got shape {mask.shape}")
    if not (mask > 0).any():
        raise ValueError(f"{name} must cover an object, got an empty mask")
    return (mask >= mask.max() / 2).astype(np.float32)


def centre_of(mask: np.ndarray) -> np.ndarray:
    """The mean (x, y) of a mask's pixels."""
    return np.argwhere(mask > 0).mean(axis=0)[::-1]


def grown(mask: np.ndarray, fit: Fit) -> np.ndarray:
    """A mask with a margin around it."""
    pixels = max(1, round(MARGIN * fit.source_size[0] / fit.working_size[0]))
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1)))


def on_grid(mask: np.ndarray | Tensor, fit: Fit, cell: int) -> Tensor:
    """A mask in pixels of the picture as booleans on a grid whose cells are `cell` working pixels wide."""
    width, height = fit.working_size
    given = torch.as_tensor(np.asarray(mask, dtype=np.float32))[None, None]
    covered = F.interpolate(given, (height // cell, width // cell), mode="bilinear", antialias=True)[0, 0]
    return (covered >= 0.5) | ((covered == covered.max()) & (covered > 0))


def drag_regions(request: Request, *, rounded: bool = False) -> Regions:
    """Point dragging: a patch around each target should look like the patch around its handle.

    Args:
        request: Its mask says what may change; without one all may, and nothing is shared.
        rounded: Whether points go to the nearest cell, as in the authors' code.
    """
    fit, drags = request.fit, request.working_drags
    matches = [_patches(h, t, fit, FEATURE_CELL, rounded) for h, t in _pairs(drags)]
    shape = fit.working_size[1] // FEATURE_CELL, fit.working_size[0] // FEATURE_CELL
    mask = np.ones(fit.working_size[::-1]) if drags.mask is None else drags.mask
    working = Fit(fit.working_size, fit.working_size)
    vacated = [_without(theirs, ours) for ours, theirs in matches]
    return Regions(
        matches=matches,
        share=~on_grid(mask, working, FEATURE_CELL) if drags.mask is not None else torch.zeros(shape).bool(),
        inside=F.adaptive_max_pool2d(torch.as_tensor(mask)[None, None].float(), _latents(fit))[0, 0] > 0,
        vacated=[places for places in vacated if len(places)],
        copies=[_patches(h, t, fit, LATENT_CELL, True) for h, t in _pairs(drags)],
    )


def object_regions(
    request: Request,
    mask: np.ndarray,
    placement: Placement,
    guide: Fit,
    *,
    moved: bool,
    reference_mask: np.ndarray | None = None,
) -> Regions:
    """Moving and resizing within a picture, pasting from another: the object, place by place, where it goes.

    Args:
        request: The edited photograph; its mask says what may change.
        mask: The object in the guide, `(h, w)` of 0 and 1 in pixels of the guide.
        placement: From there into the photograph.
        guide: The guide's own fit; the photograph's where the object is moved within it.
        moved: Whether the object leaves its place, in the same picture.
        reference_mask: m_ref, in pixels of the photograph; by default all that is shared.
    """
    fit = request.fit
    placed = placement.mask(mask, fit.source_size)
    if not placed.any():
        raise ValueError(f"the object must stay in the picture, got its centre at {placement.centre}")
    gen, gud = on_grid(placed, fit, FEATURE_CELL), on_grid(mask, guide, FEATURE_CELL)
    share = ~on_grid(request.drags.mask, fit, FEATURE_CELL) & ~gen
    matched = _placed_places(gen, placement, fit, guide, FEATURE_CELL)
    latents = _placed_places(on_grid(placed, fit, LATENT_CELL), placement, fit, guide, LATENT_CELL)
    own = {"foreground": on_grid(mask, guide, 1), "background": ~on_grid(placed, fit, 1)}
    if moved:
        left, share = gud & ~gen, share & ~gud
        around = share if reference_mask is None else on_grid(reference_mask, fit, FEATURE_CELL)
        own = {"vacated": [left] if left.any() else [], "surroundings": around}
    inside = on_grid(placed, fit, LATENT_CELL)
    return Regions(matches=[matched], share=share, inside=inside, copies=[latents], **own)


def appearance_regions(request: Request, mask: np.ndarray, reference: np.ndarray, guide: Fit) -> Regions:
    """Appearance replacing: the object as a whole should look like another picture's object as a whole."""
    fit = request.fit
    gen, gud = on_grid(mask, fit, FEATURE_CELL), on_grid(reference, guide, FEATURE_CELL)
    return Regions(
        matches=[(gen, gud)],
        share=~on_grid(request.drags.mask, fit, FEATURE_CELL) & ~gen,
        inside=on_grid(mask, fit, LATENT_CELL),
        whole=True,
        foreground=on_grid(reference, guide, 1),
        background=~on_grid(mask, fit, 1),
    )


def _pairs(drags: object) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(drags.handle_points[:, None], drags.target_points[:, None], strict=True))


def _latents(fit: Fit) -> tuple[int, int]:
    return fit.working_size[1] // LATENT_CELL, fit.working_size[0] // LATENT_CELL


def _patches(
    handle: np.ndarray, target: np.ndarray, fit: Fit, cell: int, rounded: bool
) -> tuple[Tensor, Tensor]:
    """Places around a target and around its handle, in pixels of a grid."""
    size = fit.working_size
    grid = size[0] // cell, size[1] // cell
    points = [torch.from_numpy(resize_points(p, size, grid))[0].float() for p in (target, handle)]
    if rounded:  # the nearest cell, kept away from the edge: along x by the width, along y by the height
        points = [
            torch.stack([x.round().clamp(1, grid[0] - 2), y.round().clamp(1, grid[1] - 2)]) for x, y in points
        ]
    return patch_places(*points, grid[::-1])


def _without(places: Tensor, others: Tensor) -> Tensor:
    """Places `(n, 2)` that lie further than half a cell from every other."""
    near = (places[:, None] - others[None]).abs().amax(dim=2) < 0.5
    return places[~near.any(dim=1)]


def _placed_places(
    gen: Tensor, placement: Placement, fit: Fit, guide: Fit, cell: int
) -> tuple[Tensor, Tensor]:
    """The true cells of a mask as points, and what the object shows there as points of the guide's grid."""
    cells = gen.nonzero().flip(1)
    width, height = fit.working_size
    points = resize_points(cells.double().numpy(), (width // cell, height // cell), fit.source_size)
    there = placement.back(points)
    width, height = guide.working_size
    found = torch.from_numpy(resize_points(there, guide.source_size, (width // cell, height // cell)))
    edge = torch.tensor([width // cell, height // cell]) - 0.5
    inside = ((found >= -0.5) & (found <= edge)).all(dim=1)
    return cells[inside].float(), found[inside].float()
