"""A form in which people rate edits without knowing who made them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import traitlets
from PIL import Image

from dragstudy.images import load_image
from dragstudy.metrics.ratings import CRITERIA, RatedEdit, RatingFile, check_marks, order_for


class RatingForm(anywidget.AnyWidget):
    """A photograph with its drags, one edit of it, and three questions to be answered by 1 to 5.

    The edits come in an order that is drawn from the rater's name. Which method made one is never sent to the
    browser. Each rating is written to the file when it is made, so the form can be left at any time: another
    one with the same rater and file goes on at the first edit that is not rated. All of it works by keyboard:
    the digits 1 to 5 answer one question after the other, Enter goes on; no key reaches the notebook.

    Args:
        edits: What is to be rated.
        path: The CSV file of the ratings, see `dragstudy.metrics.ratings.RatingFile`.
        rater: A name or number for whoever rates.
        seed: Of the order.

    Attributes:
        place: Which edit is shown, counted from 0 in the rater's order; the number of edits after the last.
        error: What went wrong when a rating was saved, `None` if nothing did.

    Raises:
        ValueError: If there is nothing to rate, the rater's name is empty or has several lines, or the file
            is something else.
    """

    _esm = Path(__file__).with_name("rating.js")
    _css = Path(__file__).with_name("rating.css")
    _criteria = traitlets.List().tag(sync=True)
    _count = traitlets.Int().tag(sync=True)
    _photograph = traitlets.Bytes().tag(sync=True)  # a PNG: quality is what is asked about
    _edit = traitlets.Bytes().tag(sync=True)
    _size = traitlets.List().tag(sync=True)  # width and height of the photograph
    _drags = traitlets.List().tag(sync=True)
    _marks = traitlets.Dict().tag(sync=True)  # what was answered before for this edit
    _problem = traitlets.Unicode().tag(sync=True)
    place = traitlets.Int(read_only=True).tag(sync=True)

    def __init__(self, edits: Sequence[RatedEdit], path: Path | str, *, rater: str, seed: int = 0):
        if not edits:
            raise ValueError("there is no edit to rate")
        if not rater.strip() or not rater.isprintable():
            raise ValueError(f"whoever rates needs a name or a number in one line, got {rater!r}")
        self._edits = order_for(edits, rater, seed=seed)
        self._file, self.rater = RatingFile(path), rater
        self._known = self._file.marks(rater)
        self.error: Exception | None = None
        criteria = [{"name": name, "question": text} for name, text in CRITERIA.items()]
        super().__init__(_criteria=criteria, _count=len(edits))
        self.on_msg(self._receive)
        self._show(self._first_open())

    @property
    def results(self) -> pd.DataFrame:
        """The ratings of this rater that are in the file."""
        return self._file.read().query("rater == @self.rater").reset_index(drop=True)

    @property
    def shown(self) -> RatedEdit | None:
        """The edit that is shown, with its method; None after the last."""
        return self._edits[self.place] if self.place < len(self._edits) else None

    def rate(self, **marks: int) -> None:
        """Rate the edit that is shown, and show the next.

        Args:
            marks: A whole number from 1 to 5 for each of `CRITERIA`.

        Raises:
            ValueError: If that is not what was given, or no edit is shown.
            OSError: If it cannot be saved.
        """
        check_marks(marks)
        if self.shown is None:
            raise ValueError(f"all {len(self._edits)} edits are rated")
        self._file.add(self.rater, self.shown, marks)
        self._known[self.shown.key, self.shown.method] = dict(marks)
        self._show(self.place + 1)

    def back(self) -> None:
        """Show the edit before, with the marks that it got; they can be changed."""
        self._show(max(0, self.place - 1))

    def _first_open(self) -> int:
        rated = [(edit.key, edit.method) in self._known for edit in self._edits]
        return rated.index(False) if False in rated else len(rated)

    def _show(self, place: int) -> None:
        edit = self._edits[place] if place < len(self._edits) else None
        with self.hold_sync():
            self.set_trait("place", place)
            self._problem = ""
            self._photograph = _png(edit.photograph) if edit else b""
            self._edit = _png(load_image(edit.edit)) if edit else b""
            self._size = list(edit.photograph.size) if edit else []
            points = (edit.drags.handle_points, edit.drags.target_points) if edit else ((), ())
            self._drags = [[list(map(float, end)) for end in drag] for drag in zip(*points, strict=True)]
            self._marks = self._known.get((edit.key, edit.method), {}) if edit else {}

    def _receive(self, _widget: object, content: Any, _buffers: object) -> None:
        """What the browser asks for; what is about an edit that is not shown any more comes too late."""
        if not isinstance(content, dict) or content.get("place") != self.place:
            return
        try:
            if content.get("type") == "rate":
                self.rate(**content["marks"])
            elif content.get("type") == "back":
                self.back()
            self.error = None
        except Exception as error:  # of whatever kind: the form must live on and say it
            self.error = error
            self._problem = f"This rating was not saved: {' '.join(str(error).split()).rstrip('.')}."
            self.send({"type": "refused"})

    def __repr__(self) -> str:
        done = sum((edit.key, edit.method) in self._known for edit in self._edits)
        text = f"RatingForm of {self.rater}: {done} of {len(self._edits)} edits rated"
        return f"{text}; run the notebook to go on"


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.convert("RGB").save(content, "png")
    return content.getvalue()
