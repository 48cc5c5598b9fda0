"""Heads that move, in frames that are not portraits: what generated faces lack.

A face generator draws every head in the same place. Here the person of a frame is moved as one layer over a
background that stays, and the frame is cut and shifted as a webcam would see it. All maps are analytic, so
mask and landmarks move with the picture and need not be found again.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from dragstudy.data.frames import FrameFacts

Points = Float64[np.ndarray, "n 2"]
Frame = UInt8[np.ndarray, "h w 3"]
FILL = 64  # side at which the background behind a person is inpainted, px: it is only seen at the outline


@dataclass(frozen=True)
class Framing:
    """Which square of a frame is seen: its left top corner and its side, as shares of the frame's side."""

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0

    def to_frame(self, points: Points, size: int) -> Points:
        """From pixels of the picture to pixels of the frame, both `size` wide."""
        return (points + 0.5) * self.side - 0.5 + size * np.array([self.left, self.top])

    def to_picture(self, points: Points, size: int) -> Points:
        """The way back."""
        return (points - size * np.array([self.left, self.top]) + 0.5) / self.side - 0.5


@dataclass(frozen=True)
class HeadMotion:
    """A turn, a change of size and a shift of the head; the body follows by a share of it.

    Attributes:
        shift: x, y as shares of the frame's side.
        scale: Factor on the size.
        angle: Turn in radians, clockwise in the picture.
        body: Share of the motion at the lower border; it grows to 1 at the chin.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    angle: float = 0.0
    body: float = 1.0

    def backward(self, points: Points, size: int) -> Points:
        """Where in the frame the content at `points` of the moved frame comes from, in pixels."""
        pivot = size * np.array([0.5, 0.75])  # the neck of a centred portrait
        cosine, sine = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        turn = np.array([[cosine, sine], [-sine, cosine]])
        origin = (points - pivot - size * np.array(self.shift)) @ turn.T + pivot
        t = np.clip((points[:, 1:] / size - 0.7) / 0.3, 0, 1)
        share = 1 - (1 - self.body) * t * t * (3 - 2 * t)
        return points + share * (origin - points)

    def forward(self, points: Points, size: int) -> Points:
        """The inverse of `backward`, by fixed-point iteration."""
        moved = points
        for _ in range(30):
            moved = moved - (self.backward(moved, size) - points)
        return moved


def draw_framing(rng: np.random.Generator) -> Framing:
    """A square with at least 70 % of the frame's side; the whole frame in one case of three."""
    side = 1.0 if rng.random() < 1 / 3 else rng.uniform(0.7, 1.0)
    left, top = rng.uniform(0, 1 - side, 2)
    return Framing(left, top, side)


def shake(framing: Framing, rng: np.random.Generator, largest: float = 0.01) -> Framing:
    """The same framing after a small motion of the camera."""
    left, top = np.clip(
        np.array([framing.left, framing.top]) + rng.uniform(-largest, largest, 2), 0, 1 - framing.side
    )
    return Framing(left, top, framing.side)


def draw_head_motion(rng: np.random.Generator) -> HeadMotion:
    """Up to 7 % of the frame's side of shift, 5 % of size and 6 degrees of turn, often less."""
    strength = rng.random()
    shift = strength * rng.uniform(-0.07, 0.07, 2) * (1, 0.6)
    scale = float(np.exp(strength * rng.uniform(-0.05, 0.05)))
    return HeadMotion(tuple(shift), scale, strength * rng.uniform(-0.1, 0.1), rng.uniform(0.2, 1.0))


def fill_background(facts: FrameFacts) -> Frame:
    """The frame without its person: what lies around it, grown smoothly into the hole."""
    size = facts.frame.shape[1]
    hole = cv2.dilate(facts.mask, np.ones((9, 9), np.uint8))
    small = cv2.resize(facts.frame, (FILL, FILL), interpolation=cv2.INTER_AREA)
    small_hole = (cv2.resize(hole, (FILL, FILL), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    filled = cv2.resize(cv2.inpaint(small, small_hole, 3, cv2.INPAINT_TELEA), (size, size))
    soft = cv2.GaussianBlur(hole, (0, 0), 2)[..., None] / 255.0
    return (soft * filled + (1 - soft) * facts.frame).round().astype(np.uint8)


def view(
    facts: FrameFacts,
    framing: Framing,
    motion: HeadMotion | None = None,
    background: Frame | None = None,
) -> FrameFacts:
    """A frame after the head's motion, as the framing shows it; mask and landmarks come along.

    Args:
        facts: A square frame and what is known of it.
        framing: What part of it is seen.
        motion: How the person moves; None leaves them.
        background: What stays behind the person, see `fill_background`; with a motion only.

    Returns:
        Facts of the new frame, of the same size. Counts of faces and hands are those of the old one.
    """
    frame, size = facts.frame, facts.frame.shape[1]
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2).astype(float)
    seen = framing.to_frame(pixels, size)
    origin = seen if motion is None else motion.backward(seen, size)
    picture, person = _read(frame, origin), _read(facts.mask, origin) / 255.0
    if motion is not None:
        soft = cv2.GaussianBlur(person, (0, 0), 1.0)[..., None]
        picture = soft * picture + (1 - soft) * _read(background, seen)
    known = {
        "mask": np.where(person > 0.5, 255, 0).astype(np.uint8),
        "landmarks": _moved(facts.landmarks, framing, motion, size),
        "faces": facts.faces,
        "hands": facts.hands,
    }
    moved = FrameFacts(picture.round().clip(0, 255).astype(np.uint8), facts.analyser)
    moved.__dict__.update(known)  # the places of its cached properties
    return moved


def _moved(landmarks: Points | None, framing: Framing, motion: HeadMotion | None, size: int) -> Points | None:
    if landmarks is None:
        return None
    points = landmarks if motion is None else motion.forward(landmarks, size)
    return framing.to_picture(points, size)


def _read(image: np.ndarray, origin: Points) -> np.ndarray:
    """Read an image at positions in pixels, bicubic, the border repeated."""
    h, w = image.shape[:2]
    maps = origin.astype(np.float32).reshape(h, w, 2)
    return cv2.remap(image.astype(np.float32), maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
