"""What is drawn, as calls: each is one change, which is told to whoever listens and can be undone."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from dragstudy.widgets.history import History
from dragstudy.widgets.sketch import Point, Sketch


class Drawing:
    """A history of sketches that several threads may change, with a call for each action.

    Attributes:
        history: What is drawn, before and after.

    Example:
        >>> drawing = Drawing()
        >>> drawing.drag((30, 30), (40, 32))
        >>> drawing.undo()
        >>> drawing.sketch.drags, len(drawing.history.future)
        ((), 1)
    """

    def __init__(self) -> None:
        self.history = History()
        self._lock = Lock()
        self._callbacks: list[Callable[[str], None]] = []

    @property
    def sketch(self) -> Sketch:
        """What is drawn now."""
        return self.history.present

    def act(self, action: Mapping[str, Any]) -> None:
        """Apply an action of `History.apply`."""
        self._go(lambda history: history.apply(action))

    def show(self, sketch: Sketch) -> None:
        """Go on to another sketch."""
        self._go(lambda history: history.commit(sketch))

    def follow(self, sketch: Sketch) -> None:
        """Go where a canvas with a history of its own has gone."""
        self._go(lambda history: history.follow(sketch))

    def drag(self, handle: Point, target: Point) -> None:
        """Add a drag, in pixels of the picture."""
        self.act({"type": "add", "handle": handle, "target": target})

    def move(self, index: int, *, handle: Point | None = None, target: Point | None = None) -> None:
        """Move an end of a drag, or both."""
        for end, to in (("handle", handle), ("target", target)):
            if to is not None:
                self.act({"type": "move", "index": index, "end": end, "to": to})

    def remove(self, index: int) -> None:
        """Take a drag away."""
        self.act({"type": "remove", "index": index})

    def brush(self, *points: Point, radius: float) -> None:
        """Paint where the picture may change, along a line of points, in pixels of the picture."""
        self._stroke(points, radius, 1)

    def erase(self, *points: Point, radius: float) -> None:
        """Paint where the picture must stay."""
        self._stroke(points, radius, 0)

    def fill(self, value: int = 1) -> None:
        """Let everything change (1), or nothing (0)."""
        self.act({"type": "mask", "op": {"op": "fill", "value": value}})

    def invert(self) -> None:
        """Let change what must stay, and keep what might change."""
        self.act({"type": "mask", "op": {"op": "invert"}})

    def clear(self, what: str = "drags") -> None:
        """Take all drags away, or the `"mask"`."""
        self.act({"type": "clear", "what": what})

    def undo(self) -> None:
        """Take the last change back, if there is any."""
        self.act({"type": "undo"})

    def redo(self) -> None:
        """Do again what was undone last."""
        self.act({"type": "redo"})

    def on_update(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Be told of changes, of `"sketch"`; gives back a function that ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def _stroke(self, points: tuple[Point, ...], radius: float, value: int) -> None:
        stroke = {"op": "stroke", "points": points, "radius": radius, "value": value}
        self.act({"type": "mask", "op": stroke})

    def _go(self, change: Callable[[History], History]) -> None:
        with self._lock:  # but not while it is told: who listens may hold a lock of his own
            before, after = self.history, change(self.history)
            self.history = after
        if after is not before:
            self._tell("sketch")

    def _tell(self, what: str) -> None:
        for callback in tuple(self._callbacks):
            callback(what)
