"""Unconditional sampling: what decides a picture, and what does not."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dragstudy.models.autoencoder import decode
from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.pipelines.backbone import BackbonePipeline

from ..tiny import tiny_autoencoder, tiny_backbone


@pytest.fixture
def pipe():
    made = BackbonePipeline(tiny_autoencoder(), tiny_backbone(), NullPrompt(), make_scheduler())
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: BackbonePipeline, count: int = 3, seed: int = 0, **options) -> torch.Tensor:
    options = {"output_type": "pt", "num_inference_steps": 3} | options
    options.setdefault("generator", torch.Generator().manual_seed(seed))
    return pipe(count, **options).images


def test_pictures_have_the_size_of_the_backbone_and_every_type(pipe):
    images = draw(pipe)
    assert images.shape == (3, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    pictures = draw(pipe, output_type="pil")
    assert [picture.size for picture in pictures] == [(64, 64)] * 3
    assert np.abs(np.array(pictures[1]) / 255 - images[1].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    (tupled,) = pipe(
        1,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        return_dict=False,
    )
    assert tupled.shape == (1, 64, 64, 3)


def test_the_seed_decides_and_the_batch_size_does_not(pipe):
    images = draw(pipe)
    assert torch.equal(draw(pipe), images)
    assert_close(draw(pipe, batch_size=2), images, atol=1e-4, rtol=0)
    assert not torch.allclose(draw(pipe, seed=1), images, atol=1e-2)


def test_with_a_generator_each_a_picture_does_not_depend_on_the_others(pipe):
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = draw(pipe, 2, generator=generators)
    assert_close(draw(pipe, 1, generator=torch.Generator().manual_seed(6)), both[1:], atol=1e-4, rtol=0)


def test_latents_decode_to_the_pictures(pipe):
    latents = draw(pipe, output_type="latent")
    with torch.no_grad():
        decoded = decode(pipe.autoencoder, latents) / 2 + 0.5
    assert_close(decoded.clamp(0, 1), draw(pipe))


def test_saved_and_loaded_it_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = BackbonePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert_close(draw(again), draw(pipe), atol=1e-4, rtol=0)


def test_the_number_of_latent_channels_comes_from_the_networks():
    made = BackbonePipeline(tiny_autoencoder(8), tiny_backbone(8), NullPrompt(), make_scheduler())
    made.set_progress_bar_config(disable=True)
    assert draw(made, 1, output_type="latent").shape == (1, 8, 8, 8)
    assert draw(made, 1).shape == (1, 3, 64, 64)


def test_wrong_counts_are_refused(pipe):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw(pipe, 0)
    with pytest.raises(ValueError, match="3 images need as many generators, got 1"):
        draw(pipe, 3, generator=[torch.Generator()])
