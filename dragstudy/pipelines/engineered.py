"""Point augmentation and sequential dragging as options of every method's call (LightningDrag, Sec. 4.4)."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, reduce, wraps
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from dragstudy.drag_engineering import augment_from_flow, augment_symmetric, split_drags
from dragstudy.drags import DragInstruction
from dragstudy.flow import compose_flows
from dragstudy.pipelines.base import DragPipeline, DragPipelineOutput, Request, as_type, check_output_type

if TYPE_CHECKING:
    from dragstudy.data.people import FaceLandmarks

ExtraPointsFrom = Literal["flow", "symmetry"]

DRAG_OPTIONS: dict[str, tuple[Any, Any]] = {  # name: (type, default)
    "rounds": (int, 1),
    "extra_points": (int, 0),
    "extra_points_from": (ExtraPointsFrom, "flow"),
}
_REQUEST = ("handle_points", "target_points", "mask")
_DOCUMENTATION = """

Drag engineering (LightningDrag, Sec. 4.4), for drags that one edit does not follow:
    rounds: Split each drag into so many, and edit the picture of one round in the next. A round is a whole
        edit. The mask stays; the generator, the callback's steps and `pipeline._interrupt` go on over all
        rounds. Of several rounds the flow is their composition, and trajectories are joined.
    extra_points: Drags to suggest at most, which are carried out after the given ones; the output's `drags`
        has them all. The given ones are kept as they are.
    extra_points_from: `"flow"`: they follow the dense flow of the given drags, the method's own or else the
        thin plate through them. `"symmetry"`: the other half of a face is dragged alike.
"""


def engineered(call: Callable[..., Any]) -> Callable[..., Any]:
    """Give the `__call__` of a pipeline the keywords `rounds`, `extra_points` and `extra_points_from`.

    With their defaults the call itself is run, and nothing else. The pipeline's configuration must have a
    `working_area`.
    """

    @wraps(call)
    def edit(
        self: DragPipeline,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        rounds: int = 1,
        extra_points: int = 0,
        extra_points_from: ExtraPointsFrom = "flow",
        **options: Any,
    ) -> DragPipelineOutput | tuple:
        _check(rounds, extra_points, extra_points_from)
        self._num_rounds = int(rounds)
        if rounds == 1 and extra_points == 0:
            return call(self, image, handle_points, target_points, mask, **options)
        if options.get("flow") is not None:
            raise ValueError("a given flow takes the drags' place: rounds and extra_points cannot go with it")
        output_type = options.pop("output_type", "pil")
        check_output_type(output_type)
        return_dict = options.pop("return_dict", True)
        area = self.config.working_area
        requests, is_batch = self.check_inputs(image, handle_points, target_points, mask, area)
        drags = [request.drags for request in requests]
        if extra_points:
            drags = _suggest(self, requests, extra_points, extra_points_from)
        plan = zip(*(split_drags(one, rounds) for one in drags), strict=True)
        pictures = [request.image for request in requests]
        output = _join(list(_rounds(call, self, pictures, plan, is_batch, options)))
        images = [as_type(picture, output_type) for picture in output.images]
        output = replace(output, images=images, drags=drags if extra_points else None)
        return output if return_dict else (output.images, output.flow)

    signature = inspect.signature(call)
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(n, kind, default=d, annotation=t) for n, (t, d) in DRAG_OPTIONS.items()]
    edit.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
    edit.__annotations__ = call.__annotations__ | {name: type_ for name, (type_, _) in DRAG_OPTIONS.items()}
    edit.__doc__ = inspect.cleandoc(call.__doc__ or "") + _DOCUMENTATION
    return edit


def _check(rounds: int, extra_points: int, extra_points_from: str) -> None:
    for name, value, least in (("rounds", rounds, 1), ("extra_points", extra_points, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if extra_points_from not in get_args(ExtraPointsFrom):
        raise ValueError(
            f"extra_points_from must be one of {', '.join(get_args(ExtraPointsFrom))}, "
            f"got {extra_points_from!r}"
        )


def _rounds(
    call: Callable,
    pipe: DragPipeline,
    pictures: list,
    plan: Iterable[tuple[DragInstruction, ...]],
    is_batch: bool,
    options: dict[str, Any],
) -> Iterator[DragPipelineOutput]:
    """The output of each round, whose pictures the next one edits as a user would get them: 8 bits."""
    callback, done = options.pop("callback_on_step_end", None), 0
    for parts in plan:
        first = done

        def counted(pipeline: Any, step: int, timestep: Any, tensors: dict, first: int = first) -> Any:
            nonlocal done
            done = first + step + 1
            return callback(pipeline, first + step, timestep, tensors)

        given = pictures, *([getattr(part, name) for part in parts] for name in _REQUEST)
        pipe._interrupt = False
        output = call(
            pipe,
            *(given if is_batch else [one[0] for one in given]),
            output_type="pil",
            return_dict=True,
            callback_on_step_end=None if callback is None else counted,
            **options,
        )
        yield output
        if pipe._interrupt:
            return
        pictures = output.images


def _join(outputs: list[DragPipelineOutput]) -> DragPipelineOutput:
    """One output of several rounds: the last one's pictures, the flow and the tracks through all."""
    last = outputs[-1]
    flow, tracks = last.flow, last.trajectories
    if flow is not None:
        flow = [reduce(compose_flows, one) for one in zip(*(each.flow for each in outputs), strict=True)]
    if tracks is not None:  # a round starts where its drags do: the track has no place of its own for that
        found = zip(*(each.trajectories for each in outputs), strict=True)
        tracks = [np.concatenate([one[0], *(later[1:] for later in one[1:])]) for one in found]
    return replace(last, flow=flow, trajectories=tracks)


def _suggest(
    pipe: DragPipeline, requests: list[Request], count: int, source: ExtraPointsFrom
) -> list[DragInstruction]:
    """The drags of each request, in pixels of its photograph, and the suggested ones after them."""
    if source == "flow":
        with torch.no_grad():
            flow = pipe.predict_flow(requests).cpu()
        parts = zip(requests, flow, strict=True)
        return [augment_from_flow(request.drags, one, count) for request, one in parts]
    found = []
    for request in requests:
        landmarks = _face_landmarks()(np.asarray(request.image))
        if landmarks is None:
            raise ValueError("extra_points_from='symmetry' needs a face, and there is none in the image")
        found.append(augment_symmetric(request.drags, landmarks, count))
    return found


@cache
def _face_landmarks() -> "FaceLandmarks":
    from dragstudy.data.people import FaceLandmarks

    return FaceLandmarks()
