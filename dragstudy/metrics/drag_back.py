"""Drag-back (DragLoRA, Xia et al. 2025): an edit and the same drags turned round should give the photograph.

One number for two things at once, and no truth is needed: whoever moves too little, or cannot keep what is
there, does not come back. It has a blind spot: who does nothing comes back best of all.
"""

from collections.abc import Callable

from PIL import Image

from dragstudy.drags import DragInstruction


def reverse_drags(drags: DragInstruction) -> DragInstruction:
    """The drags from target to handle, with the same mask.

    Example:
        >>> reverse_drags(DragInstruction([[1, 2]], [[5, 6]])).handle_points.tolist()
        [[5.0, 6.0]]
    """
    return DragInstruction(drags.target_points, drags.handle_points, drags.mask, drags.image_size)


def drag_back(
    edit: Callable[[Image.Image, DragInstruction], Image.Image],
    image: Image.Image,
    drags: DragInstruction,
) -> Image.Image:
    """Edit an image, then edit the result by the same drags turned round.

    What is fitted to one image (a LoRA) has to be fitted anew to the edited one: that is up to `edit`.

    Args:
        edit: From an image and drags to the edited image.
        image: The photograph.
        drags: In its pixels.

    Returns:
        An image to be compared with the photograph, for instance by `image_fidelity` or `image_similarity`.
    """
    return edit(edit(image, drags), reverse_drags(drags))
