"""A mask as the operations that paint it: exact at every size, small on the wire, and free to undo.

A mask is bool `(h, w)`, True where the picture may change. `canvas.js` paints the same, bit for bit.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from dragstudy.drags import resize_points

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A stroke of the brush (`value` 1) or the eraser (0): the pixels at most `radius` from its line."""

    points: tuple[Point, ...]
    radius: float
    value: int = 1
    op: ClassVar[str] = "stroke"

    def __post_init__(self) -> None:
        """Refuse what is no stroke."""
        numbers = [self.radius, *(value for point in self.points for value in point)]
        if (
            not self.points
            or not all(map(math.isfinite, numbers))
            or self.radius < 0
            or self.value not in (0, 1)
        ):
            raise ValueError(
                f"a stroke needs points, a radius of at least 0 and the value 0 or 1, got {self}"
            )

    def paint(self, mask: np.ndarray) -> np.ndarray:
        """The mask with the stroke on it; a stroke of one point is a disc."""
        painted, (h, w) = mask.copy(), mask.shape
        for a, b in zip(self.points, self.points[1:] or self.points, strict=False):
            left, right = _span(a[0], b[0], self.radius, w)
            top, bottom = _span(a[1], b[1], self.radius, h)
            y, x = np.ogrid[top:bottom, left:right]
            near = _squared_distance(x.astype(float), y.astype(float), a, b) <= self.radius * self.radius
            painted[top:bottom, left:right][near] = self.value
        return painted


@dataclass(frozen=True)
class Fill:
    """Everything may change (`value` 1), or nothing (0)."""

    value: int
    op: ClassVar[str] = "fill"

    def __post_init__(self) -> None:
        """Refuse another value."""
        if self.value not in (0, 1):
            raise ValueError(f"a mask is filled with 0 or 1, got {self.value!r}")

    def paint(self, mask: np.ndarray) -> np.ndarray:
        """A mask of one value."""
        return np.full_like(mask, self.value)


@dataclass(frozen=True)
class Invert:
    """What might change is kept, and what was kept may change."""

    op: ClassVar[str] = "invert"

    def paint(self, mask: np.ndarray) -> np.ndarray:
        """The other pixels."""
        return ~mask


@dataclass(frozen=True)
class Loaded:
    """A mask from a file: `png` is a PNG of the picture's size in base64, True from 128 on."""

    png: str
    op: ClassVar[str] = "image"

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> "Loaded":
        """Keep a mask in [0, 1], `(h, w)`, in black and white."""
        buffer = io.BytesIO()
        Image.fromarray(mask >= 0.5).save(buffer, format="PNG")
        return cls(base64.b64encode(buffer.getvalue()).decode("ascii"))

    def paint(self, mask: np.ndarray) -> np.ndarray:
        """The mask of the file.

        Raises:
            ValueError: If it has another size, or cannot be read.
        """
        try:
            loaded = np.asarray(Image.open(io.BytesIO(base64.b64decode(self.png))).convert("L")) >= 128
        except (ValueError, OSError) as error:
            raise ValueError(f"the mask of a sketch must be a PNG in base64: {error}") from None
        if loaded.shape != mask.shape:
            raise ValueError(f"the mask has {loaded.shape[::-1]} pixels, the picture {mask.shape[::-1]}")
        return loaded


MaskOperation = Stroke | Fill | Invert | Loaded


def rasterise(operations: Sequence[MaskOperation], size: tuple[int, int]) -> np.ndarray:
    """Paint a mask for a picture of (width, height): bool `(h, w)`.

    Without a mask everything may change: erasing starts from that. Who paints first means that and no more:
    painting starts from nothing.

    Example:
        >>> rasterise([Stroke(((1.0, 0.0),), 1.0)], (4, 1)).tolist()
        [[True, True, True, False]]
    """
    paints = bool(operations) and isinstance(operations[0], Stroke) and operations[0].value == 1
    mask = np.full(size[::-1], not paints)
    for operation in operations:
        mask = operation.paint(mask)
    return mask


def resize_operation(
    operation: MaskOperation, size: tuple[int, int], new_size: tuple[int, int]
) -> MaskOperation:
    """The operation for the same picture at another (width, height).

    Raises:
        ValueError: If it is a mask from a file, and that is not of `size`.
    """
    match operation:
        case Stroke(points, radius, value):
            moved = resize_points(np.array(points, float), size, new_size)
            scale = math.sqrt(math.prod(new_size) / math.prod(size))
            return Stroke(tuple(map(tuple, moved.tolist())), radius * scale, value)
        case Loaded():
            full = Image.fromarray(operation.paint(np.empty(size[::-1], bool))).convert("L")
            return Loaded.from_mask(np.asarray(full.resize(new_size, Image.Resampling.BOX)) / 255)
    return operation


def operation_to_dict(operation: MaskOperation) -> dict[str, Any]:
    """An operation as JSON holds it: its fields, and `"op"`, its name."""
    fields = asdict(operation)
    if isinstance(operation, Stroke):
        fields["points"] = [list(point) for point in operation.points]
    return {"op": operation.op, **fields}


def operation_from_dict(values: Mapping[str, Any]) -> MaskOperation:
    """Read what `operation_to_dict` wrote.

    Raises:
        ValueError: If it is no operation.
    """
    match dict(values):
        case {"op": "stroke", "points": points, "radius": radius, "value": value}:
            return Stroke(tuple((float(x), float(y)) for x, y in points), float(radius), value)
        case {"op": "fill", "value": value}:
            return Fill(value)
        case {"op": "invert"}:
            return Invert()
        case {"op": "image", "png": str(png)}:
            return Loaded(png)
    raise ValueError(f"there is no such operation on a mask: {dict(values)!r}")


def _span(a: float, b: float, radius: float, length: int) -> tuple[int, int]:
    """The pixels along one axis that a segment may reach, as the ends of a slice."""
    first, last = math.floor(min(a, b) - radius), math.ceil(max(a, b) + radius)
    return min(max(first, 0), length), min(max(last + 1, 0), length)


def _squared_distance(x: np.ndarray, y: np.ndarray, a: Point, b: Point) -> np.ndarray:
    """From (x, y), `(1, w)` and `(h, 1)`, to the segment a-b; the order of operations is `canvas.js`'s."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    n = dx * dx + dy * dy
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / n, 0, 1) if n else 0.0
    ex, ey = x - (a[0] + t * dx), y - (a[1] + t * dy)
    return ex * ex + ey * ey
