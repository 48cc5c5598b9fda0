"""What FlowGen's answers to drags of landmarks are worth, pair by pair."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from dragstudy.data.samples import LANDMARK_SETS
from dragstudy.drags import DragInstruction
from dragstudy.flow import normalize_flow, resize_flow
from dragstudy.metrics.distance import end_point_error
from dragstudy.metrics.evaluate import flow_drags
from dragstudy.models.flowgen import FlowGen
from dragstudy.sparse import sparse_flow

# What the official demo multiplies the network's output by, on the way to the largest drag's size (per axis)
RESCALINGS = {"magnitude": 1.0, "static": 2.0}


def errors_of(
    generator: FlowGen, items: Sequence[dict], points: int, size: int, rescalings: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Measure FlowGen on some pairs.

    Args:
        generator: In evaluation mode.
        items: Of a `PairDataset`, all of one size.
        points: Key of `LANDMARK_SETS`: which landmarks are dragged, along the flow.
        size: Side that the network works at; 0 for that of the pairs.
        rescalings: Of `RESCALINGS`.

    Yields:
        Of each pair and rescaling, the network's own (`""`) first: `key`, `drags` (landmarks asked for),
        `given` (those on the person whose way ends inside the frame), `rescaling`; in px of the pairs, on the
        person where forward and backward flow agree, the end-point error `epe` and the mean `motion`, which
        is the error of answering zero; the `slope` of the answer over the truth there, 1 where motions have
        the right size; the answer's mean length on the `background`; and `largest`, the largest value that
        the network itself gives, before any rescaling.
    """
    batch = default_collate(items)
    h, w = batch["flow"].shape[-2:]
    inside, background = batch["mask"] * batch["valid"], 1 - batch["mask"]
    truth = batch["flow"] * batch["mask"]
    drags = [_drags_inside(item, points) for item in items]
    side = (size, size) if size else (h, w)
    sparse = torch.cat([sparse_flow(one, side) for one in drags])
    images = 2 * F.interpolate(batch["source"], side, mode="area") - 1
    raw = generator(images, generator.normalize(sparse)[0])
    answers = {"": generator.predict(images, sparse)}
    _, largest = normalize_flow(sparse, "sample")
    answers |= {name: raw * RESCALINGS[name] * largest for name in rescalings}
    for rescaling, answer in answers.items():
        flow = resize_flow(answer.float(), (h, w))
        measured = {
            "epe": end_point_error(flow, truth, inside),
            "slope": _sum(flow * truth, inside) / _sum(truth.square(), inside).clamp_min(1e-6),
            "motion": end_point_error(torch.zeros_like(truth), truth, inside),
            "background": end_point_error(flow, torch.zeros_like(flow), background),
            "largest": raw.abs().amax(dim=(1, 2, 3)),
        }
        for k, item in enumerate(items):
            known = {"key": item["key"], "drags": points, "given": len(drags[k].handle_points)}
            values = {name: float(np.float32(value[k])) for name, value in measured.items()}
            yield known | {"rescaling": rescaling} | values


def _drags_inside(item: dict, points: int) -> DragInstruction:
    """Drags along the flow, less those that would leave the frame, which no drag of a user can."""
    h, w = item["flow"].shape[-2:]
    drags = flow_drags(item, LANDMARK_SETS[points])
    targets = drags.target_points
    kept = ((targets >= -0.5) & (targets <= np.array([w, h]) - 0.5)).all(axis=1)
    return DragInstruction(drags.handle_points[kept], targets[kept], image_size=(w, h))


def _sum(values: Tensor, weight: Tensor) -> Tensor:
    return (values.sum(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3))
