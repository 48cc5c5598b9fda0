"""The autoencoder's border: scaled latents in, images out, whatever class stands behind it."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.testing import assert_close

from dragstudy.models.autoencoder import decode, encode, make_autoencoder, set_latent_scale

from ..tiny import tiny_autoencoder


def tiny_kl() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize("make", [tiny_autoencoder, tiny_kl])
def test_scale_and_shift_are_undone_by_decoding(make, generator):
    autoencoder = make()
    images = 2 * torch.rand(2, 3, 32, 32, generator=generator) - 1
    with torch.no_grad():
        autoencoder.register_to_config(scaling_factor=1.0, shift_factor=None)
        raw = encode(autoencoder, images)
        rebuilt = decode(autoencoder, raw)
        autoencoder.register_to_config(scaling_factor=2.5, shift_factor=-0.75)
        latents = encode(autoencoder, images)
        assert_close(latents, 2.5 * (raw + 0.75))
        assert_close(decode(autoencoder, latents), rebuilt, atol=1e-4, rtol=1e-4)
        assert torch.equal(encode(autoencoder, images), latents)


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("size", [(32, 32), (64, 24)])
def test_latents_are_an_eighth_of_the_image(channels, size, generator):
    autoencoder = tiny_autoencoder(channels)
    latents = encode(autoencoder, torch.rand(1, 3, *size, generator=generator))
    assert latents.shape == (1, channels, size[0] // 8, size[1] // 8)
    assert decode(autoencoder, latents).shape == (1, 3, *size)


def test_set_latent_scale_gives_mean_zero_and_deviation_one_and_is_saved(tmp_path, generator):
    autoencoder = tiny_autoencoder()
    images = 2 * torch.rand(4, 3, 64, 64, generator=generator) - 1
    set_latent_scale(autoencoder, images)
    with torch.no_grad():
        latents = encode(autoencoder, images)
    assert latents.mean().abs() < 1e-3 and abs(latents.std() - 1) < 1e-3
    set_latent_scale(autoencoder, images)  # measured on the raw latents, not on those scaled before
    assert_close(encode(autoencoder, images).detach(), latents)
    autoencoder.save_pretrained(tmp_path)
    again = AutoencoderTiny.from_pretrained(tmp_path)
    assert_close(encode(again, images).detach(), latents)


def test_gradients_reach_the_encoder(generator):
    autoencoder = tiny_autoencoder()
    decode(autoencoder, encode(autoencoder, torch.rand(1, 3, 32, 32, generator=generator))).mean().backward()
    assert all(parameter.grad is not None for parameter in autoencoder.parameters())


def test_the_tiny_autoencoder_has_the_shipped_weights_size():
    with torch.device("meta"):
        parameters = sum(value.numel() for value in make_autoencoder().parameters())
    assert parameters == 1_128_199
