"""A canvas and a session kept in step: what is drawn in the browser and in Python, previews, comparisons."""

from threading import RLock
from typing import Any

from PIL import Image

from dragstudy.flow import flow_to_rgb
from dragstudy.widgets.canvas import DragCanvas
from dragstudy.widgets.display import StatusLine, encoded, guarded
from dragstudy.widgets.preview import flow_arrows
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.sketch import Sketch
from dragstudy.widgets.strip import describe

BRUSH = 3 / 32  # the brush's radius at first, as a share of the longer side


class CanvasLink:
    """The canvas of a session. Both are compared and never counted, since messages of the browser may merge.

    Args:
        session: Whose pictures and drawings are shown.
        status: Where failures are told.
        lock: Held by whatever changes both: callbacks come from several threads, or one after the other.

    Attributes:
        canvas: Shows the session's present sketch from the beginning.
    """

    def __init__(self, session: DragSession, status: StatusLine, lock: RLock):
        self.session, self.status, self._lock = session, status, lock
        self._after: int | None = None  # the picture that stands in the canvas's `after`
        self._previewed: tuple[str, Sketch] | None = None
        self.canvas = DragCanvas(sketch=session.sketch.to_dict())  # not a change that could be undone
        self._show_picture()
        self.canvas.observe(self._follow, names=["sketch", "live"])
        self.canvas.observe(lambda _: self.show_preview(), names=["flow_view"])
        self.request_preview()

    def show_sketch(self) -> None:
        """Bring the canvas to where the session is, unless it is there."""
        with self._lock, self.canvas.hold_sync():
            self._show_picture()
            sketch = self.session.sketch
            if _read(self.canvas.sketch) != sketch:
                self.canvas.sketch = sketch.to_dict()
        self.request_preview()

    def request_preview(self) -> None:
        """Ask for a preview of what is being drawn, unless that was the last one asked for."""
        with self._lock:
            sketch = _read(self.canvas.live) or self.session.sketch
            if (wanted := (self.session.method, sketch)) != self._previewed:
                self._previewed = wanted
                self.session.request_preview(sketch)

    def close(self) -> None:
        """Take the canvas away, and the photograph out of the browser."""
        self.canvas.unobserve_all()
        self.canvas.close()

    @guarded
    def show_preview(self) -> None:
        """Give the canvas the session's preview, and of its flow what the canvas asks for."""
        with self._lock:
            preview, view = self.session.preview, self.canvas.flow_view
            if preview is None:
                self.canvas.preview = {}
                return
            number = preview.sketch.picture
            arrows, flow = [], None
            if view == "arrows":
                arrows = flow_arrows(preview.flow, self.session.pictures[number].size).tolist()
            elif view == "colour":
                flow = encoded(Image.fromarray(flow_to_rgb(preview.flow)[0].permute(1, 2, 0).numpy()))
            shown = encoded(preview.image)
            self.canvas.preview = {"picture": number, "data": shown, "arrows": arrows, "flow": flow}

    def show_after(self, picture: int | None) -> None:
        """Have the canvas compare what is drawn on with another picture of its size; None: with none."""
        pictures, present = self.session.pictures, self.session.sketch.picture
        if picture == present or picture is None or pictures[picture].size != pictures[present].size:
            picture = None
        if picture != self._after:
            self._after = picture
            if picture is None:
                self.canvas.show_after(None)
            else:
                self.canvas.show_after(pictures[picture], describe(self.session, picture).splitlines()[0])

    def _show_picture(self) -> None:
        """Give the canvas the picture that is drawn on, and a brush that suits its size."""
        number, shown = self.session.sketch.picture, self.canvas.picture
        if not self.session.pictures or shown.get("id") == number:
            return
        image = self.session.pictures[number]
        if (shown.get("width"), shown.get("height")) != image.size:
            self.canvas.radius = max(1.0, round(BRUSH * max(image.size), 2))
        self.canvas.show(image, number)

    @guarded
    def _follow(self, _change: Any) -> None:
        """Bring the session to where the canvas is by now."""
        with self._lock:
            if self.session.pictures:
                try:
                    self.session.follow(Sketch.from_dict(self.canvas.sketch))
                except ValueError:
                    self.show_sketch()
                    raise
            self.request_preview()


def _read(values: dict[str, Any]) -> Sketch | None:
    """A sketch from the browser; None if it is none, or none that can be read."""
    try:
        return Sketch.from_dict(values)
    except ValueError:
        return None
