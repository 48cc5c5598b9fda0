"""What comes into an editor and what leaves it: photographs, sessions, drags, pictures, code."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image
from torch import Tensor

from dragstudy.drags import SESSION, DragInstruction
from dragstudy.images import ImageLike, load_image
from dragstudy.widgets.display import StatusLine, guarded
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.session_files import load_session


def notebook_variables() -> Mapping[str, Any]:
    """What the user of the running notebook has named; nothing outside of one."""
    from IPython import get_ipython

    shell = get_ipython()
    return {} if shell is None else shell.user_ns


def typed_path(text: str) -> Path:
    """A path as somebody types it.

    Raises:
        ValueError: If there is none.
    """
    if not text.strip():
        raise ValueError("type the path of a file first")
    return Path(text.strip()).expanduser()


def picture_names(variables: Mapping[str, Any]) -> list[str]:
    """The names of the variables that hold a picture, without those that begin with an underscore.

    Example:
        >>> picture_names({"photo": Image.new("RGB", (4, 4)), "n": 4, "flow": np.zeros((2, 4, 4))})
        ['photo']
    """
    return [name for name, value in list(variables.items()) if name[0] != "_" and _is_picture(value)]


def read_file(path: Path, device: str | None = None) -> DragSession | DragInstruction | Path:
    """A session or drags, out of JSON; any other file is a photograph, and its path is given back.

    Raises:
        ValueError: If there is no such file, or it is neither session nor drags.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix.lower() != ".json":
        return path
    kept = None
    with suppress(ValueError):  # what is wrong with it, `from_json` says better
        kept = json.loads(path.read_text(encoding="utf-8"))
    is_session = isinstance(kept, dict) and SESSION in kept
    return load_session(path, device=device) if is_session else DragInstruction.from_json(path)


def _is_picture(value: Any) -> bool:
    if not isinstance(value, Image.Image | np.ndarray | Tensor):
        return False
    try:
        load_image(value)
    except ValueError:
        return False
    return True


class OwnFiles:
    """The files that a session may write over: those that it wrote or came from. Others when asked twice."""

    def __init__(self) -> None:
        self._own: set[Path] = set()
        self._asked: set[Path] = set()

    def add(self, paths: Iterable[Path]) -> None:
        """Take files for the session's own."""
        self._own |= {path.resolve() for path in paths}

    def check(self, paths: Sequence[Path]) -> None:
        """Refuse to write over somebody else's files, unless that was what was refused last.

        Raises:
            ValueError: If one of them is there.
        """
        strange = {path.resolve() for path in paths if path.exists()} - self._own
        if strange and strange != self._asked:
            self._asked = strange
            raise ValueError(f"{min(strange)} is there already: press once more to write over it")
        self._asked = set()
        self.add(paths)


class OpenPanel(ipywidgets.VBox):
    """A photograph by its path, from the user's computer, or out of the notebook; sessions come likewise.

    Args:
        open_image: Called with a photograph.
        open_file: Called with the path of a photograph, of a session or of drags.
        status: Where failures are told.
        variables: By default those of the notebook.
    """

    def __init__(
        self,
        open_image: Callable[[ImageLike], None],
        open_file: Callable[[Path], None],
        status: StatusLine,
        variables: Mapping[str, Any] | None = None,
    ):
        self._open_image, self._open_file, self.status = open_image, open_file, status
        self._variables = variables
        self.path = ipywidgets.Text(
            description="Path",
            placeholder="photo.jpg",
            tooltip="A photograph, a saved session or drags, where the kernel runs",
        )
        self.path.on_msg(lambda _, content, __: content.get("event") == "submit" and self._open_path())
        self.path_button = ipywidgets.Button(description="Open", tooltip="Open the file at this path")
        self.path_button.on_click(lambda _: self._open_path())
        self.upload = ipywidgets.FileUpload(
            accept="image/*,.json",
            multiple=True,
            description="Upload (up to 10 MB)",  # the server refuses larger messages, and nobody is told
            tooltip="A photograph from this computer, or a session.json together with its PNGs; larger ones "
            "by their path",
            layout={"width": "auto"},
        )
        self.upload.observe(self._upload, names=["value"])
        self.names = ipywidgets.Dropdown(description="Variable", tooltip="Pictures in this notebook")
        self.refresh = ipywidgets.Button(icon="refresh", tooltip="Look for pictures in the notebook again")
        self.refresh.on_click(self._refresh)
        self.name_button = ipywidgets.Button(description="Open", tooltip="Open the picture in this variable")
        self.name_button.on_click(self._take)
        rows = [
            [self.path, self.path_button],
            [self.names, self.refresh, self.name_button],
            [self.upload],
        ]
        super().__init__([ipywidgets.HBox(row) for row in rows])
        self._refresh()

    @guarded
    def _open_path(self) -> None:
        self._open_file(typed_path(self.path.value))

    @guarded
    def _upload(self, _change: Any) -> None:
        files = self.upload.value
        if not files:
            return
        self.upload.value = ()  # so that the same file can come again
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, Path(one["name"]).name) for one in files]
            for path, one in zip(paths, files, strict=True):
                path.write_bytes(one["content"])
            sessions = [path for path in paths if path.suffix.lower() == ".json"]
            if sessions:
                self._open_file(sessions[0])
                return
            self._open_image(load_image(paths[0]))  # its path is about to go, so it must not be kept

    @guarded
    def _refresh(self, _button: Any = None) -> None:
        names = picture_names(notebook_variables() if self._variables is None else self._variables)
        chosen = self.names.value
        self.names.options = names
        if names:
            self.names.value = chosen if chosen in names else names[0]

    @guarded
    def _take(self, _button: Any) -> None:
        if self.names.value is None:
            raise ValueError("the notebook has no variable that holds a picture")
        variables = notebook_variables() if self._variables is None else self._variables
        self._open_image(variables[self.names.value])


class KeepPanel(ipywidgets.VBox):
    """Where a session is saved, its picture exported, and its code shown.

    Args:
        save: Called with a path.
        load: Called with a path.
        export: Called with the path of the session, beside which the picture is written.
        copy: Called without arguments.
        status: Where failures are told.
    """

    def __init__(
        self,
        save: Callable[[Path], None],
        load: Callable[[Path], None],
        export: Callable[[Path], None],
        copy: Callable[[], None],
        status: StatusLine,
    ):
        self.status = status
        self.path = ipywidgets.Text("session.json", description="Session", tooltip="The session's file")
        self.save, self.load, self.export, self.copy = (
            ipywidgets.Button(description=name, icon=icon, tooltip=tooltip)
            for name, icon, tooltip in (
                ("Save", "save", "Write the session, and a PNG for each of its pictures beside it"),
                ("Load", "folder-open", "Go on with a saved session, or take the drags of a drags file"),
                ("Export PNG", "download", "Write the picture in full size beside the session"),
                ("Copy as code", "code", "Copy the Python that makes this picture"),
            )
        )
        self.code = ipywidgets.Textarea(rows=12, tooltip="Python that makes this picture")
        self.code.layout.display = "none"
        for button, callback in ((self.save, save), (self.load, load), (self.export, export)):
            button.on_click(lambda _, callback=callback: self._call(callback))
        self.copy.on_click(lambda _: copy())
        rows = [self.save, self.load], [self.export, self.copy]
        super().__init__([self.path, *map(ipywidgets.HBox, rows), self.code])

    @guarded
    def _call(self, callback: Callable[[Path], None]) -> None:
        callback(typed_path(self.path.value))

    def show_code(self, text: str) -> None:
        """Show the code, so that it can be read and copied by hand."""
        self.code.value, self.code.layout.display = text, None
