"""Classifier-free guidance over several conditions, and its weight over time, as pure functions.

InstantDrag, Sec. 3.1.2 and Appendix D.2. Write e(I, F, T) for the network's prediction given image, flow and
text, and e(0, 0, 0) for the one given nothing. The schedules are LightningDrag's, Sec. 4.3.2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

GuidanceForm = Literal["image_flow", "flow", "image_flow_text"]
GuidanceSchedule = Literal["none", "constant", "square", "linear", "inverse_square"]
ScheduleTime = Literal["timestep", "step"]

# rows of the network's batch that each form needs, as (image, flow, text) switched on; weakest first
GUIDANCE_ROWS: dict[str, tuple[tuple[bool, bool, bool], ...]] = {
    "image_flow": ((False, False, False), (True, False, False), (True, True, False)),
    "flow": ((True, False, False), (True, True, False)),
    "image_flow_text": ((False, False, False), (True, False, False), (True, True, False), (True, True, True)),
}
_SCALES = {"image_flow": ("image", "flow"), "flow": ("flow",), "image_flow_text": ("image", "flow", "text")}


def guidance_rows(form: str) -> tuple[tuple[bool, bool, bool], ...]:
    """The conditions (image, flow, text) of each row that `form` combines.

    Raises:
        ValueError: If `form` is none of `GuidanceForm`.
    """
    if form not in GUIDANCE_ROWS:
        raise ValueError(f"guidance_form must be one of {', '.join(get_args(GuidanceForm))}, got {form!r}")
    return GUIDANCE_ROWS[form]


def guide(
    predictions: Float[Tensor, "rows b c h w"], form: str, scales: Mapping[str, float | int]
) -> Float[Tensor, "b c h w"]:
    """Combine the predictions of `guidance_rows(form)` by their guidance scales.

    Every form is a chain that starts at its weakest row and adds each further condition, scaled:

    - `"image_flow"` (D.2, Eq. 5 and Sec. 3.1.2, Eq. 4; the published model's):
      e(0,0) + s_I (e(I,0) - e(0,0)) + s_F (e(I,F) - e(I,0))
    - `"flow"` (D.2, Eq. 4): e(I,0) + s_F (e(I,F) - e(I,0))
    - `"image_flow_text"` (D.2, Eq. 3, of which the paper's text keeps the three scales but not the order of
      the conditions; ours adds the text last): "image_flow" + s_T (e(I,F,T) - e(I,F,0))

    Args:
        predictions: One prediction a row, in the order of `guidance_rows(form)`, shape `(rows, b, c, h, w)`.
        form: A `GuidanceForm`.
        scales: Guidance scales by condition: `image`, `flow`, `text`. All at 1 give the last row back.

    Returns:
        The guided prediction, shape `(b, c, h, w)`.

    Example:
        >>> import torch
        >>> rows = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1, 1)
        >>> guide(rows, "image_flow", {"image": 1.5, "flow": 2.0}).item()
        5.5
    """
    rows = guidance_rows(form)
    if len(predictions) != len(rows):
        raise ValueError(f"guidance_form {form!r} combines {len(rows)} predictions, got {len(predictions)}")
    guided = predictions[0]
    for weaker, stronger, condition in zip(predictions[:-1], predictions[1:], _SCALES[form], strict=True):
        guided = guided + scales[condition] * (stronger - weaker)
    return guided


def guidance_weight(schedule: str, largest: float | int, time: float | int) -> float:
    r"""The guidance scale at a time of the sampling (LightningDrag, Sec. 4.3.2).

    All schedules but the first two fall from the largest scale at time 1, pure noise, to 1 at time 0. With
    $\tau = t / 1000$ and $\omega = \omega_\mathrm{max}$:

    - `"none"`: $1$, the fully conditioned prediction alone
    - `"constant"`: $\omega$
    - `"square"`: $\omega (1 - (1 - \tau)^2) + (1 - \tau)^2$, the slowest
    - `"linear"`: $\omega \tau + (1 - \tau)$
    - `"inverse_square"`: $(\omega - 1) \tau^2 + 1$, the fastest and the paper's choice

    The authors' code names them otherwise: its `none` is `"constant"`, its `inv_square` `"inverse_square"`;
    `square` and `linear` are these; and its `quadratic`, slower still, the paper does not have.

    Args:
        schedule: A `GuidanceSchedule`.
        largest: $\omega_\mathrm{max}$. At 1 there is no guidance; below it the prediction without condition
            is mixed in, less and less where the schedule decays. The authors' code fails on both.
        time: $\tau$ in [0, 1], 1 where the sampling starts; see `schedule_times`.

    Raises:
        ValueError: If `schedule` is none of `GuidanceSchedule`, or a number is not one that can be used.

    Example:
        >>> [guidance_weight("inverse_square", 3.0, time) for time in (1, 0.5, 0)]
        [3.0, 1.5, 1.0]
    """
    if not math.isfinite(largest):
        raise ValueError(f"the largest guidance scale must be a finite number, got {largest}")
    if not 0 <= time <= 1:
        raise ValueError(f"the time of a guidance schedule must lie in [0, 1], got {time}")
    shares = {
        "none": 0,
        "constant": 1,
        "square": 1 - (1 - time) ** 2,
        "linear": time,
        "inverse_square": time**2,
    }
    if schedule not in shares:
        raise ValueError(
            f"guidance_schedule must be one of {', '.join(get_args(GuidanceSchedule))}, got {schedule!r}"
        )
    share = shares[schedule]
    return float(largest * share + (1 - share))


def schedule_times(
    timesteps: Sequence[float | int] | Tensor, num_train_timesteps: int, reading: str = "timestep"
) -> list[float]:
    r"""The time $\tau$ of every sampling step, for `guidance_weight`.

    - `"timestep"`, the paper's: $\tau_i = t_i / T$ with $T$ timesteps in training
    - `"step"`, the authors' code's: $\tau_i = 1 - i / N$ for step $i$ of $N$

    On evenly spaced timesteps they agree but for a shift: $1/T$ where the first is at $T - 1$ (diffusers'
    "trailing"), and nearly a whole step, $1/N - 1/T$, with the spacing of the authors' own sampler ("leading"
    with an offset of 1), where the paper's reading never reaches the largest scale. Few-step samplers space
    their steps unevenly: there they differ.

    Args:
        timesteps: Those of the sampling, from noise to image, `(n,)`.
        num_train_timesteps: $T$, 1000 in Stable Diffusion.
        reading: A `ScheduleTime`.

    Raises:
        ValueError: If `reading` is none of `ScheduleTime`, or a timestep lies outside [0, T].

    Example:
        >>> schedule_times([999, 749, 499, 249], 1000)
        [0.999, 0.749, 0.499, 0.249]
        >>> schedule_times([999, 749, 499, 249], 1000, "step")
        [1.0, 0.75, 0.5, 0.25]
    """
    known = timesteps.tolist() if isinstance(timesteps, Tensor) else list(timesteps)
    if reading not in get_args(ScheduleTime):
        raise ValueError(f"schedule_time must be one of {', '.join(get_args(ScheduleTime))}, got {reading!r}")
    if outside := [t for t in known if not 0 <= t <= num_train_timesteps]:
        raise ValueError(f"timesteps must lie in [0, {num_train_timesteps}], got {outside[0]}")
    if reading == "step":
        return [1 - i / len(known) for i in range(len(known))]
    return [t / num_train_timesteps for t in known]
