"""What the commands that edit share: drags from files and arguments, pipelines loaded without a word."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from dragstudy._options import keywords
from dragstudy.drags import DragInstruction, parse_drag
from dragstudy.flow import flow_to_rgb
from dragstudy.images import load_image

if TYPE_CHECKING:
    from dragstudy.pipelines import DragPipeline

LOADING = Lock()  # what diffusers switches while it loads belongs to all threads
OUT_OF_REACH = {"generator", "output_type", "return_dict"}  # of `--set`: the commands decide them


def check_picture_path(path: Path) -> None:
    """Refuse a path at which no picture can be written.

    Raises:
        ValueError: If its folder does not exist, or its suffix is none of a picture.
    """
    if not path.absolute().parent.is_dir():
        raise ValueError(f"the folder of {path} does not exist")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path} must end as a picture does, such as .png or .jpg")


def settable_arguments(method: str) -> dict[str, Any]:
    """The arguments of a method's pipeline that `--set` can give, with their types.

    Raises:
        ValueError: If there is no such method.
    """
    from dragstudy.pipelines import find_method

    arguments = keywords(find_method(method).__call__)
    return {name: hint for name, hint in arguments.items() if name not in OUT_OF_REACH}


def load_silently(
    method: str, weights: str, device: str | None = None, finetuned: Path | None = None
) -> "DragPipeline":
    """Load a method onto a device; without warnings and bars, so that an error stays one line.

    Raises:
        ValueError: If there is no such method, no weights or fine-tuned weights of that name, or no such
            device.
    """
    from dragstudy.pipelines import InstantDragPipeline, load

    with LOADING, _silence():
        pipe = load(method, weights=weights)
        if finetuned is not None:
            if not isinstance(pipe, InstantDragPipeline):
                raise ValueError(f"{method} cannot use fine-tuned weights")
            pipe.load_finetuned(finetuned)
    try:
        return pipe.to(device) if device else pipe
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"device {device!r} cannot be used: {error}") from None


def read_drags(
    image: Path, size: tuple[int, int], *, drag: Sequence[str] | None, drags: Path | None, mask: Path | None
) -> DragInstruction:
    """The drags that the user gave, checked against the image before anything is loaded.

    Args:
        image: Path of the image, for the sentence of an error.
        size: Its (width, height).
        drag: Drags as `parse_drag` reads them, or None.
        drags: File that `DragInstruction.to_json` wrote; read if there is no `drag`.
        mask: An image whose white may change; goes before the file's own mask.

    Raises:
        ValueError: If a file cannot be read, or drags or mask do not fit the image.
    """
    drawn = np.asarray(load_image(mask).convert("L"), np.float32) / 255 if mask else None
    if drag:
        handles, targets = zip(*map(parse_drag, drag), strict=True)
        return DragInstruction(handles, targets, drawn, size)
    stored = DragInstruction.from_json(drags)
    if stored.image_size not in (None, size):
        raise ValueError(f"{drags} is for an image of {stored.image_size}, {image} has {size} pixels")
    return DragInstruction(
        stored.handle_points, stored.target_points, stored.mask if drawn is None else drawn, size
    )


def save_flow(flow: Tensor, path: Path) -> None:
    """Write a dense flow `(1, 2, h, w)` in pixels as a picture."""
    Image.fromarray(flow_to_rgb(flow)[0].permute(1, 2, 0).numpy()).save(path)


@contextmanager
def _silence() -> Iterator[None]:
    """Within it diffusers neither warns nor shows bars while it loads."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
