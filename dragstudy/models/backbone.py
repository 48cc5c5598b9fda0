"""The backbone: a Stable-Diffusion-shaped U-Net that denoises latents under a null prompt.

The published systems start from Stable Diffusion 1.5 and feed it the embedding of the empty prompt. The tiny
backbone has the same class, blocks and attention layers at fewer channels, and one token of zeros in place of
the text encoder's 77: it never sees another prompt, so there is nothing to embed.
"""

import torch
from diffusers import (
    ConfigMixin,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    ModelMixin,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class NullPrompt(ModelMixin, ConfigMixin):
    """The prompt embedding that stands for "no prompt", `(1, num_tokens, dim)`, as a component of its own.

    For Stable Diffusion store its text encoder's output for the empty string here (77 tokens of 768), and
    neither the text encoder nor the tokenizer is needed any more.
    """

    @register_to_config
    def __init__(self, num_tokens: int = 1, dim: int = 64):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, num_tokens, dim), requires_grad=False)

    def forward(self, batch_size: int) -> Tensor:
        """Repeat the embedding: `(batch_size, num_tokens, dim)`."""
        return self.embedding.expand(batch_size, -1, -1)


def make_backbone(
    latent_channels: int = 4, channels: tuple[int, ...] = (64, 96, 128, 96)
) -> UNet2DConditionModel:
    """Build the tiny backbone, untrained; 6.1 million parameters.

    Stable Diffusion's blocks with one ResNet each instead of two, and attention at the two middle resolutions
    only: at the finest, 32 x 32, Stable Diffusion's third, it would take more than half of all time on a CPU.
    """
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=tuple(width // 32 for width in channels),  # diffusers means the number of heads
        cross_attention_dim=64,
        norm_num_groups=32,
    )


def widen(backbone: UNet2DConditionModel, extra_channels: int) -> UNet2DConditionModel:
    """A copy of a U-Net that takes further input channels, with weights of zero.

    Args:
        backbone: Any Stable Diffusion U-Net; it is left as it was.
        extra_channels: How many channels follow those that it has.

    Returns:
        A new U-Net of the same class, whose output equals the backbone's.
    """
    known = backbone.config.in_channels
    unet = UNet2DConditionModel.from_config({**backbone.config, "in_channels": known + extra_channels})
    state = backbone.state_dict()
    narrow = state["conv_in.weight"]
    state["conv_in.weight"] = narrow.new_zeros(narrow.shape[0], known + extra_channels, *narrow.shape[2:])
    state["conv_in.weight"][:, :known] = narrow
    unet.load_state_dict(state)
    return unet


def make_scheduler(prediction_type: str = "v_prediction") -> DPMSolverMultistepScheduler:
    """DPM++ (2M), 20 steps by default in the pipelines, on Stable Diffusion's noise schedule.

    The tiny networks predict the velocity, which stays informative at the noisiest timestep, where a sampler
    starts; they are trained with a zero terminal signal-to-noise ratio for the same reason.
    """
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


def make_inpainting_scheduler(prediction_type: str = "v_prediction") -> DDIMScheduler:
    """DDIM on Stable Diffusion's own noise schedule, for LightningDrag.

    Its noisiest timestep, the first of the trailing ones, keeps 0.068 of the picture: hence noise priors.
    The last step ends at clean latents, and not at timestep 0, whose noise nothing would take away.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


def make_ddim_scheduler(prediction_type: str = "v_prediction") -> DDIMScheduler:
    """DDIM on the tiny networks' noise schedule, for methods that invert photographs.

    Spacing and offset are those of the authors' codes for Stable Diffusion: of 50 steps the noisiest is at
    timestep 981, which keeps something of the photograph; at 999 nothing is left to invert.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="leading",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        rescale_betas_zero_snr=True,
    )
