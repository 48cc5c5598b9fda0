"""The f8 autoencoder: images in [-1, 1] to latents of a spread of about one, and back.

Three classes of diffusers stand behind the same two functions: `AutoencoderTiny` (the tiny profile; trained
here), `AutoencoderKL` (Stable Diffusion's) and whatever else answers `encode` and `decode`.
"""

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn


def make_autoencoder(latent_channels: int = 4, width: int = 48) -> AutoencoderTiny:
    """Build the tiny profile's autoencoder, untrained; 1.1 million parameters.

    Half as many blocks as the published TAESD at 64 px and above, and none at full resolution, where one
    block costs as much as all the rest: encode and decode of 256 x 256 stay below 0.15 s on two CPU cores.

    Args:
        latent_channels: Channels of the latents; four in Stable Diffusion, eight in the shipped weights.
        width: Channels of every hidden layer.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 2, 3, 3),
        num_decoder_blocks=(3, 3, 2, 0),
        latent_channels=latent_channels,
    )


def encode(autoencoder: nn.Module, images: Tensor) -> Tensor:
    """Encode images `(b, 3, h, w)` in [-1, 1] to scaled latents `(b, c, h/8, w/8)`.

    A variational autoencoder gives its mode, not a sample: the same image always gives the same latents.
    """
    encoded = autoencoder.encode(images)
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return (latents - _shift(autoencoder)) * autoencoder.config.scaling_factor


def decode(autoencoder: nn.Module, latents: Tensor) -> Tensor:
    """Decode scaled latents `(b, c, h, w)` to images `(b, 3, 8h, 8w)`, nominally in [-1, 1]."""
    return autoencoder.decode(latents / autoencoder.config.scaling_factor + _shift(autoencoder)).sample


def _shift(autoencoder: nn.Module) -> float:
    return autoencoder.config.get("shift_factor") or 0.0


@torch.no_grad()
def set_latent_scale(autoencoder: nn.Module, images: Tensor) -> None:
    """Choose shift and scale so that the latents of `images` `(b, 3, h, w)` have mean 0 and deviation 1.

    The diffusion's noise has deviation 1; Stable Diffusion's 0.18215 is the same measurement on its own
    latents.
    """
    autoencoder.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    latents = encode(autoencoder, images).double()
    autoencoder.register_to_config(
        scaling_factor=round(1 / latents.std().item(), 5), shift_factor=round(latents.mean().item(), 5)
    )
