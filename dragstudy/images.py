"""Images at the border of the library: whatever a user has, in; a picture of the same size, out.

Inside the library an image at the border is a PIL image in mode RGB, or floats `(1, 3, h, w)` in [0, 1].
Sizes of images are (width, height), as in PIL; points are (x, y) with pixel centres at integers.
"""

import itertools
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from PIL import Image, ImageOps
from torch import Tensor

from dragstudy.drags import resize_points
from dragstudy.flow import resize_flow

MAX_ASPECT = 16  # longer strips have no sensible size to work at
WHAT = (
    "a path, a PIL image, a uint8 array (h, w), (h, w, 3) or (h, w, 4), or a float tensor (3, h, w) in [0, 1]"
)
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


def load_image(source: ImageLike) -> Image.Image:
    """Turn any kind of image into 8-bit RGB, the right way up.

    The orientation in EXIF is applied, alpha is laid over white, 16-bit grey is scaled to 8 bits.

    Args:
        source: A path, a PIL image of any mode, a uint8 array `(h, w)`, `(h, w, 3)` or `(h, w, 4)`,
            a uint16 array `(h, w)`, or a float tensor `(3, h, w)` in [0, 1].

    Returns:
        A PIL image in mode RGB.

    Raises:
        ValueError: If the image cannot be read, is incomplete, or is none of these.

    Example:
        >>> load_image(np.zeros((4, 6, 4), dtype=np.uint8)).getpixel((0, 0))  # clear: white shows
        (255, 255, 255)
    """
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, str | Path):
        try:
            with Image.open(source) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
        except BROKEN as error:
            raise ValueError(f"The image {str(source)!r} cannot be read: {_sentence(error)}.") from None
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(ImageOps.exif_transpose(source))
        except BROKEN as error:
            raise ValueError(f"The image cannot be read: {_sentence(error)}.") from None
    raise ValueError(f"An image must be {WHAT}, got {type(source).__name__}.")


def to_tensor(image: Image.Image) -> Float[Tensor, "1 3 h w"]:
    """Return an RGB image as floats in [0, 1], shape `(1, 3, h, w)`."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 255


def to_pil(image: Float[Tensor, "3 h w"] | Float[Tensor, "1 3 h w"]) -> Image.Image:
    """Return floats in [0, 1], shape `(3, h, w)` or `(1, 3, h, w)`, as an RGB image; beyond is clipped.

    Example:
        >>> to_pil(torch.full((3, 1, 1), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    pixels = image.detach().reshape(3, *image.shape[-2:]).permute(1, 2, 0).float().clamp(0, 1)
    return Image.fromarray((pixels * 255 + 0.5).floor().byte().cpu().numpy())


def fit_size(width: int, height: int, *, area: int = 256 * 256, multiple: int = 64) -> tuple[int, int]:
    """Choose the size to work at: about `area` pixels, nearly the same shape, sides in multiples.

    Of the sizes around the ideal one, the least distorted wins: an error of the aspect ratio counts twice as
    much as the same error of the area. Rounding each side by itself would make a 4:3 photograph 5:3 at 256 x
    256.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        area: Number of pixels wanted.
        multiple: What both sides must be a multiple of (64 for a U-Net on f8 latents).

    Returns:
        (width, height) to work at.

    Raises:
        ValueError: If the longer side is more than 16 times the shorter.

    Example:
        >>> fit_size(1920, 1080), fit_size(1, 1)
        ((320, 192), (256, 256))
        >>> fit_size(400, 300)
        (256, 192)
    """
    if width < 1 or height < 1:
        raise ValueError(f"An image must have at least one pixel, got {width}x{height}.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"The sides of an image may differ by {MAX_ASPECT}:1 at most, got {width}x{height}.")
    sides = (math.sqrt(area * width / height), math.sqrt(area * height / width))
    floors = (math.floor(side / multiple) for side in sides)
    wides, highs = ([max(1, floor + step) * multiple for step in (0, 1)] for floor in floors)

    def badness(size: tuple[int, int]) -> float:
        wide, high = size
        return 2 * abs(math.log(wide / high * height / width)) + abs(math.log(wide * high / area))

    return min(itertools.product(wides, highs), key=badness)


@dataclass(frozen=True)
class Fit:
    """The way from an image's own size to the size it is worked at, and back.

    Args:
        source_size: (width, height) of the image, in pixels.
        working_size: (width, height) the models see.

    Example:
        >>> fit = Fit.plan((400, 300))
        >>> fit.working_size, fit.points_back(fit.points(np.array([[10.0, 20.0]]))).round(6).tolist()
        ((256, 192), [[10.0, 20.0]])
    """

    source_size: tuple[int, int]
    working_size: tuple[int, int]

    @classmethod
    def plan(cls, source_size: tuple[int, int], *, area: int = 256 * 256, multiple: int = 64) -> "Fit":
        """Fit an image of (width, height) to about `area` pixels, as `fit_size` chooses."""
        return cls(source_size, fit_size(*source_size, area=area, multiple=multiple))

    def points(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Take (x, y) from pixels of the image to pixels of the working size, shape `(n, 2)`."""
        return resize_points(points, self.source_size, self.working_size)

    def points_back(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Take (x, y) from pixels of the working size back to pixels of the image, shape `(n, 2)`."""
        return resize_points(points, self.working_size, self.source_size)

    def image(self, image: Image.Image) -> Float[Tensor, "1 3 h w"]:
        """Resize the image (bicubic, antialiased) to the working size: floats in [0, 1].

        Raises:
            ValueError: If the image is not of `source_size`.
        """
        if image.size != self.source_size:
            raise ValueError(f"This fit is for images of {self.source_size}, got one of {image.size}.")
        return to_tensor(image.convert("RGB").resize(self.working_size, Image.Resampling.BICUBIC))

    def image_back(self, image: Float[Tensor, "3 h w"] | Float[Tensor, "1 3 h w"]) -> Image.Image:
        """Resize floats in [0, 1] (bicubic, antialiased) to an RGB image of the source's size."""
        width, height = self.source_size
        batch = image.reshape(1, 3, *image.shape[-2:]).float()
        return to_pil(F.interpolate(batch, size=(height, width), mode="bicubic", antialias=True))

    def flow_back(self, flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h2 w2"]:
        """Resize a flow, in pixels of its own grid, to one in pixels of the image."""
        width, height = self.source_size
        return resize_flow(flow, (height, width))


def composite(original: Image.Image, edited: Image.Image, mask: np.ndarray) -> Image.Image:
    """Lay the edit over the original where the mask allows it; elsewhere every byte stays.

    Args:
        original: The image before.
        edited: The image after, of the same size.
        mask: 1 where the edit shows, in [0, 1], shape `(h, w)`.

    Returns:
        An RGB image of that size.

    Raises:
        ValueError: If the three sizes differ.

    Example:
        >>> black, white = Image.new("RGB", (2, 1)), Image.new("RGB", (2, 1), "white")
        >>> np.array(composite(black, white, np.array([[0.0, 1.0]])))[0, :, 0].tolist()
        [0, 255]
    """
    sizes = {original.size, edited.size, mask.shape[::-1]}
    if len(sizes) > 1:
        raise ValueError(
            "The original, the edit and the mask must have one size, "
            f"got {original.size}, {edited.size} and {mask.shape[::-1]}."
        )
    before, after = (np.asarray(image.convert("RGB"), dtype=np.float32) for image in (original, edited))
    share = mask.astype(np.float32)[:, :, None]
    return Image.fromarray(np.rint(before + share * (after - before)).astype(np.uint8))


def _sentence(error: Exception) -> str:
    """Return the reason inside an exception, as the end of a sentence."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((reason or type(error).__name__).split()).rstrip(".")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        limit = 1.0 if image.mode == "F" else 65535.0
        if not ((values >= 0) & (values <= limit)).all():
            raise ValueError(f"its values must lie in [0, {limit:g}] in mode {image.mode}")
        image = Image.fromarray(np.rint(values / limit * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.load()
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    deep = array.dtype == np.uint16 and array.ndim == 2
    if not array.size or not shape_fits or not (array.dtype == np.uint8 or deep):
        raise ValueError(f"An image must be {WHAT}, got an array {array.shape} of {array.dtype}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _from_tensor(tensor: Tensor) -> Image.Image:
    if not tensor.is_floating_point() or tensor.ndim != 3 or len(tensor) != 3 or not tensor.numel():
        raise ValueError(f"An image must be {WHAT}, got a tensor {tuple(tensor.shape)} of {tensor.dtype}.")
    if not ((tensor >= 0) & (tensor <= 1)).all():
        low, high = tensor.min().item(), tensor.max().item()
        raise ValueError(f"An image as a tensor must lie in [0, 1], got values from {low:g} to {high:g}.")
    return to_pil(tensor)
