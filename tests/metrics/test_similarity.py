"""Similarities of embeddings: CLIP by its own preprocessing, the stand-in by its own weights."""

import numpy as np
import pytest
import skimage.data
import torch
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from dragstudy import assets
from dragstudy.metrics.similarity import ClipEmbedding, ImgsimEmbedding, image_similarity

GOLDEN = 0.4515  # of CAT and WOMAN, by the package's own code


def photo(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


CAT, WOMAN, CUP = (
    photo(image[:300, :400])
    for image in (skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee())
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[CLIPModel, str]:
    """A tiny CLIP with random weights, and where transformers saved it."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**width, "image_size": 56, "patch_size": 14, "projection_dim": 16}
    model = CLIPModel(CLIPConfig(text_config=width, vision_config=vision, projection_dim=16)).eval()
    folder = str(tmp_path_factory.mktemp("clip"))
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def imgsim() -> ImgsimEmbedding:
    assets.fetch("imgsim", quiet=True)
    return ImgsimEmbedding()


def test_the_similarity_is_the_cosine_of_each_pair():
    a, b = torch.randn(2, 3, 3, 1, 1)
    found = image_similarity(a, b, lambda images: images.flatten(1))
    expected = [
        np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)
        for x, y in zip(a[..., 0, 0], b[..., 0, 0], strict=True)
    ]
    assert_close(found, torch.tensor(expected))
    assert_close(image_similarity(3 * a, b, lambda images: images.flatten(1)), found)


@pytest.fixture(scope="module")
def processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def test_the_similarity_of_clip_is_that_of_the_whole_model(clip, processor):
    model, folder = clip
    images = [(255 * image[0]).round().byte() for image in (CAT, WOMAN)]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embeds = model(input_ids=torch.tensor([[0, 1]]), pixel_values=pixels).image_embeds
    found = image_similarity(CAT, WOMAN, ClipEmbedding(folder))
    assert_close(found[0], embeds[0] @ embeds[1], atol=1e-3, rtol=0)
    assert found < 0.999


def test_clip_sees_what_transformers_processor_gives_it(clip, processor):
    """To the last digit of 8 bits: one resizes by Pillow, the other by torch."""
    seen = {}
    embedding = ClipEmbedding(clip[1])
    embedding.network.register_forward_pre_hook(lambda module, args: seen.update(pixels=args[0]))
    embedding(CAT)
    expected = processor((255 * CAT[0]).round().byte(), return_tensors="pt")["pixel_values"]
    assert seen["pixels"].shape == (1, 3, 56, 56)
    assert_close(seen["pixels"], expected, atol=1.1 / 255 / 0.26, rtol=0)


def test_each_image_has_its_own_vector(clip):
    embedding, images = ClipEmbedding(clip[1]), torch.cat([CAT, WOMAN])
    assert_close(embedding(images), torch.cat([embedding(CAT), embedding(WOMAN)]))


def test_where_there_is_no_clip_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="no CLIP model at .*openai/clip-vit-base-patch32"):
        ClipEmbedding(tmp_path)


@pytest.mark.slow
def test_the_stand_in_knows_an_image_again(imgsim):
    assert_close(image_similarity(CAT, CAT, imgsim), torch.ones(1))
    mirrored, darker, other = (
        image_similarity(image, CAT, imgsim).item() for image in (CAT.flip(3), 0.7 * CAT, CUP)
    )
    assert mirrored > 0.95 and darker > 0.8 and other < 0.6
    assert imgsim(CAT).shape == (1, 768)


def test_the_stand_in_s_golden_number(imgsim):
    """The package resizes at 8 bits: hence the tolerance."""
    assert image_similarity(CAT, WOMAN, imgsim).item() == pytest.approx(GOLDEN, abs=0.005)


def test_building_the_stand_in_leaves_the_global_random_state_alone(imgsim):
    before = torch.get_rng_state()
    ImgsimEmbedding()
    assert torch.equal(before, torch.get_rng_state())
