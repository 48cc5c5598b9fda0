"""One edit of a session: what was asked, how far it is, what came of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from dragstudy._edit import settable_arguments
from dragstudy._options import check_options
from dragstudy.pipelines import DragPipeline
from dragstudy.widgets.sketch import Sketch


@dataclass(frozen=True)
class Edit:
    """One edit to be made: everything that decides its result.

    Attributes:
        sketch: The picture, the drags and the mask.
        method: As `dragstudy.load` knows it.
        weights: As `dragstudy.load` knows them.
        seed: Of the generator.
        settings: Further arguments of the pipeline's call.
    """

    sketch: Sketch
    method: str
    weights: str = "tiny"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """An edit that was made.

    Attributes:
        edit: What was asked.
        result: Which picture of the session came of it.
        seconds: What it took, without loading the weights.
        threads: Of torch: with another number of them a sum may round differently.
    """

    edit: Edit
    result: int
    seconds: float
    threads: int = field(default_factory=torch.get_num_threads)


@dataclass(frozen=True)
class Progress:
    """How far the edit is that runs.

    Attributes:
        edit: What was asked.
        step: How many steps are done.
        total: Of how many; 0 while the weights are loaded.
        seconds: Since they are.
        image: What the method holds for the result so far, at the size it works at; None before the first.
        number: Which one of several edits, from 1.
        count: How many edits were asked for at once.
    """

    edit: Edit
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    image: Image.Image | None = None
    number: int = 1
    count: int = 1


def check_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the types that the method's call wants.

    Raises:
        ValueError: If there is no such method or setting, or one is of a kind that no file of JSON holds.
    """
    checked = check_options(settings, settable_arguments(method), f"{method} has no setting")
    for name, value in checked.items():
        try:
            json.dumps(value)
        except TypeError:
            raise ValueError(f"{name} cannot be kept in a session, got {type(value).__name__}") from None
    return checked


def carry_out(
    pipe: DragPipeline, image: Image.Image, edit: Edit, callback: Callable | None = None
) -> Image.Image:
    """Make an edit of `image`; the same edit gives the same bytes.

    Args:
        pipe: Of the edit's method and weights.
        image: The picture that the edit's sketch is drawn on.
        edit: What is asked.
        callback: A pipeline's `callback_on_step_end`; it gets `denoised` where the pipeline has it.

    Raises:
        ValueError: If the drags or the settings do not fit.
    """
    drags = edit.sketch.instruction(image.size)
    arguments = dict(edit.settings)
    if callback is not None:
        arguments["callback_on_step_end"] = callback
        if "denoised" in pipe._callback_tensor_inputs:
            arguments["callback_on_step_end_tensor_inputs"] = ("denoised",)
    return pipe(
        image,
        handle_points=drags.handle_points,
        target_points=drags.target_points,
        mask=drags.mask,
        generator=torch.Generator().manual_seed(edit.seed),
        **arguments,
    ).images[0]
