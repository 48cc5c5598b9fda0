"""Classifier-free guidance over several conditions, as pure functions.

InstantDrag, Sec. 3.1.2 and Appendix D.2. Write e(I, F, T) for the network's prediction given image, flow and
text, and e(0, 0, 0) for the one given nothing.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

GuidanceForm = Literal["image_flow", "flow", "image_flow_text"]

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
