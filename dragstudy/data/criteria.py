"""The rules of curation: which pairs are kept, and the name of the reason why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dragstudy.data.estimators import FLOW_ESTIMATORS, Frame, estimate_flow
from dragstudy.data.frames import (
    FrameFacts,
    FrameMask,
    MaskName,
    border_motion,
    consistent,
    flow_length,
    motion_mask,
)
from dragstudy.data.pairs import Pair

Number = float | int

REASONS: dict[str, str] = {
    "unreadable": "the file, or this part of it, cannot be decoded",
    "too_short": "the clip has fewer than two frames at this rate",
    "low_bitrate": "the clip has fewer compressed bits a pixel than min_bits_per_pixel",
    "scene_cut": "the colours of the two frames differ by more than max_colour_change",
    "no_object": "the mask covers less than min_mask_share of one of the frames",
    "near_identical": "the frames differ by less than min_difference grey levels inside the mask",
    "no_face": "a face is required and one of the frames shows none",
    "faces_differ": "the number of faces changes",
    "hands_differ": "the number of hands changes",
    "moving_camera": "the border moves by more than max_border_motion",
    "unreliable_flow": "too little of the mask's flow passes the forward-backward check",
    "little_motion": "the flow inside the mask is shorter than min_motion",
}


@dataclass(frozen=True)
class CurateSettings:
    """How clips become pairs.

    Attributes:
        fps: Frames a second taken from a clip.
        size: Side of the square frames, in pixels; with `crop="none"` the side of a square of the same area.
        crop: `"face"` (around the face's landmarks), `"person"` (around the mask), `"centre"`, or `"none"`.
        max_interval: Largest distance of the two frames, in frames; distances from 1 are drawn equally often.
        pairs_per_clip: Pairs to consider in a clip; None takes them all.
        pairs_per_shard: Pairs in one tar.
        estimator: A key of `estimators.FLOW_ESTIMATORS`.
        mask: `"person"` (segmented), `"flow"` (what moves), or `"none"` (everything).
        landmarks: Store dlib's 68 points.
        require_face: Drop pairs in which a frame shows no face.
        count_people: Drop pairs in which the number of faces changes.
        count_hands: Drop pairs in which the number of hands changes.
        min_bits_per_pixel: Compressed bits a pixel and frame.
        min_difference: Mean absolute difference inside the mask, grey levels of 255.
        max_colour_change: Share of the pixels, 0 to 1, by which the colour histograms may differ.
        min_mask_share: Share of the image, 0 to 1.
        min_motion: 99th percentile of the flow's length inside the mask, px.
        min_valid_share: Share of the mask whose flow is consistent, 0 to 1.
        max_border_motion: How far the image border may move, px; None allows any camera motion.
        seed: Of the drawing of pairs and of splits.
    """

    fps: Number = 10
    size: int = 256
    crop: str = "face"
    max_interval: int = 8
    pairs_per_clip: int | None = 400
    pairs_per_shard: int = 1000
    estimator: str = "dis"
    mask: MaskName = "person"
    landmarks: bool = True
    require_face: bool = True
    count_people: bool = True
    count_hands: bool = True
    min_bits_per_pixel: Number = 0.02
    min_difference: Number = 1.0
    max_colour_change: Number = 0.5
    min_mask_share: Number = 0.02
    min_motion: Number = 1.0
    min_valid_share: Number = 0.7
    max_border_motion: Number | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "crop": ("face", "person", "centre", "none"),
            "mask": ("person", "flow", "none"),
            "estimator": tuple(FLOW_ESTIMATORS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("fps", "size", "max_interval", "pairs_per_shard"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def judge(
    source: FrameFacts, target: FrameFacts, row: dict[str, Any], settings: CurateSettings
) -> tuple[str, Pair | None, dict[str, Number]]:
    """Decide about a pair, the cheap questions first.

    Args:
        source: The first frame.
        target: The second frame.
        row: The pair's manifest row so far; becomes `Pair.info`.
        settings: The rules.

    Returns:
        The reason (`""` = kept), the pair if it is kept, and what was measured until the decision, as columns
        of the manifest.
    """
    measured: dict[str, Number] = dict(zip(("height", "width"), source.frame.shape, strict=False))
    for reason in _obstacles(source, target, settings, measured):
        return reason, None, measured
    forward = estimate_flow(source.frame, target.frame, settings.estimator)
    backward = estimate_flow(target.frame, source.frame, settings.estimator)
    masks = [
        _mask(*views, settings.mask) for views in ((source, target, forward), (target, source, backward))
    ]
    valid = consistent(forward, backward)
    measured |= flow_statistics(forward, masks[0], valid, source.frame)
    if reason := _flow_fault(measured, masks, settings):
        return reason, None, measured
    pair = Pair(
        key=row["key"],
        source=source.frame,
        target=target.frame,
        mask=masks[0],
        target_mask=masks[1],
        flow=forward,
        valid=valid,
        landmarks=source.landmarks if settings.landmarks else None,
        target_landmarks=target.landmarks if settings.landmarks else None,
        info={name: value for name, value in row.items() if name != "key"},
    )
    return "", pair, measured


def flow_statistics(flow: np.ndarray, mask: FrameMask, valid: FrameMask, frame: Frame) -> dict[str, Number]:
    """What the manifest says of a flow: motion inside the mask and at the border in px, shares of 1."""
    inside = mask > 0
    lengths = flow_length(flow)[inside] if inside.any() else np.zeros(1)
    return {
        "mask_share": float(inside.mean()),
        "valid_share": float(valid[inside].mean()) if inside.any() else 0.0,
        "mean_motion": float(lengths.mean()),
        "max_motion": float(np.percentile(lengths, 99)),
        "border_motion": border_motion(flow, mask, frame),
    }


def _obstacles(
    source: FrameFacts, target: FrameFacts, settings: CurateSettings, measured: dict[str, Number]
) -> Iterator[str]:
    """What can be said against a pair before its flow is known; fills `measured` on the way."""
    if np.abs(source.histogram - target.histogram).sum() / 2 > settings.max_colour_change:
        yield "scene_cut"
    difference = cv2.absdiff(source.frame, target.frame).mean(axis=2)
    if settings.mask == "person":
        measured["mask_share"] = float((source.mask > 0).mean())
        if min(measured["mask_share"], float((target.mask > 0).mean())) < settings.min_mask_share:
            yield "no_object"
        difference = difference[source.mask > 0]
    measured["mean_difference"] = float(difference.mean())
    if measured["mean_difference"] < settings.min_difference:
        yield "near_identical"
    if settings.require_face and 0 in (source.faces, target.faces):
        yield "no_face"
    if settings.count_people and source.faces != target.faces:
        yield "faces_differ"
    if settings.count_hands and source.hands != target.hands:
        yield "hands_differ"


def _mask(facts: FrameFacts, other: FrameFacts, flow: np.ndarray, kind: MaskName) -> FrameMask:
    """The object in a frame, given the other frame and the flow to it."""
    if kind == "person":
        return facts.mask
    if kind == "flow":
        return motion_mask(flow, (facts.frame, other.frame))
    return np.full(flow.shape[1:], 255, np.uint8)


def _flow_fault(measured: dict[str, Number], masks: list[FrameMask], settings: CurateSettings) -> str:
    """What can be said against a pair once its flow is known."""
    if min((mask > 0).mean() for mask in masks) < settings.min_mask_share:
        return "no_object"
    if settings.max_border_motion is not None and measured["border_motion"] > settings.max_border_motion:
        return "moving_camera"
    if measured["valid_share"] < settings.min_valid_share:
        return "unreliable_flow"
    return "little_motion" if measured["max_motion"] < settings.min_motion else ""
