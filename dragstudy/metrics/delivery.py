"""What a drag of a face delivers and what it costs: how far the landmarks went, and what is still the person.

The two sides of a guidance scale, measured on one edit: against the frame that shows what was asked for, and
against the photograph that was dragged.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragstudy.metrics.evaluate import head_mask
from dragstudy.metrics.fidelity import background_change, lpips_distance
from dragstudy.metrics.identity import identity_distance

DELIVERY = ("motion", "landmark_distance", "identity", "changed", "lpips", "colour", "background_change")


@torch.no_grad()
def measure_delivery(
    image: Float[Tensor, "1 3 h w"],
    item: Mapping[str, Any],
    detector: Callable[[np.ndarray], np.ndarray | None],
    descriptor: Callable[[np.ndarray], np.ndarray | None],
    lpips: nn.Module | None = None,
) -> dict[str, float]:
    """Measure an edit of a pair's source by drags to its target.

    Args:
        image: The edit, in [0, 1].
        item: The pair, of a `PairDataset`.
        detector: Face landmarks of a frame, such as `FaceLandmarks()`.
        descriptor: From a frame to numbers, such as `FaceDescriptor()`.
        lpips: What `lpips_model` gives; AlexNet by default.

    Returns:
        By name; the first three are NaN where no face is found:

        - `motion`, `landmark_motion` of the landmarks, in square pixels; that of the target frame itself is
          what was asked for, so the ratio of the means of both is the share of the motion that is delivered
        - `landmark_distance` to the target's landmarks, in pixels
        - `identity`, the `identity_distance` of edit and source
        - `changed`, LPIPS to the source, and `lpips`, LPIPS to the target
        - `colour`, the `colour_shift` of the head, and `background_change`, both in grey levels
    """
    source, target = item["source"][None], item["target"][None]
    begin, end = (np.asarray(item[name], np.float64) for name in ("landmarks", "target_landmarks"))
    edited, photo = ((one[0] * 255).round().byte().permute(1, 2, 0).numpy() for one in (image, source))
    measured = dict.fromkeys(DELIVERY[:3], float("nan"))
    found = detector(edited)
    if found is not None:
        measured = {
            "motion": landmark_motion(found - begin, end - begin),
            "landmark_distance": float(np.linalg.norm(found - end, axis=1).mean()),
            "identity": identity_distance(edited, photo, descriptor),
        }
    people = torch.maximum(item["mask"], item["target_mask"])[None]
    head = torch.from_numpy(head_mask(item))[None, None].float()
    return measured | {
        "changed": lpips_distance(image, source, model=lpips).item(),
        "lpips": lpips_distance(image, target, model=lpips).item(),
        "colour": colour_shift(image, source, head).item(),
        "background_change": background_change(image, source, people).item(),
    }


def landmark_motion(found: Float[np.ndarray, "n 2"], asked: Float[np.ndarray, "n 2"]) -> float:
    """Mean product of how landmarks moved and how they were asked to, in square pixels.

    Divided by the same of `asked` with itself it is the slope of the line through the origin that fits the
    motion over what was asked: 1 where all of it is delivered, 2 where twice as much, 0 where nothing is, or
    what is has nothing to do with it.

    Example:
        >>> asked = np.array([[4.0, 0.0], [0.0, 2.0]])
        >>> landmark_motion(asked / 2, asked) / landmark_motion(asked, asked)
        0.5
    """
    return float((found * asked).sum(axis=1).mean())


def colour_shift(
    images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """How far the mean colour inside a mask is from the references', `(b,)`; NaN where the mask is empty.

    The mean over red, green and blue of the absolute difference of the two means, in grey levels of 0..255.
    What only moves inside the mask does not change it; a tint or another brightness does.

    Example:
        >>> grey, mask = torch.full((1, 3, 8, 8), 0.5), torch.ones(1, 1, 8, 8)
        >>> warmer = grey + torch.tensor([6.0, 0.0, -3.0]).view(1, 3, 1, 1) / 255
        >>> round(colour_shift(warmer, grey, mask).item(), 3)
        3.0
    """
    inside = (mask > 0.5).to(images)
    difference = ((images - references) * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
    return 255 * difference.abs().mean(dim=1)
