"""DragonDiffusion's settings: what its paper says, what its code does, task by task."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Attention = Literal["replace", "concatenate", "none"]
Interpolation = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class DragonSettings:
    """Everything that paper and code set differently; shares are of the N steps after the inversion.

    Attributes:
        num_inference_steps: Steps of DDIM from pure noise to the picture.
        inversion_strength: Share of them that is inverted, and denoised again: N steps.
        guided_share: n / N, the first steps, which are guided.
        dense_share: From this share of all steps on, only those of even number are guided.
        learning_rate: eta, the factor on the energy's gradient before it is added to the noise.
        guidance_scale: Classifier-free guidance; of no effect without a prompt.
        edit_weight: w_e of Eq. 7.
        content_weight: w_c of Eq. 7.
        inpaint_weight: w_i of Eq. 9, of an object's surroundings in what it leaves.
        contrast_weight: Of Eq. 9's second term, against what was there.
        feature_blocks: Blocks whose features are compared.
        feature_interpolation: How these are brought to one grid.
        round_points: Whether drags go from cell to cell of that grid, 4 pixels, and not from point to point.
        visual_attention: Keys and values of the memory bank in the decoder's self-attention (Eq. 10): they
            `"replace"` the edit's own, or stand beside them (`"concatenate"`), or are not used.
        attention_from: Share of the steps without it at the beginning.
        attention_to: Share of the steps after which there is none.
        attention_regions: With two pictures, of the photograph only what is not the object, of the other only
            what is.
        inversion_prior: Whether to start from the inverted photograph, or from noise.
        copy_start: Whether to begin with the object's own inverted latents where it goes.
        separate_gradients: Whether the gradient of E_edit counts only inside of the edited region, that of
            E_content only outside.
        unguided_direction: Whether a step's way back to noise leaves the gradient out.
        time_travel: How often every second step around the middle is taken.
        sde_strength: Share of new noise inside of the edited region in steps before the middle.
    """

    num_inference_steps: int = 50
    inversion_strength: float = 1.0
    guided_share: float = 0.6
    dense_share: float = 1.0
    learning_rate: float = 80.0
    guidance_scale: float = 5.0
    edit_weight: float = 4.0
    content_weight: float = 6.0
    inpaint_weight: float = 0.0
    contrast_weight: float = 0.0
    feature_blocks: tuple[str, ...] = ("up_blocks.1", "up_blocks.2")
    feature_interpolation: str = "bilinear"
    round_points: bool = False
    visual_attention: Attention = "replace"
    attention_from: float = 0.0
    attention_to: float = 1.0
    attention_regions: bool = False
    inversion_prior: bool = True
    copy_start: bool = False
    separate_gradients: bool = False
    unguided_direction: bool = False
    time_travel: int = 1
    sde_strength: float = 0.0


_PAPER = DragonSettings()
_CODE = DragonSettings(
    dense_share=0.2,
    guidance_scale=4.0,
    feature_interpolation="nearest",
    round_points=True,
    visual_attention="concatenate",
    attention_from=0.1,
    attention_regions=True,
    copy_start=True,
    separate_gradients=True,
    unguided_direction=True,
    time_travel=3,
    sde_strength=0.4,
)
_TWO = {"attention_from": 0.0, "attention_to": 0.72, "visual_attention": "replace"}  # steps 0 to 35 of 50


def _tasks(base: DragonSettings, own: dict[str, dict]) -> dict[str, DragonSettings]:
    return {task: replace(base, **own.get(task, {})) for task in TASKS}


def _steps(settings: dict[str, DragonSettings], num_inference_steps: int) -> dict[str, DragonSettings]:
    return {task: replace(one, num_inference_steps=num_inference_steps) for task, one in settings.items()}


TASKS = ("drag", "move", "appearance", "paste")

# The text has w_i = 2.5, alpha, beta, N, n and the guidance scale; eta, w_e and w_c are the code's.
_PAPER_TASKS = _tasks(
    _PAPER,
    {
        "move": {"learning_rate": 40.0, "inpaint_weight": 2.5, "contrast_weight": 1.0},
        "appearance": {"edit_weight": 3.5, "content_weight": 5.0},
        "paste": {"learning_rate": 60.0},
    },
)
# eta is the code's energy scale times its gain: 2000 x 0.04, moving 500 x 0.08, pasting 1500 x 0.04.
_CODE_TASKS = _tasks(
    _CODE,
    {
        "drag": {"contrast_weight": 0.2},
        "move": {
            "learning_rate": 40.0,
            "inpaint_weight": 1.6,  # 0.8 of a sum over two blocks, the mean of which is taken here
            "contrast_weight": 0.2,
            "visual_attention": "replace",
        },
        "appearance": {"edit_weight": 3.5, "content_weight": 5.0, "guidance_scale": 5.0, **_TWO},
        "paste": {"learning_rate": 60.0, **_TWO},
    },
)
# For the tiny backbone in data/weights, by measurement: notebooks/06_dragondiffusion.ipynb, sections 5, 6.
_TINY = replace(
    _PAPER,
    num_inference_steps=20,
    inversion_strength=0.5,
    guided_share=1.0,
    learning_rate=600.0,
    feature_blocks=("up_blocks.2",),
    separate_gradients=True,
    unguided_direction=True,
)
_TINY_TASKS = _tasks(
    _TINY,
    {
        "move": {"inpaint_weight": 2.5, "contrast_weight": 1.0, "copy_start": True},
        "appearance": {"edit_weight": 3.5, "content_weight": 5.0, "learning_rate": 300.0},
        "paste": {"copy_start": True, "learning_rate": 300.0},
    },
)
PRESETS = {
    "paper": _PAPER_TASKS,
    "code": _CODE_TASKS,
    # InstantDrag, Table A1: 11.0, 4.67 and 0.98 seconds on an A6000 at 512 x 512
    "10s": _CODE_TASKS,
    "5s": _steps(_CODE_TASKS, 20),
    "1s": _steps(_CODE_TASKS, 3),
    "tiny": _TINY_TASKS,
}


def check_settings(settings: DragonSettings) -> None:
    """Refuse what cannot be computed, before anything is.

    Raises:
        ValueError: With one sentence.
    """
    for name, allowed in (
        ("visual_attention", get_args(Attention)),
        ("feature_interpolation", get_args(Interpolation)),
    ):
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(settings, name)!r}")
    for name in ("guided_share", "sde_strength"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(settings, name)}")
    if settings.time_travel < 1:
        raise ValueError(f"time_travel must be at least 1, got {settings.time_travel}")
