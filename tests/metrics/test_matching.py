"""Finding points by features: the evaluators' own search, regions, and what a backbone is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dragstudy.features import unet_features
from dragstudy.metrics.matching import BackboneFeatures, FeatureSettings, find_points, resize_for
from dragstudy.models.autoencoder import encode
from dragstudy.models.backbone import make_scheduler

from ..tiny import tiny_autoencoder, tiny_backbone

SETTINGS = FeatureSettings(timestep=200, up_block=2, draws=2)


def maps(seed: int = 0, size: tuple[int, int] = (7, 9)) -> torch.Tensor:
    return torch.randn(1, 12, *size, generator=torch.Generator().manual_seed(seed))


# The search


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_search_is_that_of_dragbench_s_evaluator(mode):
    source, edited, (h, w) = maps(0), maps(1, (6, 11)), (53, 70)
    points = np.random.default_rng(0).integers(0, (w, h), (9, 2)).astype(float)
    before, after = (F.interpolate(one, (h, w), mode=mode) for one in (source, edited))
    found = find_points(source, edited, points, (h, w), interpolation=mode)
    for (x, y), (found_x, found_y) in zip(points.astype(int), found.astype(int), strict=True):
        cosines = nn.CosineSimilarity(dim=1)(before[:, :, y, x].view(1, -1, 1, 1), after)[0]
        # beyond the outermost cells' centres features repeat: there rounding decides which pixel is the first
        assert_close(cosines[found_y, found_x], cosines.max(), atol=1e-6, rtol=0)


def test_what_the_rounding_to_pixels_takes_is_given_back():
    points = np.array([[3.4, 5.2], [-0.5, -0.4], [20.5, 15.49], [11.6, 2.0]])
    one = maps(size=(16, 21))
    assert_close(find_points(one, one, points, (16, 21)), points)


def test_a_point_is_found_inside_of_its_region_alone():
    one, points = maps(size=(16, 21)), np.array([[3.0, 5.0], [12.0, 9.0]])
    left = np.zeros((16, 21), bool)
    left[:, :8] = True
    found = find_points(one, one, points, (16, 21), region=left)
    assert_close(found[0], points[0])
    assert found[1, 0] < 8
    each = find_points(one, one, points, (16, 21), region=np.stack([~left, ~left]))
    assert each[0, 0] >= 8 and np.array_equal(each[1], points[1])


@pytest.mark.parametrize("region", [np.zeros((16, 21), bool), np.ones((21, 16), bool)])
def test_a_region_without_pixels_or_of_another_size_is_refused(region):
    with pytest.raises(ValueError, match=r"of the size \(16, 21\) and not empty"):
        find_points(maps(size=(16, 21)), maps(size=(16, 21)), np.array([[1.0, 1.0]]), (16, 21), region=region)


def test_images_are_squashed_only_where_the_settings_say_so():
    image = torch.rand(1, 3, 12, 20)
    assert resize_for(SETTINGS, image) is image
    squashed = resize_for(replace(SETTINGS, side=40, interpolation="nearest"), image)
    assert squashed.shape[-2:] == (40, 40)
    assert torch.equal(squashed[..., ::2], F.interpolate(image, (40, 20)))


# A backbone


@pytest.fixture(scope="module")
def tiny() -> BackboneFeatures:
    torch.manual_seed(0)
    prompt = torch.randn(1, 1, 64)
    return BackboneFeatures(tiny_autoencoder(), tiny_backbone(), make_scheduler(), lambda text: prompt)


@pytest.fixture(scope="module")
def stable_diffusion() -> StableDiffusionPipeline:
    """Every component of Stable Diffusion, a few kilobytes each."""
    torch.manual_seed(0)
    config = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    letters = {letter: k for k, letter in enumerate("abcdefgh")} | {
        f"{x}</w>": 8 + k for k, x in enumerate("abcdefgh")
    }
    vocabulary = letters | {"<|startoftext|>": 16, "<|endoftext|>": 17}
    width = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, **width
        ),
        unet=UNet2DConditionModel(
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            **width,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=18, eos_token_id=17, bos_token_id=16, **config)),
        tokenizer=CLIPTokenizer(vocabulary, [], model_max_length=77),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
    )


def look(features: BackboneFeatures, image: torch.Tensor, seed: int = 0, prompt: str = "", **changes):
    settings = replace(SETTINGS, **changes)
    return features(image, settings, generator=torch.Generator().manual_seed(seed), prompt=prompt)


def test_features_are_those_of_the_block_under_the_generator_s_noise(tiny):
    image = torch.rand(1, 3, 64, 48)
    found = look(tiny, image, draws=1)
    latents = encode(tiny.autoencoder, 2 * image - 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    alpha_bar = tiny.scheduler.alphas_cumprod[200]
    noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    with torch.no_grad():
        expected = unet_features(tiny.unet, noisy, 200, tiny.encode_prompt(""), ["up_blocks.2"])
    assert_close(found, expected["up_blocks.2"])
    assert not found.requires_grad


def test_the_same_generator_gives_the_same_features_and_another_does_not(tiny):
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(look(tiny, image), look(tiny, image))
    assert not torch.allclose(look(tiny, image), look(tiny, image, seed=1))


def test_stable_diffusion_hears_the_prompt_where_the_settings_say_so(stable_diffusion):
    features = BackboneFeatures.from_stable_diffusion(stable_diffusion)
    image, words = torch.rand(1, 3, 32, 32), {"up_block": 0, "sample_latents": False}
    told = look(features, image, prompt="a bee", **words)
    assert not torch.allclose(told, look(features, image, **words))
    settings = replace(SETTINGS, **words, prompt=False)
    deaf = features(image, settings, generator=torch.Generator().manual_seed(0), prompt="a bee")
    assert torch.equal(deaf, look(features, image, **words))


def test_every_draw_samples_the_latents_anew_where_the_settings_say_so(stable_diffusion):
    features = BackboneFeatures.from_stable_diffusion(stable_diffusion)
    image, one = torch.rand(1, 3, 32, 32), {"up_block": 0, "timestep": 0}
    generator = torch.Generator().manual_seed(0)
    settings = replace(SETTINGS, draws=1, **one)
    singles = [features(image, settings, generator=generator) for _ in range(2)]
    assert_close(look(features, image, **one), sum(singles) / 2)
    mode = look(features, image, sample_latents=False, **one)
    assert not torch.allclose(look(features, image, **one), mode, rtol=1e-3)


def test_a_block_that_the_backbone_lacks_is_refused(tiny):
    with pytest.raises(ValueError, match="up_blocks.7"):
        look(tiny, torch.rand(1, 3, 64, 64), up_block=7)
