"""Undo and redo: a sketch with those before it and those that were undone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dragstudy.widgets.sketch import Sketch


@dataclass(frozen=True)
class History:
    """A sketch with those before it and those that were undone; every change gives a new history.

    Example:
        >>> history = History().apply({"type": "add", "handle": [1, 2], "target": [3, 4]})
        >>> len(history.undo().present.drags), history.undo().redo() == history
        (0, True)
    """

    present: Sketch = field(default_factory=Sketch)
    past: tuple[Sketch, ...] = ()
    future: tuple[Sketch, ...] = ()  # the next one last

    def apply(self, action: Mapping[str, Any]) -> "History":
        """The history after an action of `Sketch.apply`, or `{"type": "undo"}`, or `{"type": "redo"}`."""
        if action.get("type") in ("undo", "redo"):
            return getattr(self, action["type"])()
        return self.commit(self.present.apply(action))

    def commit(self, sketch: Sketch) -> "History":
        """Go on to another sketch; the same history if it is the present one."""
        return self if sketch == self.present else History(sketch, (*self.past, self.present))

    def undo(self) -> "History":
        """Go back by one change, if there is any."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (*self.future, self.present))

    def redo(self) -> "History":
        """Take back the last undo, if there is any."""
        if not self.future:
            return self
        return History(self.future[-1], (*self.past, self.present), self.future[:-1])

    def follow(self, sketch: Sketch) -> "History":
        """Go where somebody with a history of his own has gone: a neighbour is reached by undo or redo."""
        if self.past and sketch == self.past[-1]:
            return self.undo()
        if self.future and sketch == self.future[-1]:
            return self.redo()
        return self.commit(sketch)
