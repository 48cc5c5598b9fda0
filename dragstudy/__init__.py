"""Drag-based image editing: train, ablate, compare and use its methods through one call."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragstudy.drags import DragInstruction
    from dragstudy.pipelines import load
    from dragstudy.widgets.editor import DragEditor
    from dragstudy.widgets.session import DragSession

__all__ = ["DragEditor", "DragInstruction", "DragSession", "__version__", "load"]
__version__ = "0.1.0"

# imported when first asked for, so that `import dragstudy` is quick
_HOMES = {
    "DragEditor": "dragstudy.widgets.editor",
    "DragInstruction": "dragstudy.drags",
    "DragSession": "dragstudy.widgets.session",
    "load": "dragstudy.pipelines",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
