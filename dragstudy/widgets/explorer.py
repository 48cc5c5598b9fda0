"""Sliders over pictures, for teaching: move one, and the picture of that combination is shown."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from threading import RLock
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dragstudy.plotting import AnyImage, to_array

Picture = AnyImage | Figure
QUALITY = 85  # of the JPEG that is sent and kept: 20 to 60 kB a picture


class Explorer(anywidget.AnyWidget):
    """One slider for each axis of numbers, a list for each axis of words, and the picture where they stand.

    A picture is made when its position is first asked for, and kept. That happens in the kernel, which does
    nothing else meanwhile. While one is being made only the newest position waits; those passed over on the
    way are never computed. So pictures that take up to a second can be made live; slower ones are better made
    beforehand and handed in by position. If making one fails, the widget says so in a sentence, the sliders
    stay alive, and coming back tries again.

    In a saved notebook, where no sliders can move, stands the picture of where they stood first.

    Args:
        axes: By the text beside its slider, the values of each axis. Numbers get a slider in the order given.
        picture: Called with one value of each axis, in their order. It returns an image as in
            `dragstudy.plotting` or a figure, which is closed then; or a tuple of that and a sentence about
            it, which is shown below and read out. Or pictures made before: a mapping of what such a
            function would return by the tuple of values, with one axis by the value.
        start: The values to begin at; by default the first of each axis.

    Attributes:
        values: The values where the sliders stand, one of each axis.
        sentence: What stands below the picture.
        error: What went wrong here, `None` if nothing did.

    Raises:
        ValueError: If there is no axis, one is empty or has a value twice, or `start` is not on them.
        Exception: Whatever `picture` raises at the first position.

    Example:
        >>> from PIL import Image
        >>> grey = Explorer({"level": [0, 128, 255]}, lambda level: Image.new("L", (8, 8), level))
        >>> grey.show(128)
        >>> grey
        Explorer of 3 pictures over level; run the notebook to move its sliders
    """

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    _axes = traitlets.List().tag(sync=True)
    _places = traitlets.List(traitlets.Int()).tag(sync=True)  # on each axis the index of its value
    _image = traitlets.Bytes().tag(sync=True)  # a JPEG; empty where there is none
    _alt = traitlets.Unicode().tag(sync=True)
    _problem = traitlets.Unicode().tag(sync=True)
    _busy = traitlets.Bool().tag(sync=True)
    sentence = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(
        self,
        axes: Mapping[str, Sequence[Any]],
        picture: Callable[..., Picture | tuple[Picture, str]] | Mapping[Any, Picture | tuple[Picture, str]],
        *,
        start: Sequence[Any] = (),
    ):
        self._choices = {name: list(values) for name, values in axes.items()}
        if not axes:
            raise ValueError("an Explorer needs at least one axis")
        for name, values in self._choices.items():
            labels = [_label(value) for value in values]
            if not values or len(set(labels)) < len(labels):
                raise ValueError(f"axis {name!r} needs at least one value, and none twice, got {values}")
        self._make = _look_up(picture) if isinstance(picture, Mapping) else picture
        self._kept: dict[tuple[int, ...], tuple[bytes, str]] = {}
        self._lock = RLock()  # a callback may run beside a cell, in a thread of its own,
        self._gradients = torch.is_grad_enabled()  # which has not heard of `torch.set_grad_enabled`
        self.error: Exception | None = None
        super().__init__(_axes=[_describe(name, values) for name, values in self._choices.items()])
        self.observe(self._follow, names=["_places"])
        self.show(*(start or [values[0] for values in self._choices.values()]))

    @property
    def values(self) -> tuple[Any, ...]:
        """The values where the sliders stand, one of each axis."""
        return self._values(self._places)

    def show(self, *values: Any) -> None:
        """Move the sliders to these values.

        Raises:
            ValueError: If there is not one value for each axis, or one is not on its axis.
            Exception: Whatever making the picture raises.
        """
        if len(values) != len(self._choices):
            raise ValueError(f"show needs a value of each axis ({', '.join(self._choices)}), got {values}")
        for value, (name, choices) in zip(values, self._choices.items(), strict=True):
            if value not in choices:
                raise ValueError(f"{name!r} has no value {value!r}, only {choices}")
        places = [choices.index(value) for value, choices in zip(values, self._choices.values(), strict=True)]
        with self._lock:
            self._result(places)  # in a script errors are raised, not shown
            self._places = places

    def _follow(self, _change: object) -> None:
        """Show the picture of where the sliders stand by the time it is our turn."""
        with self._lock:
            self._busy = tuple(self._places) not in self._kept
            image, sentence, problem, where = b"", "", "", "an unknown position"
            try:
                where = self._where()
                image, sentence = self._result(self._places)
                self.error = None
            except Exception as error:  # of whatever kind: the widget must live on and say it
                self.error = error
                reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
                problem = f"No picture for {where}: {reason}."
            with self.hold_sync():
                self._image, self._problem, self._busy = image, problem, False
                self._alt = f"{where}. {sentence}".rstrip(". ")
                self.set_trait("sentence", sentence)

    def _result(self, places: Sequence[int]) -> tuple[bytes, str]:
        """The picture as JPEG and the sentence of one position, made or kept."""
        key = tuple(places)
        if key not in self._kept:
            with torch.set_grad_enabled(self._gradients):
                made = self._make(*self._values(places))
            image, sentence = made if isinstance(made, tuple) else (made, "")
            self._kept[key] = _jpeg(image), sentence
        return self._kept[key]

    def _values(self, places: Sequence[int]) -> tuple[Any, ...]:
        return tuple(values[place] for values, place in zip(self._choices.values(), places, strict=True))

    def _where(self) -> str:
        return ", ".join(
            f"{name} {_label(value)}" for name, value in zip(self._choices, self.values, strict=True)
        )

    def __repr__(self) -> str:
        count, names = math.prod(map(len, self._choices.values())), ", ".join(self._choices)
        return f"Explorer of {count} pictures over {names}; run the notebook to move its sliders"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        still = {"image/jpeg": base64.b64encode(self._image).decode()} if self._image else {}
        return data | still, metadata | {"image/jpeg": {"alt": self._alt}}


def _look_up(results: Mapping[Any, Any]) -> Callable[..., Any]:
    def picture(*values: Any) -> Any:
        with suppress(KeyError):
            return results[values if len(values) > 1 else values[0]]
        raise LookupError("it was not made beforehand")

    return picture


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, Real) and not isinstance(value, bool) else str(value)


def _describe(name: str, values: Sequence[Any]) -> dict[str, Any]:
    numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return {"name": name, "labels": [_label(value) for value in values], "slider": numbers}


def _jpeg(picture: Picture) -> bytes:
    content = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(content, format="jpeg", pil_kwargs={"quality": QUALITY})
        plt.close(picture)  # else the notebook shows it once more, below
    elif isinstance(picture, Image.Image | np.ndarray | Tensor):
        Image.fromarray(to_array(picture)).convert("RGB").save(content, "jpeg", quality=QUALITY)
    else:
        raise TypeError(f"picture must return an image or a figure, got {type(picture).__name__}")
    return content.getvalue()
