"""What an editor shows and says: pictures for the browser, and a line in which failures are sentences."""

import base64
import io
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

SCREEN = 2048  # pixels; none shows more of a whole picture
QUALITY = 90  # of the JPEGs that are shown; what is kept is never one


def encoded(image: Image.Image, side: int = SCREEN, *, format: str = "JPEG") -> bytes:
    """A picture as the browser gets it, its longer side at most `side` pixels."""
    shown = image.convert("RGB")
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)  # of the copy; a small one stays as it is
    content = io.BytesIO()
    shown.save(content, format, quality=QUALITY)
    return content.getvalue()


def figure(image: Image.Image, caption: str, *, side: int = 1024, busy: bool = False) -> str:
    """A picture above its caption, in HTML; the caption, a plain text, is also what is read out for it."""
    data = base64.b64encode(encoded(image, side)).decode("ascii")
    first, *rest = (escape(line) for line in caption.splitlines())
    text = "<br>".join([f"<strong>{first}</strong>", *rest])
    return (
        f'<figure class="dragstudy-figure" aria-busy="{str(busy).lower()}">'
        f'<img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    Example:
        >>> counted(1, "drag"), counted(0, "drag")
        ('1 drag', '0 drags')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


class StatusLine(anywidget.AnyWidget):
    """One line that says what has happened, read out by screen readers.

    Attributes:
        text: What it says.
        kind: `"info"` or `"error"`.
        error: The exception of which it speaks, or None.
    """

    _esm = Path(__file__).with_name("editor.js")
    _css = Path(__file__).with_name("editor.css")
    text = traitlets.Unicode().tag(sync=True)
    kind = traitlets.Enum(["info", "error"], "info").tag(sync=True)

    def __init__(self) -> None:
        self.error: Exception | None = None
        super().__init__()

    def say(self, text: str) -> None:
        """Say that something is so."""
        self._set(text, "info", None)

    def fail(self, error: Exception) -> None:
        """Say in one sentence what went wrong."""
        text = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.strerror}: {error.filename}"
        elif not isinstance(error, ValueError):  # those are written for users, all others are surprises
            text = f"{type(error).__name__}: {text or 'no more is known'} (`raise editor.error` shows where)"
        self._set(text[:1].upper() + text[1:] + ".", "error", error)

    def _set(self, text: str, kind: str, error: Exception | None) -> None:
        self.error = error
        with self.hold_sync():
            self.text, self.kind = text, kind


def guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """Have a method's object say in its `status` what the method raises: a widget must live on."""

    @wraps(callback)
    def call(self: Any, *arguments: Any) -> None:
        try:
            callback(self, *arguments)
        except Exception as error:
            self.status.fail(error)

    return call
