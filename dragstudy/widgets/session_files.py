"""A session on disk: one JSON file and a PNG beside it for each picture; and its rounds, made once more.

The file is that of `DragInstruction.to_json`, with the drags that the session left off with, and one field
more, `"session"`: so `dragstudy edit --drags session.json` takes it as it is.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dragstudy import __version__
from dragstudy.drags import SESSION
from dragstudy.images import load_image
from dragstudy.widgets.edits import Edit, Round, carry_out, check_settings
from dragstudy.widgets.history import History
from dragstudy.widgets.mask import Loaded, MaskOperation, operation_from_dict, operation_to_dict
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.sketch import Sketch


@dataclass(frozen=True)
class Replayed:
    """One round that was made once more.

    Attributes:
        number: Which round, from 1.
        round: What was asked, and what had come of it.
        image: What came of it now.
        same: Whether both have the same pixels.
    """

    number: int
    round: Round
    image: Image.Image
    same: bool


def save_session(session: DragSession, path: str | Path) -> list[Path]:
    """Write `path`, and beside it a PNG for each picture, named after it; gives back all files.

    Raises:
        ValueError: If the session has no picture, or `path` does not end in `.json`.
        OSError: If a file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        raise ValueError(f"a session is saved as a file of JSON, such as session.json, got {str(path)!r}")
    size = session.image.size
    # An edit may end meanwhile. Its picture comes before its round: in this order none speaks of a later one.
    rounds, history, pictures = session.rounds, session.history, session.pictures
    files = picture_files(path, len(pictures))
    raster = history.present.raster(size)
    drags = {
        "handle_points": [list(handle) for handle, _ in history.present.drags],
        "target_points": [list(target) for _, target in history.present.drags],
        "mask": None if raster is None else Loaded.from_mask(raster).png,
        "image_size": list(size),
    }
    masks = _Masks()
    kept = {
        "version": __version__,
        "method": session.method,
        "weights": session.weights,
        "seed": session.seed,
        "settings": session.settings_by_method,
        "pictures": [{"file": file.name, "name": session.names.get(k)} for k, file in enumerate(files)],
        "rounds": [_round_to_dict(one, masks) for one in rounds],
        "history": {
            "past": [masks.write(one) for one in history.past],
            "present": masks.write(history.present),
            "future": [masks.write(one) for one in history.future],
        },
    }
    kept["mask_operations"] = [operation_to_dict(one) for one in masks.operations]
    text = json.dumps(drags | {SESSION: kept}, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, picture in zip(files, pictures, strict=True):
        _replace(file, lambda target, picture=picture: picture.save(target, format="PNG"))
    _replace(path, lambda target: target.write_text(text, encoding="utf-8"))
    return [path, *files]


def load_session(path: str | Path, **options: Any) -> DragSession:
    """Read what `save_session` wrote: the same pictures, drawings, rounds, and ways back and forth.

    Args:
        path: The JSON file.
        **options: Further arguments of `DragSession`: `device`, `pipelines`.

    Raises:
        ValueError: If the file or one of its pictures cannot be read, or is no session's.
    """
    path = Path(path)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))[SESSION]
        seed, weights = int(kept["seed"]), str(kept["weights"])
        session = DragSession(method=kept["method"], weights=weights, seed=seed, **options)
        for number, one in enumerate(kept["pictures"]):
            # beside the file, whatever else a file from somewhere says
            session.pictures += (load_image(path.with_name(Path(one["file"]).name)),)
            session.names |= {number: one["name"]} if one["name"] else {}
        for method, settings in kept["settings"].items():
            session.use(method, **settings)
        session.use(kept["method"])
        masks = _Masks(map(operation_from_dict, kept["mask_operations"]))
        session.rounds = tuple(_round_from_dict(one, masks) for one in kept["rounds"])
        past, future = (tuple(map(masks.read, kept["history"][way])) for way in ("past", "future"))
        session.history = History(masks.read(kept["history"]["present"]), past, future)
        _check(session)
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the session {path} cannot be read: {error!r}") from None
    return session


def replay(path: str | Path, device: str | None = None) -> Iterator[Replayed]:
    """Make every round of a saved session once more, each from what the rounds before gave now.

    On the machine that made them all are the same, to the byte.

    Raises:
        ValueError: If the session cannot be read, or one of its edits cannot be made.
    """
    session = load_session(path, device=device)
    pictures, threads = list(session.pictures), torch.get_num_threads()
    try:
        for number, one in enumerate(session.rounds, start=1):
            torch.set_num_threads(one.threads)
            pipe = session.pipeline(one.edit.method, one.edit.weights)
            image = carry_out(pipe, pictures[one.edit.sketch.picture], one.edit)
            before, pictures[one.result] = session.pictures[one.result], image
            yield Replayed(number, one, image, image.tobytes() == before.tobytes())
    finally:
        torch.set_num_threads(threads)


def picture_files(path: Path, count: int) -> list[Path]:
    """The files of the pictures of a session, beside its own."""
    return [path.with_name(picture_name(path, number)) for number in range(count)]


def picture_name(path: Path, number: int) -> str:
    """The name of the file of one picture of a session."""
    return f"{path.stem}-{number}.png"


class _Masks:
    """The operations of all masks, each once: every state of a history has nearly all of those before it."""

    def __init__(self, operations: Iterable[MaskOperation] = ()):
        self._read = list(operations)
        self.operations: dict[MaskOperation, int] = {}  # with their numbers, as they are written

    def write(self, sketch: Sketch) -> dict[str, Any]:
        """A sketch as JSON holds it, its mask as numbers of operations."""
        numbers = [self.operations.setdefault(one, len(self.operations)) for one in sketch.mask]
        return replace(sketch, mask=()).to_dict() | {"mask": numbers}

    def read(self, values: dict[str, Any]) -> Sketch:
        """Read what `write` wrote."""
        mask = tuple(self._read[number] for number in values["mask"])
        return replace(Sketch.from_dict(values | {"mask": ()}), mask=mask)


def _round_to_dict(one: Round, masks: _Masks) -> dict[str, Any]:
    edit = {name: getattr(one.edit, name) for name in ("method", "weights", "seed")}
    edit |= {"settings": dict(one.edit.settings), "sketch": masks.write(one.edit.sketch)}
    return {"edit": edit, "result": one.result, "seconds": one.seconds, "threads": one.threads}


def _round_from_dict(values: dict[str, Any], masks: _Masks) -> Round:
    edit = values["edit"]
    settings = check_settings(edit["method"], edit["settings"])  # a tuple is a list in JSON
    sketch = masks.read(edit["sketch"])
    made = Edit(sketch, edit["method"], str(edit["weights"]), int(edit["seed"]), settings)
    return Round(made, int(values["result"]), float(values["seconds"]), max(1, int(values["threads"])))


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    """Write beside a file and put that in its place: whatever happens, the old or the new one is whole."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        write(fresh)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def _check(session: DragSession) -> None:
    """Refuse numbers of pictures that are not there, and rounds that do not come out of earlier pictures."""
    sketches = [*session.history.past, session.sketch, *session.history.future]
    numbers = [one.picture for one in sketches]
    numbers += [number for one in session.rounds for number in (one.edit.sketch.picture, one.result)]
    if stray := set(numbers) - set(range(len(session.pictures))):
        raise ValueError(f"it has {len(session.pictures)} pictures, but speaks of {sorted(stray)}")
    results = [one.result for one in session.rounds]
    if len(set(results)) < len(results) or any(
        one.edit.sketch.picture >= one.result for one in session.rounds
    ):
        raise ValueError("the result of a round must be a picture of its own, later than what was edited")
