"""The canvas on which drags and a mask are drawn. What the hand does, `canvas.js` does in the browser."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from dragstudy.widgets.display import encoded

LOSSLESS_AREA = 512 * 512  # up to here a PNG is small enough, and every pixel is seen when zoomed in


def display_bytes(image: Image.Image) -> bytes:
    """Encode a picture for the browser, no larger than a screen: as PNG if it is small, else as JPEG.

    Example:
        >>> display_bytes(Image.new("RGB", (64, 48)))[1:4]
        b'PNG'
    """
    small = image.width * image.height <= LOSSLESS_AREA
    return encoded(image, format="PNG" if small else "JPEG")


class DragCanvas(anywidget.AnyWidget):
    """A photograph to draw drags and a mask on, with a preview, and a result to compare it with.

    The browser keeps the history: it undoes and redoes while the kernel is busy, and goes back to an earlier
    picture at once. A sketch set from Python is one more change, which the user can undo. Changes made in the
    browser may arrive merged: look at the state, do not count them. Replace state, never change it in place.

    On Enter and on Escape it sends a message, `{"type": "command", "name": "edit"}` or `"cancel"`.

    Attributes:
        picture: The photograph: its `id` in the session, `width`, `height`, and `data`, a PNG or a JPEG that
            may be smaller. Empty where there is none.
        preview: What the drags would do: `picture`, the `id` of what they are drawn on; `data`, a picture;
            `arrows`, `[[x, y, dx, dy], ...]` in pixels of the photograph; `flow`, a picture of the flow in
            colours, or None. Empty where there is none.
        after: A result to compare with: `data`, a picture, and `label`. Empty where there is none.
        sketch: What is drawn, up to the last gesture that has ended, as `Sketch.to_dict` writes it.
        live: The sketch as the running gesture would leave it; empty while none runs. The browser sets it.
        tool: What the pointer does: `"drag"`, `"brush"`, `"erase"` or `"pan"`.
        radius: Of brush and eraser, in pixels of the photograph.
        view: What is shown: `"picture"`, `"preview"` or `"compare"`.
        split: Where the divider of a comparison is, from 0, at the left, to 1.
        flow_view: How the preview's flow is shown: `"none"`, `"colour"` or `"arrows"`.

    Example:
        >>> canvas = DragCanvas()
        >>> canvas.show(Image.new("RGB", (300, 200)))
        >>> canvas.picture["width"], canvas.sketch["drags"]
        (300, [])
    """

    _esm = Path(__file__).with_name("canvas.js")
    _css = Path(__file__).with_name("canvas.css")

    picture = traitlets.Dict().tag(sync=True)
    preview = traitlets.Dict().tag(sync=True)
    after = traitlets.Dict().tag(sync=True)
    sketch = traitlets.Dict().tag(sync=True)
    live = traitlets.Dict().tag(sync=True, echo_update=False)  # nobody else has to know, and it comes often
    tool = traitlets.Enum(["drag", "brush", "erase", "pan"], "drag").tag(sync=True)
    radius = traitlets.Float(24.0, min=0).tag(sync=True)
    view = traitlets.Enum(["picture", "preview", "compare"], "preview").tag(sync=True)
    split = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    flow_view = traitlets.Enum(["none", "colour", "arrows"], "none").tag(sync=True)

    @traitlets.default("sketch")
    def _empty_sketch(self) -> dict[str, Any]:
        return {"picture": 0, "drags": [], "mask": []}

    def show(self, image: Image.Image, id: int = 0) -> None:
        """Show a photograph. A sketch's `picture` says by this id on which one it is drawn."""
        self.picture = {"id": id, "width": image.width, "height": image.height, "data": display_bytes(image)}

    def show_after(self, image: Image.Image | None, label: str = "Result") -> None:
        """Offer a result to compare the photograph with; None takes it away."""
        self.after = {} if image is None else {"data": display_bytes(image), "label": label}

    def download(self, name: str, data: bytes, mime: str) -> None:
        """Have the browser save data as a file, where it keeps downloads."""
        self.send({"type": "download", "name": name, "mime": mime}, [data])

    def copy(self, text: str) -> None:
        """Have the browser copy a text; where it refuses, the canvas says so."""
        self.send({"type": "copy", "text": text})
