"""The drag editor: a canvas and its controls around a session, which does the work."""

import base64
from pathlib import Path
from threading import RLock
from typing import Any

import ipywidgets

from dragstudy.drags import DragInstruction
from dragstudy.images import ImageLike
from dragstudy.widgets.canvas import DragCanvas
from dragstudy.widgets.code import as_code
from dragstudy.widgets.display import StatusLine, counted, encoded, guarded
from dragstudy.widgets.files import KeepPanel, OpenPanel, OwnFiles, read_file
from dragstudy.widgets.link import CanvasLink
from dragstudy.widgets.panels import MethodPanel, MethodsPanel, RunPanel
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.session_files import picture_files, picture_name, save_session
from dragstudy.widgets.strip import HistoryStrip, ResultPane, describe

PANELS = {
    "Method": "Method and settings",
    "Open": "Open a photograph or a session",
    "Methods": "Several methods on the same drags",
    "Keep": "Save, load, export, copy as code",
}


class DragEditor(ipywidgets.VBox):
    """Drag the content of a photograph with the mouse, in a notebook.

    Everything it does, its `session` can be told from Python, too; the editor shows it either way.

    Args:
        image: A photograph, of any kind that `dragstudy.images.load_image` reads; None: to be opened in the
            editor.
        method: As `dragstudy.load` knows it.
        session: A session to show, in place of a new one.
        variables: Where to look for pictures by name; by default the notebook's own variables.
        **options: Of a new session, such as `weights`, `seed` and `settings`.

    Attributes:
        session: The session that is shown; another one after a saved session was loaded.
        status: The line that says what has happened.

    Raises:
        ValueError: If the image cannot be read, or there is no such method or setting.

    Example:
        >>> from PIL import Image
        >>> editor = DragEditor(Image.new("RGB", (96, 64), "teal"), method="warp")
        >>> editor.session.drag((30, 30), (40, 32))
        >>> editor
        DragEditor of 1 picture with 1 drag and 0 rounds; run the notebook to draw
        >>> editor.close()
    """

    def __init__(
        self,
        image: ImageLike | None = None,
        method: str = "instantdrag-splat",
        *,
        session: DragSession | None = None,
        variables: dict[str, Any] | None = None,
        **options: Any,
    ):
        self._unsubscribe = _nothing
        self._link: CanvasLink | None = None
        self._lock = RLock()  # callbacks of the browser may run beside a cell and beside the session's thread
        self.status = StatusLine()
        self.result = ResultPane(self._continue)
        self.strip = HistoryStrip(self._look_at, self._continue)
        side = self._make_side(variables)
        self._stage = _classed("stage", ipywidgets.HBox())
        super().__init__([_classed("body", ipywidgets.HBox([self._stage, side])), self.strip])
        self.add_class("dragstudy-editor")
        self._show_session(session or DragSession(image, method, **options))
        if session is not None and image is not None:
            session.open(image)
        self.tabs.value = "Method" if self.session.pictures else "Open"

    @property
    def canvas(self) -> DragCanvas:
        """Where is drawn; another one after a saved session was loaded."""
        return self._link.canvas

    @property
    def error(self) -> Exception | None:
        """What went wrong last, or None."""
        return self.status.error

    def close(self) -> None:
        """Take the editor out of the notebook; its session stays as it is."""
        self._unsubscribe()
        self._unsubscribe = _nothing
        self._link.close()
        super().close()

    def __repr__(self) -> str:
        session = self.session
        pictures, rounds = counted(len(session.pictures), "picture"), counted(len(session.rounds), "round")
        drags = counted(len(session.sketch.drags), "drag")
        return f"DragEditor of {pictures} with {drags} and {rounds}; run the notebook to draw"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        data = super()._repr_mimebundle_(**kwargs)
        if self.session.pictures:  # what a saved notebook shows, which keeps no widgets
            data["image/jpeg"] = base64.b64encode(encoded(self.session.image, 512)).decode("ascii")
        return data

    # What it is made of

    def _make_side(self, variables: dict[str, Any] | None) -> ipywidgets.VBox:
        self.open_panel = OpenPanel(self._open_image, self._open_file, self.status, variables)
        self.keep_panel = KeepPanel(self._save, self._open_file, self._export, self._copy, self.status)
        self.method_panel = MethodPanel(
            self._use_method, self._use_seed, self._use_setting, self._reset_settings
        )
        self.methods_panel = MethodsPanel(self._edit_all)
        self.run_panel = RunPanel(self._edit, self._cancel)
        panels = [self.method_panel, self.open_panel, self.methods_panel, self.keep_panel]
        stack = ipywidgets.Stack(panels, selected_index=0)
        self.tabs = ipywidgets.ToggleButtons(options=list(PANELS), tooltips=list(PANELS.values()))
        ipywidgets.jslink((self.tabs, "index"), (stack, "selected_index"))  # works while Python does
        _classed("tabs", self.tabs)
        return _classed("side", ipywidgets.VBox([self.tabs, stack, self.run_panel, self.status]))

    def _show_session(self, session: DragSession) -> None:
        """Show a session, on a canvas of its own: the old one's undo belongs to the old one's pictures."""
        self._unsubscribe()
        old, self.session, self._own = self._link, session, OwnFiles()
        self._link = CanvasLink(session, self.status, self._lock)
        self.canvas.on_msg(self._command)
        self.canvas.observe(self._answer, names=["live"])
        self._unsubscribe = session.on_update(self._on_update)
        self._stage.children = [self.canvas, self.result]
        if old is not None:
            old.close()
        self._show_settings()
        self._show_picture(session.rounds[-1].result if session.rounds else None)
        self.run_panel.show(session.progress)

    # What the session tells, perhaps from its own thread

    @guarded
    def _on_update(self, what: str) -> None:
        with self._lock:
            match what:
                case "pictures" | "sketch":
                    self._show_sketch(what)
                case "settings":
                    self._show_settings()
                    self._link.request_preview()
                case "preview":
                    self._link.show_preview()
                case "progress":
                    self._show_progress()
                case "rounds":
                    self._show_round()
                case "error":
                    self.status.fail(self.session.error)
                    self._link.show_preview()  # there may be none any more

    def _show_sketch(self, what: str) -> None:
        if what == "sketch" and self.status.kind == "error":
            self.status.say("")  # it spoke of what was drawn before
        picture = self.canvas.picture.get("id")
        self._link.show_sketch()
        if picture != self.session.sketch.picture:
            self._show_picture(self.result.picture)

    def _show_settings(self) -> None:
        self.method_panel.show(self.session)

    def _show_picture(self, picture: int | None) -> None:
        self.result.show(self.session, picture)
        self.strip.show(self.session, picture)
        self._link.show_after(picture)

    def _show_round(self) -> None:
        made = self.session.rounds[-1]
        self._show_picture(made.result)
        if self.session.error is None:  # of several methods one may have failed
            self.status.say(", ".join(describe(self.session, made.result).splitlines()[::2]))

    def _show_progress(self) -> None:
        now = self.session.progress
        self.run_panel.show(now)
        if now is None:
            self.result.show(self.session, self.result.picture)
        else:
            self.result.show_progress(now)

    # What the user asks for

    @guarded
    def _command(self, _canvas: DragCanvas, content: dict[str, Any], _buffers: list) -> None:
        if content.get("type") == "command":
            {"edit": self._edit, "cancel": self._cancel}[content["name"]]()

    @guarded
    def _answer(self, change: dict[str, Any]) -> None:
        if not change["old"]:  # a gesture begins
            self.run_panel.answer()

    @guarded
    def _edit(self) -> None:
        self.run_panel.answer()
        self.status.say(f"Editing by {self.session.method}")  # before: some are done at once
        self.session.edit()

    @guarded
    def _edit_all(self, methods: tuple[str, ...]) -> None:
        if not methods:
            raise ValueError("choose one or more methods first")
        self.status.say(f"Editing by {', '.join(methods)}")
        self.session.edit(*methods)

    @guarded
    def _cancel(self) -> None:
        self.status.say("Cancelled" if self.session.busy else "There is no edit to cancel")
        self.session.cancel()

    @guarded
    def _use_method(self, method: str) -> None:
        if method != self.session.method:
            self.session.use(method)

    @guarded
    def _use_setting(self, name: str, value: Any) -> None:
        if self.session.settings.get(name) != value:
            self.session.use(**{name: value})

    @guarded
    def _reset_settings(self) -> None:
        self.session.use(**dict.fromkeys(self.session.settings))

    @guarded
    def _use_seed(self, seed: int) -> None:
        self.session.seed = seed

    @guarded
    def _look_at(self, picture: int | None) -> None:
        with self._lock:
            self._show_picture(picture)

    @guarded
    def _continue(self, picture: int) -> None:
        self.session.continue_from(picture)
        self._look_at(None)
        self.status.say(f"You draw on: {describe(self.session, picture).splitlines()[0]}")

    @guarded
    def _open_image(self, image: ImageLike) -> None:
        self.session.open(image)
        self._look_at(None)
        width, height = self.session.image.size
        self.status.say(f"Opened a photograph of {width} x {height} pixels")
        self.tabs.value = "Method"

    @guarded
    def _open_file(self, path: Path) -> None:
        match read_file(path, self.session.device):
            case DragSession() as session:
                self.session.cancel()
                with self._lock:
                    self._show_session(session)
                self._own.add([path, *picture_files(path, len(session.pictures))])
                self.status.say(f"Loaded {path.name}")
            case DragInstruction() as drags:
                self.session.set_drags(drags)
                self.status.say(f"Took the drags of {path.name}")
            case photograph:
                self._open_image(photograph)

    @guarded
    def _save(self, path: Path) -> None:
        self._own.check([path, *picture_files(path, len(self.session.pictures))])
        self.status.say(f"Saving {path}")  # large pictures take their time
        files = save_session(self.session, path)
        self.status.say(f"Saved {path} and {counted(len(files) - 1, 'picture')} beside it")

    @guarded
    def _export(self, path: Path) -> None:
        image, shown = self.session.image, self.result.picture
        number = self.session.sketch.picture if shown is None else shown
        path = path.with_name(picture_name(path, number))
        self._own.check([path])
        path.parent.mkdir(parents=True, exist_ok=True)
        (image if shown is None else self.session.pictures[shown]).save(path)
        self.canvas.download(path.name, path.read_bytes(), "image/png")
        self.status.say(f"Wrote {path}")

    @guarded
    def _copy(self) -> None:
        code = as_code(self.session)
        self.keep_panel.show_code(code)
        self.canvas.copy(code)


def _nothing() -> None:
    pass


def _classed(name: str, widget: ipywidgets.DOMWidget) -> ipywidgets.DOMWidget:
    widget.add_class(f"dragstudy-{name}")
    return widget
