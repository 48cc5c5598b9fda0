"""What is drawn on a picture: drags, and a mask as the strokes that paint it.

A sketch is small and never changes: an action makes a new one. Undoing, saving, and sending it between the
browser and Python rest on that. `canvas.js` has the same actions in JavaScript. Points are (x, y), pixels of
the picture, with pixel centres at integers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dragstudy.drags import DragInstruction
from dragstudy.widgets.mask import MaskOperation, operation_from_dict, operation_to_dict, rasterise

Point = tuple[float, float]
Drag = tuple[Point, Point]  # handle, target; equal ones are an anchor


@dataclass(frozen=True)
class Sketch:
    """The drags and the mask that are drawn on one picture of a session.

    Args:
        picture: Which picture of the session.
        drags: Handle and target of each.
        mask: The operations that paint the mask; without any, everything may change.

    Example:
        >>> sketch = Sketch().apply({"type": "add", "handle": [10, 20], "target": [13, 16]})
        >>> sketch.apply({"type": "move", "index": 0, "end": "target", "to": [5, 5]}).drags
        (((10.0, 20.0), (5.0, 5.0)),)
    """

    picture: int = 0
    drags: tuple[Drag, ...] = ()
    mask: tuple[MaskOperation, ...] = ()

    def apply(self, action: Mapping[str, Any]) -> "Sketch":
        """The sketch after an action; an equal one if the action changes nothing.

        Args:
            action: One of
                `{"type": "add", "handle": [x, y], "target": [x, y]}`,
                `{"type": "move", "index": i, "end": "handle" or "target", "to": [x, y]}`,
                `{"type": "remove", "index": i}`,
                `{"type": "mask", "op": {...}}` with what `dragstudy.widgets.mask` reads,
                `{"type": "clear", "what": "drags" or "mask"}`,
                `{"type": "replace", "sketch": {...}}`.

        Raises:
            ValueError: If it is none of these.
        """
        match dict(action):
            case {"type": "add", "handle": handle, "target": target}:
                return replace(self, drags=(*self.drags, (_point(handle), _point(target))))
            case {"type": "move", "index": index, "end": "handle" | "target" as end, "to": to}:
                return self._with_drag(index, lambda drag: _moved(drag, end, _point(to)))
            case {"type": "remove", "index": index}:
                return self._with_drag(index, lambda drag: None)
            case {"type": "mask", "op": operation}:
                return replace(self, mask=(*self.mask, operation_from_dict(operation)))
            case {"type": "clear", "what": "drags" | "mask" as what}:
                return replace(self, **{what: ()})
            case {"type": "replace", "sketch": sketch}:
                return Sketch.from_dict(sketch)
        raise ValueError(f"there is no such action on a sketch: {dict(action)!r}")

    def _with_drag(self, index: int, change: Any) -> "Sketch":
        drags = [change(drag) if k == index else drag for k, drag in enumerate(self.drags)]
        return replace(self, drags=tuple(drag for drag in drags if drag is not None))

    def raster(self, size: tuple[int, int]) -> np.ndarray | None:
        """The mask for a picture of (width, height), bool `(h, w)`; None where there is none."""
        return rasterise(self.mask, size) if self.mask else None

    def instruction(self, size: tuple[int, int]) -> DragInstruction:
        """The drags and the mask as a pipeline takes them.

        Raises:
            ValueError: If there are no drags, or they do not fit a picture of (width, height).
        """
        handles, targets = [drag[0] for drag in self.drags], [drag[1] for drag in self.drags]
        return DragInstruction(handles, targets, self.raster(size), size)

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON holds it."""
        drags = [[list(handle), list(target)] for handle, target in self.drags]
        return {
            "picture": self.picture,
            "drags": drags,
            "mask": [operation_to_dict(one) for one in self.mask],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sketch":
        """Read what `to_dict` wrote, from a file or from the browser.

        Raises:
            ValueError: If it is no sketch.
        """
        try:
            drags = tuple((_point(handle), _point(target)) for handle, target in values["drags"])
            mask = tuple(operation_from_dict(one) for one in values["mask"])
            return cls(int(values["picture"]), drags, mask)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a sketch needs picture, drags and mask: {error!r}") from None


def _point(values: Any) -> Point:
    x, y = (float(value) for value in values)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"a point must be two finite numbers, got {values!r}")
    return x, y


def _moved(drag: Drag, end: str, to: Point) -> Drag:
    return (to, drag[1]) if end == "handle" else (drag[0], to)
