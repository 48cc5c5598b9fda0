"""Working on a window of a photograph: the part that a mask and its drags need, as large as the models see.

LightningDrag trains on random crops that cover the points (Sec. 5.1), and edits whole pictures. Nothing
changes outside of a mask, so an edit may look at a crop as well: more latents then see what is dragged.
"""

from dataclasses import replace

import numpy as np
from PIL import Image

from dragstudy.drags import DragInstruction
from dragstudy.images import Fit
from dragstudy.pipelines.base import Request

Window = tuple[int, int, int, int]  # left, upper, right, lower, in pixels, as PIL's crop takes it

MARGIN = 0.12  # on each side of what is covered, in its own sides: the surroundings that inpainting goes by
LARGEST = 4.0  # a window's side is at least this part of the photograph's: enlarging more shows blur alone


def find_window(drags: DragInstruction) -> Window:
    """The smallest window of the image's own shape around mask and points, with a margin.

    Args:
        drags: With the size of their image. Without a mask everything may change: the window is the image.

    Example:
        >>> mask = np.zeros((100, 200))
        >>> mask[40:60, 150:180] = 1
        >>> find_window(DragInstruction([[160, 50]], [[170, 50]], mask))
        (140, 38, 190, 63)
    """
    width, height = drags.image_size
    if drags.mask is None or not drags.mask.any():
        return 0, 0, width, height
    rows, columns = np.nonzero(drags.mask)
    points = np.concatenate([drags.handle_points, drags.target_points])
    lows = np.minimum([columns.min(), rows.min()], np.floor(points + 0.5).min(axis=0))
    highs = np.maximum([columns.max(), rows.max()], np.floor(points + 0.5).max(axis=0)) + 1
    share = ((highs - lows) * (1 + 2 * MARGIN) / (width, height)).max()
    share = float(np.clip(share, 1 / LARGEST, 1))
    sides = np.ceil(share * np.array([width, height]) - 1e-9).astype(int)
    corner = np.clip(np.round((lows + highs - sides) / 2), 0, (width, height) - sides).astype(int)
    return (*corner.tolist(), *(corner + sides).tolist())


def zoom_in(request: Request, window: Window) -> Request:
    """The request for a window, at the same working size."""
    left, upper, right, lower = window
    image, mask = request.image.crop(window), request.drags.mask
    points = (request.drags.handle_points - (left, upper), request.drags.target_points - (left, upper))
    drags = DragInstruction(*points, None if mask is None else mask[upper:lower, left:right], image.size)
    fit = Fit(image.size, request.fit.working_size)
    return replace(
        request,
        image=image,
        drags=drags,
        fit=fit,
        working_image=fit.image(image),
        working_drags=drags.resize(fit.working_size),
    )


def zoom_out(photo: Image.Image, window: Window, edited: Image.Image) -> Image.Image:
    """The photograph with its window replaced by the edited one."""
    result = photo.copy()
    result.paste(edited, window[:2])
    return result
