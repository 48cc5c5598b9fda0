"""What SDE-Drag can be set to, and the named sets of it."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SDEDragSettings:
    """What the presets set; lengths in latent cells, 8 x 8 pixels of the working image each.

    Attributes:
        num_inference_steps: Steps that the whole way from pure noise would have.
        strength: t_0 / T: how much of the way is gone; 0.6 of 100 steps are 60 up and 60 down in each round.
        step_length: How far a round drags; the longest drag decides how many rounds there are.
        radius: r; a patch has 2 r + 1 cells a side.
        amplification: alpha, the factor on what is pasted.
        source_share: beta, what stays where a patch was copied from; the rest is noise.
        moving_noises: Whether a patch takes a copy of its remembered noises along.
        guidance_scale: At t_0, from 1 at the picture; it needs a text, given as `prompt_embeds`.
        lora_steps: Steps of the photograph's LoRA; 0 trains none.
        lora_rank: Its rank.
        lora_scale: Its strength at t_0, from 1 at the picture.
    """

    num_inference_steps: int = 100
    strength: float = 0.6
    step_length: float = 2.0
    radius: int = 5
    amplification: float = 1.1
    source_share: float = 0.3
    moving_noises: bool = False
    guidance_scale: float = 3.0
    lora_steps: int = 0
    lora_rank: int = 16
    lora_scale: float = 0.5


_CODE = SDEDragSettings()
PRESETS = {
    "paper": replace(_CODE, num_inference_steps=200, lora_steps=100, lora_rank=4),
    "code": _CODE,
    # InstantDrag, Table A1: seconds on an A6000 at 512 x 512
    "50s": replace(_CODE, num_inference_steps=100, lora_steps=100),
    "20s": replace(_CODE, num_inference_steps=40, lora_steps=40),
    "10s": replace(_CODE, num_inference_steps=40),
    "5s": replace(_CODE, num_inference_steps=20),
    # measured with the weights in this repository: see the class
    "tiny": replace(_CODE, num_inference_steps=20, radius=4, moving_noises=True),
}


def check_settings(settings: SDEDragSettings) -> None:
    """Refuse what cannot be computed, before anything is.

    Raises:
        ValueError: With one sentence.
    """
    for name in ("radius", "lora_steps", "lora_scale", "amplification"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(settings, name)}")
    if settings.step_length <= 0:
        raise ValueError(f"step_length must be more than 0 latent cells, got {settings.step_length}")
    if not 0 <= settings.source_share <= 1:
        raise ValueError(f"source_share must lie in [0, 1], got {settings.source_share}")
    if settings.guidance_scale < 1:
        raise ValueError(f"guidance_scale must be at least 1, got {settings.guidance_scale}")
    if settings.lora_rank < 1:
        raise ValueError(f"lora_rank must be at least 1, got {settings.lora_rank}")
