"""A session as the Python that does the same."""

import json
from collections.abc import Iterator

from dragstudy.widgets.edits import Edit, Round
from dragstudy.widgets.session import DragSession

HEAD = """import torch

import dragstudy

"""


def as_code(session: DragSession, picture: int | None = None) -> str:
    """The lines that make a picture of the session, from the photograph on; run, they give the same bytes.

    Args:
        session: Its rounds say what led to the picture.
        picture: Number of a result; by default the edit that is drawn now, or if there are no drags, the
            picture that is drawn on.

    Raises:
        ValueError: If no edit leads to the picture, or the drags do not fit it.
    """
    edits = []
    if picture is None and session.sketch.drags:
        edits.append(session.present_edit())
        picture = session.sketch.picture
    number = session.sketch.picture if picture is None else picture
    while made := _made(session, number):
        edits.insert(0, made.edit)
        number = made.edit.sketch.picture
    if not edits:
        raise ValueError(f"picture {number} is a photograph: there is no edit to write down")
    name = session.names.get(number)
    first = (
        f"image = {name!r}\n" if name else 'image = "photo.png"  # the photograph has no file: export it\n'
    )
    return HEAD + first + "".join(_lines(session, edits)) + 'image.save("edited.png")\n'


def _made(session: DragSession, picture: int) -> Round | None:
    return next((one for one in session.rounds if one.result == picture), None)


def _lines(session: DragSession, edits: list[Edit]) -> Iterator[str]:
    loaded = None
    for edit in edits:
        if loaded != (edit.method, edit.weights):
            loaded = edit.method, edit.weights
            weights = "" if edit.weights == "tiny" else f", weights={edit.weights!r}"
            yield f"pipe = dragstudy.load({edit.method!r}{weights})\n"
        yield from _call(edit, session.pictures[edit.sketch.picture].size)


def _call(edit: Edit, size: tuple[int, int]) -> Iterator[str]:
    drags = edit.sketch.instruction(size)
    mask = "None"
    if drags.mask is not None:
        yield f"drags = dragstudy.DragInstruction.from_json({drags.to_json()!r})\n"
        mask = "drags.mask"
    arguments = {
        "handle_points": drags.handle_points.tolist(),
        "target_points": drags.target_points.tolist(),
    }
    yield "out = pipe(\n    image,\n"
    for name, points in arguments.items():
        yield f"    {name}={json.dumps(points)},\n"
    yield f"    mask={mask},\n    generator=torch.Generator().manual_seed({edit.seed}),\n"
    for name, value in edit.settings.items():
        yield f"    {name}={value!r},\n"
    yield ")\nimage = out.images[0]\n"
