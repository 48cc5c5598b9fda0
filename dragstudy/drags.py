"""What the user asks for: drags from handle points to target points, and a mask of what may change.

Points are `(n, 2)`, (x, y) in pixels of the image, with pixel centres at integers: an image `w` pixels
wide spans x in [-0.5, w - 0.5]. Sizes of images are (width, height), as in PIL. A drag of length zero
is an anchor: that point stays where it is.
"""

import base64
import io
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64
from PIL import Image

FIELDS = ("handle_points", "target_points", "mask", "image_size")
SESSION = "session"  # what an editing session keeps beside the drags that are drawn, in the same file


def resize_points(
    points: Float[np.ndarray, "*any 2"], source_size: tuple[int, int], target_size: tuple[int, int]
) -> Float64[np.ndarray, "*any 2"]:
    """Move points along when their image is resized: `x' = (x + 0.5) * w' / w - 0.5`.

    Args:
        points: (x, y) in pixels of the image before, shape `(..., 2)`.
        source_size: (width, height) of the image before.
        target_size: (width, height) of the image after.

    Returns:
        (x, y) in pixels of the image after, of the same shape.

    Example:
        >>> resize_points(np.array([[-0.5, 0.0]]), (100, 50), (200, 100)).tolist()
        [[-0.5, 0.5]]
    """
    # multiplied first: the other way round, rounding would carry a point on the rim over it
    return (points + 0.5) * np.asarray(target_size, dtype=np.float64) / np.asarray(source_size) - 0.5


def parse_drag(text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Read one drag as the command line writes it, `x,y:x,y`, in pixels: handle, then target.

    Raises:
        ValueError: If the text is anything else.

    Example:
        >>> parse_drag("120,90:140,90.5")
        ((120.0, 90.0), (140.0, 90.5))
    """
    try:
        handle, target = (tuple(float(value) for value in point.split(",")) for point in text.split(":"))
        (handle_x, handle_y), (target_x, target_y) = handle, target
    except ValueError:
        raise ValueError(
            f"A drag must look like 120,90:140,90 (x,y of handle:target), got {text!r}."
        ) from None
    return (handle_x, handle_y), (target_x, target_y)


@dataclass(frozen=True, eq=False, init=False)
class DragInstruction:
    """Drags, what may change, and the size of the image that both belong to.

    Args:
        handle_points: (x, y) in pixels where each drag starts, shape `(n, 2)`: lists, arrays or tensors.
        target_points: (x, y) in pixels where each drag ends, shape `(n, 2)`.
        mask: 1 where the image may change, shape `(h, w)`: bool, 0..1, or uint8 0..255. It is kept
            as float32 in steps of 1/255, which is what a PNG holds.
        image_size: (width, height); by default the mask's, and unknown without a mask.

    Raises:
        ValueError: If there are no points, unequal numbers of them, NaN, a point outside the
            image (where its size is known), or a mask of another size.

    Example:
        >>> drags = DragInstruction([[10, 20], [5, 5]], [[13, 16], [5, 5]], image_size=(64, 32))
        >>> drags.displacements.tolist(), drags.anchors.tolist()
        ([[3.0, -4.0], [0.0, 0.0]], [False, True])
        >>> DragInstruction.from_json(drags.to_json()) == drags
        True
    """

    handle_points: Float64[np.ndarray, "n 2"]
    target_points: Float64[np.ndarray, "n 2"]
    mask: Float32[np.ndarray, "h w"] | None = None
    image_size: tuple[int, int] | None = None

    def __init__(
        self, handle_points: Any, target_points: Any, mask: Any = None, image_size: Any = None
    ) -> None:
        """Check and copy what was given; every field is then of the type declared above."""
        size, mask = _checked_size(image_size), _checked_mask(mask)
        if mask is not None:
            mask_size = mask.shape[1], mask.shape[0]
            size = size or mask_size
            if mask_size != size:
                raise ValueError(f"The mask must have the image's size {_by(size)}, got {_by(mask_size)}.")
        handles = _checked_points(handle_points, "handle_points", size)
        targets = _checked_points(target_points, "target_points", size)
        if len(handles) != len(targets):
            raise ValueError(
                "Every handle point needs one target point, "
                f"got {len(handles)} handle_points and {len(targets)} target_points."
            )
        for name, value in zip(FIELDS, (handles, targets, mask, size), strict=True):
            object.__setattr__(self, name, value)

    @property
    def displacements(self) -> Float64[np.ndarray, "n 2"]:
        """How far each point is dragged, (x, y) in pixels, shape `(n, 2)`."""
        return self.target_points - self.handle_points

    @property
    def anchors(self) -> Bool[np.ndarray, " n"]:
        """Which drags have length zero, shape `(n,)`."""
        return (self.displacements == 0).all(axis=1)

    def resize(self, size: tuple[int, int]) -> "DragInstruction":
        """Follow the image to a new (width, height): points by pixel centres, the mask antialiased.

        Raises:
            ValueError: If the size of the image is unknown, or the new one is not positive.
        """
        if self.image_size is None:
            raise ValueError("Drags can be resized only when their image_size is known, got None.")
        width, height = size = _checked_size(size)
        mask = self.mask
        if mask is not None:
            resized = F.interpolate(
                torch.from_numpy(mask)[None, None], size=(height, width), mode="bilinear", antialias=True
            )
            mask = resized[0, 0].clamp(0, 1).numpy()
        handles, targets = (
            resize_points(points, self.image_size, size)
            for points in (self.handle_points, self.target_points)
        )
        return DragInstruction(handles, targets, mask, size)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the drags as JSON text, the mask as a base64 PNG; also write it to `path` if given."""
        mask = None
        if self.mask is not None:
            buffer = io.BytesIO()
            Image.fromarray(np.rint(self.mask * 255).astype(np.uint8)).save(buffer, format="PNG")
            mask = base64.b64encode(buffer.getvalue()).decode("ascii")
        size = None if self.image_size is None else list(self.image_size)
        values = (self.handle_points.tolist(), self.target_points.tolist(), mask, size)
        text = json.dumps(dict(zip(FIELDS, values, strict=True)))
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> "DragInstruction":
        """Read drags from JSON text (anything that starts with `{`) or from a file that holds it.

        The file of an editing session is one, too: these are the drags that it left off with.

        Raises:
            ValueError: If the file cannot be read, or does not hold valid drags.
        """
        text = str(source)
        if isinstance(source, Path) or not text.lstrip().startswith("{"):
            try:
                text = Path(source).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"The drags of {str(source)!r} cannot be read: {error}.") from None
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"Drags must be valid JSON, got an error: {error}.") from None
        if isinstance(fields, dict):
            fields.pop(SESSION, None)
        if not isinstance(fields, dict) or not {*FIELDS[:2]} <= {*fields} <= {*FIELDS}:
            got = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
            raise ValueError(
                f"Drags in JSON must be an object with {FIELDS} (the first two at least), got {got}."
            )
        if fields.get("mask") is not None:
            fields["mask"] = _decoded_mask(fields["mask"])
        return cls(**fields)

    def __eq__(self, other: object) -> bool:
        """Equal points, masks and sizes."""
        if not isinstance(other, DragInstruction):
            return NotImplemented
        mine, theirs = ([getattr(drags, name) for name in FIELDS] for drags in (self, other))
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _plain(values: Any) -> Any:
    """Bring a tensor, wherever it is and of whatever precision, to numpy; leave the rest alone."""
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def _checked_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        width, height = (int(value) for value in size)
        valid = width > 0 and height > 0 and (width, height) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise ValueError(
            f"The size of an image must be two positive whole numbers (width, height), got {size!r}."
        )
    return width, height


def _checked_points(points: Any, name: str, size: tuple[int, int] | None) -> Float64[np.ndarray, "n 2"]:
    try:
        checked = np.array(_plain(points), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be n points of two numbers (x, y), got {reprlib.repr(points)}."
        ) from None
    if not checked.size:
        raise ValueError(f"At least one drag is needed, got no {name}.")
    if checked.ndim != 2 or checked.shape[1] != 2:
        raise ValueError(f"{name} must be n points (x, y) of shape (n, 2), got shape {checked.shape}.")
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} must be finite numbers, got {tuple(checked[~finite][0].tolist())}.")
    if size is not None:
        inside = ((checked >= -0.5) & (checked <= np.array(size) - 0.5)).all(axis=1)
        if not inside.all():
            raise ValueError(
                f"{name} must lie inside the {_by(size)} image, x in [-0.5, {size[0] - 0.5}] and "
                f"y in [-0.5, {size[1] - 0.5}], got {tuple(checked[~inside][0].tolist())}."
            )
    return checked


def _checked_mask(mask: Any) -> Float32[np.ndarray, "h w"] | None:
    if mask is None:
        return None
    try:
        values = np.asarray(_plain(mask))
        bytes_ = values.dtype == np.uint8 and values.max(initial=0) > 1
        checked = values.astype(np.float32) / (255 if bytes_ else 1)
    except (TypeError, ValueError):
        raise ValueError(f"The mask must be an array of numbers, got {type(mask).__name__}.") from None
    if checked.ndim != 2 or not checked.size:
        raise ValueError(f"The mask must have the shape (height, width), got shape {checked.shape}.")
    if not ((checked >= 0) & (checked <= 1)).all():
        raise ValueError(
            "The mask must lie in [0, 1], 1 where the image may change, "
            f"got values from {checked.min():g} to {checked.max():g}."
        )
    return np.rint(checked * 255) / np.float32(255)


def _decoded_mask(text: Any) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            return np.asarray(image.convert("L"), dtype=np.float32) / 255
    except (TypeError, ValueError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"The mask in JSON must be a PNG in base64, got an error: {error}.") from None
