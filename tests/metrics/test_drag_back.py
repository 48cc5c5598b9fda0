"""There and back: an editor that moves what it is told to brings the photograph back."""

import numpy as np
from PIL import Image, ImageChops

from dragstudy.drags import DragInstruction
from dragstudy.metrics.drag_back import drag_back, reverse_drags

from ..tiny import picture

DRAGS = DragInstruction([[10, 12]], [[17, 9]], np.eye(32, dtype=np.float32), (32, 32))


def translate(image: Image.Image, drags: DragInstruction) -> Image.Image:
    """Moves everything by the first drag, round the edges."""
    return ImageChops.offset(image, *drags.displacements[0].astype(int).tolist())


def test_reversed_twice_drags_are_as_they_were():
    back = reverse_drags(DRAGS)
    assert back != DRAGS and reverse_drags(back) == DRAGS
    assert np.array_equal(back.displacements, -DRAGS.displacements)
    assert np.array_equal(back.mask, DRAGS.mask)


def test_an_exact_editor_brings_the_photograph_back_and_one_that_forgets_does_not():
    photo = picture(32, 32)
    assert translate(photo, DRAGS).tobytes() != photo.tobytes()
    assert drag_back(translate, photo, DRAGS).tobytes() == photo.tobytes()
    only_right = lambda image, drags: translate(image, drags) if drags.displacements[0, 0] > 0 else image  # noqa: E731
    assert drag_back(only_right, photo, DRAGS).tobytes() == translate(photo, DRAGS).tobytes()
