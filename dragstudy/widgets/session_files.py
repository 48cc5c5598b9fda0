"""A session on disk: one JSON file and a PNG beside it for each picture; and its rounds, made once more.

The file is that of `DragInstruction.to_json`, with the drags that the session left off with, and one field
more, `"session"`: so `dragstudy edit --drags session.json` takes it as it is.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dragstudy import __version__
from dragstudy.drags import SESSION
from dragstudy.images import load_image
from dragstudy.widgets.edits import Edit, Round, carry_out
from dragstudy.widgets.history import History
from dragstudy.widgets.mask import Loaded
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
        ValueError: If the session has no picture.
        OSError: If a file cannot be written.
    """
    path, sketch = Path(path), session.sketch
    size = session.image.size
    raster = sketch.raster(size)
    drags = {
        "handle_points": [list(handle) for handle, _ in sketch.drags],
        "target_points": [list(target) for _, target in sketch.drags],
        "mask": None if raster is None else Loaded.from_mask(raster).png,
        "image_size": list(size),
    }
    pictures = [path.with_name(picture_name(path, number)) for number in range(len(session.pictures))]
    kept = {
        "version": __version__,
        "method": session.method,
        "weights": session.weights,
        "seed": session.seed,
        "settings": session.settings_by_method,
        "pictures": [
            {"file": file.name, "name": session.names.get(number)} for number, file in enumerate(pictures)
        ],
        "rounds": [_round_to_dict(one) for one in session.rounds],
        "history": {
            "past": [one.to_dict() for one in session.history.past],
            "present": sketch.to_dict(),
            "future": [one.to_dict() for one in session.history.future],
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, picture in zip(pictures, session.pictures, strict=True):
        picture.save(file)
    path.write_text(json.dumps(drags | {SESSION: kept}, indent=1) + "\n", encoding="utf-8")
    return [path, *pictures]


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
        given = {name: kept[name] for name in ("method", "weights", "seed")}
        session = DragSession(**given, **options)
        for number, one in enumerate(kept["pictures"]):
            # beside the file, whatever else a file from somewhere says
            session.pictures += (load_image(path.with_name(Path(one["file"]).name)),)
            session.names |= {number: one["name"]} if one["name"] else {}
        for method, settings in kept["settings"].items():
            session.use(method, **settings)
        session.use(kept["method"])
        session.rounds = tuple(_round_from_dict(one) for one in kept["rounds"])
        past, future = (tuple(map(Sketch.from_dict, kept["history"][way])) for way in ("past", "future"))
        session.history = History(Sketch.from_dict(kept["history"]["present"]), past, future)
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


def picture_name(path: Path, number: int) -> str:
    """The name of the file of one picture of a session."""
    return f"{path.stem}-{number}.png"


def _round_to_dict(one: Round) -> dict[str, Any]:
    edit = {name: getattr(one.edit, name) for name in ("method", "weights", "seed")}
    edit |= {"settings": dict(one.edit.settings), "sketch": one.edit.sketch.to_dict()}
    return {"edit": edit, "result": one.result, "seconds": one.seconds, "threads": one.threads}


def _round_from_dict(values: dict[str, Any]) -> Round:
    edit = values["edit"] | {"sketch": Sketch.from_dict(values["edit"]["sketch"])}
    return Round(**values | {"edit": Edit(**edit)})


def _check(session: DragSession) -> None:
    """Refuse numbers of pictures that are not there."""
    sketches = [*session.history.past, session.sketch, *session.history.future]
    numbers = [one.picture for one in sketches]
    numbers += [number for one in session.rounds for number in (one.edit.sketch.picture, one.result)]
    if stray := set(numbers) - set(range(len(session.pictures))):
        raise ValueError(f"it has {len(session.pictures)} pictures, but speaks of {sorted(stray)}")
