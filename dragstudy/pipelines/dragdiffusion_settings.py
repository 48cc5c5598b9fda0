"""Everything that DragDiffusion's paper, its code and this study set differently, as named presets."""

from dataclasses import dataclass, replace

from diffusers import UNet2DConditionModel

from dragstudy.pipelines.image_lora import ATTENTION


@dataclass(frozen=True)
class DragDiffusionSettings:
    """Everything that papers and codes set differently; lengths in half pixels of the working image.

    Attributes:
        lora_steps: Steps of the photograph's LoRA; 0 trains none.
        lora_learning_rate: Its learning rate.
        lora_layers: Ends of the names of its layers.
        num_inference_steps: Steps of DDIM from pure noise to the picture.
        inversion_strength: Share of them that are inverted: the latents at that depth are dragged.
        iterations: Steps of motion supervision at most.
        optimizer: `"adam"`, or `"gradient"` for Eq. 3 as it is written, which leaves alone what the drag does
            not concern; there the gradient is divided by its largest entry, so that `learning_rate` is the
            largest change of a latent.
        learning_rate: Of the latents.
        mask_weight: lambda in Eq. 2.
        supervision_radius: r_1.
        tracking_radius: r_2.
        feature_block: Block whose output is F.
        loss_reduction: Of the channels in Eq. 2, `"sum"` or `"mean"`.
        supervision_step: Length of d_i, how far ahead a patch is pulled.
        supervision_reference: Whether a patch is compared with the edit as it is (`"current"`, Eq. 2) or with
            the photograph (`"initial"`; not in the paper).
        tracking_reference: Whether Eq. 4 looks for what was at the `"current"` or at the `"initial"` handle.
        stop_distance: A point that is closer to its target has arrived; when all have, the dragging ends.
        mutual_attention_blocks: Blocks in which the edit, denoised, attends to the photograph; in the paper
            none.
    """

    lora_steps: int
    lora_learning_rate: float
    lora_layers: tuple[str, ...]
    num_inference_steps: int = 50
    inversion_strength: float = 0.8
    iterations: int = 80
    optimizer: str = "adam"
    learning_rate: float = 0.01
    mask_weight: float = 0.1
    supervision_radius: int = 1
    tracking_radius: int = 3
    feature_block: str = "up_blocks.2"
    loss_reduction: str = "sum"
    supervision_step: float = 1.0
    supervision_reference: str = "current"
    tracking_reference: str = "current"
    stop_distance: float = 1.0  # the text gives no rule; steps of length 1 come no closer than this
    mutual_attention_blocks: tuple[str, ...] = ()


_CODE = DragDiffusionSettings(
    lora_steps=80,
    lora_learning_rate=5e-4,
    lora_layers=(*ATTENTION, "to_out.0"),
    inversion_strength=0.7,
    loss_reduction="mean",
    tracking_reference="initial",
    stop_distance=2.0,
    mutual_attention_blocks=("up_blocks.2", "up_blocks.3"),  # "start layer 10" of Stable Diffusion's 16
)


def _matched(lora_steps: int, iterations: int, num_inference_steps: int) -> DragDiffusionSettings:
    return replace(
        _CODE, lora_steps=lora_steps, iterations=iterations, num_inference_steps=num_inference_steps
    )


# Ours. The features of a U-Net of a few million parameters can be pleased by changes that move nothing: the
# tracker then reports an arrival that nobody sees. Those of the last block, large patches, compared with the
# photograph and pulled all the way, and steps along the gradient do move it. Notebook 05 undoes them singly.
_TINY = DragDiffusionSettings(
    lora_steps=0,
    lora_learning_rate=5e-4,
    lora_layers=(*ATTENTION, "to_out.0"),
    num_inference_steps=20,
    inversion_strength=0.5,
    iterations=40,
    optimizer="gradient",
    learning_rate=0.1,
    supervision_radius=12,
    feature_block="up_blocks.3",
    supervision_step=1000.0,
    supervision_reference="initial",
    tracking_reference="initial",
    stop_distance=0.0,
)

PRESETS = {
    "paper": DragDiffusionSettings(lora_steps=200, lora_learning_rate=2e-4, lora_layers=ATTENTION),
    "code": _CODE,
    # InstantDrag, Table A1: seconds on an A6000 at 512 x 512
    "75s": _matched(80, 80, 50),
    "50s": _matched(40, 80, 20),
    "20s": _matched(20, 30, 10),
    "10s": _matched(0, 10, 4),
    "5s": _matched(0, 5, 2),
    "tiny": _TINY,
}


_NOT_NEGATIVE = (
    *("lora_steps", "lora_learning_rate", "iterations", "learning_rate", "mask_weight"),
    *("supervision_radius", "supervision_step", "tracking_radius", "stop_distance"),
)


def check_settings(settings: DragDiffusionSettings, unet: UNet2DConditionModel) -> None:
    """Refuse what cannot be computed, before anything is.

    Raises:
        ValueError: With one sentence.
    """
    choices = {
        "supervision_reference": ("current", "initial"),
        "tracking_reference": ("current", "initial"),
        "loss_reduction": ("sum", "mean"),
        "optimizer": ("adam", "gradient"),
    }
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(settings, name)!r}")
    for name in _NOT_NEGATIVE:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(settings, name)}")
    blocks = [
        name for name, _ in unet.named_modules() if name == "mid_block" or name.startswith("up_blocks.")
    ]
    blocks = [name for name in blocks if name.count(".") < 2]
    for block in (settings.feature_block, *settings.mutual_attention_blocks):
        if block not in blocks:
            raise ValueError(f"a block must be one of {', '.join(blocks)}, got {block!r}")
