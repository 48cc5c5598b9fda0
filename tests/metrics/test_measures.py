"""Measures: every column that a sample allows, and remembered networks that change no number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dragstudy.data.samples import Sample
from dragstudy.drags import DragInstruction
from dragstudy.metrics.matching import FeatureSettings
from dragstudy.metrics.mean_distance import PROTOCOLS
from dragstudy.metrics.measures import Tools, inception_features, measure
from dragstudy.metrics.remembered import Remembered, RememberedFeatures

from ..tiny import picture

SIZE, SHIFT = 96, 8


class Difference(nn.Module):
    """A distance that needs no weights, in LPIPS' place."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def colours(image, settings, *, generator, prompt=""):
    """Features of every pixel, and noise that does not matter."""
    torch.rand(1, generator=generator)
    return torch.cat([image, image.square(), torch.ones_like(image[:, :1])], dim=1)


def find_face(frame):
    return np.stack([np.linspace(20, 60, 68), np.full(68, 30 + float(frame[0, 0, 0] > 127))], axis=1)


TOOLS = Tools(
    detector=find_face,
    descriptor=lambda frame, landmarks: np.array([frame.mean(), landmarks.mean()]),
    lpips={"alex": Difference(), "vgg": Difference()},
    embeddings={"mean": lambda images: images.mean(dim=(2, 3))},
    features=colours,
    protocols={name: PROTOCOLS[name] for name in ("annotation", "dragdiffusion", "draglora")},
    inception=lambda images: images.mean(dim=(2, 3)),
)


@pytest.fixture
def sample() -> Sample:
    """A picture that moves to the right by eight pixels, and the landmarks of its face with it."""
    whole = picture(SIZE + SHIFT, SIZE)
    handles = np.array([[30.0, 30.0], [50.0, 61.0]])
    landmarks = np.stack([np.linspace(20, 60, 68), np.full(68, 30.0)], axis=1)
    return Sample(
        "waves",
        whole.crop((SHIFT, 0, SIZE + SHIFT, SIZE)),
        DragInstruction(handles, handles + (SHIFT, 0), np.ones((SIZE, SIZE)), (SIZE, SIZE)),
        whole.crop((0, 0, SIZE, SIZE)),
        landmarks=landmarks,
        target_landmarks=landmarks + (SHIFT, 0),
        person=torch.zeros(1, 1, SIZE, SIZE),
    )


def test_the_true_edit_is_perfect_and_the_photograph_lies_a_drag_away(sample):
    best, still = (measure(sample, image, TOOLS) for image in (sample.target, sample.image))
    assert best["psnr_edit"] == still["psnr_origin"] == float("inf")
    assert best["psnr_origin"] == still["psnr_edit"] < 30
    assert best["lpips_alex_edit"] == 0 == still["lpips_vgg_origin"] and still["fidelity"] == 1
    assert best["mean_distance_dragdiffusion"] == pytest.approx(0, abs=1e-9)
    assert still["mean_distance_dragdiffusion"] == still["mean_distance_annotation"] == pytest.approx(SHIFT)
    assert best["semantic_distance"] == 0 and still["semantic_distance"] == pytest.approx(SHIFT)
    assert best["inner_patch_preservation"] == pytest.approx(1)
    assert best["directional_similarity_mean"] == pytest.approx(1, abs=1e-5)
    assert still["background_change"] == 0 < best["background_change"]


def test_landmarks_are_those_that_are_found_in_the_edit(sample):
    row = measure(sample, sample.image, TOOLS)
    off = find_face(np.asarray(sample.image)) - sample.target_landmarks
    assert row["landmark_distance_68"] == pytest.approx(np.linalg.norm(off, axis=1).mean())
    assert row["landmark_distance_17"] == pytest.approx(row["landmark_distance_68"])
    blind = measure(sample, sample.image, replace(TOOLS, detector=lambda frame: None))
    lost = ["landmark_distance_68", "landmark_distance_17", "identity_distance_edit"]
    assert all(np.isnan(blind[name]) for name in lost)


def test_what_a_sample_does_not_know_is_nan_and_the_columns_stay(sample):
    bare = replace(
        sample,
        target=None,
        landmarks=None,
        target_landmarks=None,
        person=None,
        drags=replace(sample.drags, mask=None),
    )
    full, poor = measure(sample, sample.image, TOOLS), measure(bare, sample.image, TOOLS)
    assert list(full) == list(poor) and not any(np.isnan(value) for value in full.values())
    known = {"psnr_origin", "ssim_origin", "lpips_alex_origin", "lpips_vgg_origin", "fidelity"}
    known |= {"similarity_mean_origin", "mean_distance_annotation", "mean_distance_dragdiffusion"}
    assert {name for name, value in poor.items() if not np.isnan(value)} == known


def test_without_networks_pixels_are_left(sample):
    names = {f"{name}_{way}" for name in ("psnr", "ssim") for way in ("origin", "edit")}
    assert set(measure(sample, sample.image, Tools())) == names | {"background_change"}
    assert inception_features(sample.image, Tools()) is None
    assert inception_features(sample.image, TOOLS).shape == (3,)


def test_an_edit_of_another_size_is_refused(sample):
    with pytest.raises(ValueError, match=r"the photograph's size \(96, 96\), got \(48, 48\)"):
        measure(sample, sample.image.resize((48, 48)), TOOLS)


def test_what_is_remembered_changes_no_number(sample):
    calls = []

    def counted(*given, **more):
        calls.append(given)
        return colours(*given, **more)

    features = RememberedFeatures(counted)
    embedding = Remembered(TOOLS.embeddings["mean"])
    remembering = replace(TOOLS, features=features, embeddings={"mean": embedding})
    for image in (sample.image, sample.target, sample.image):
        assert measure(sample, image, remembering) == measure(sample, image, TOOLS)
    assert len(calls) < 6  # of 12


def test_remembered_features_know_image_settings_prompt_and_noise():
    def noisy(image, settings, *, generator, prompt=""):
        return torch.rand(1, generator=generator) + len(prompt) + settings.timestep + image.mean()

    remembered, told = RememberedFeatures(noisy), FeatureSettings()
    silent = replace(told, prompt=False)

    def two(features, grey=0.0, settings=told, seed=0, prompt=""):
        image = torch.full((1, 3, 4, 4), grey)
        generator = torch.Generator().manual_seed(seed)
        return [features(image, settings, generator=generator, prompt=prompt).item() for _ in range(2)]

    for given in (
        {},
        {},
        {"grey": 1.0},
        {"settings": replace(told, timestep=7)},
        {"seed": 1},
        {"prompt": "dog"},
        {"settings": silent},
    ):
        assert two(remembered, **given) == two(noisy, **given)


def test_only_the_last_answers_are_kept():
    calls = []
    network = Remembered(lambda x: calls.append(x) or x + 1, size=2)
    first, second, third = (torch.full((1,), float(k)) for k in range(3))
    for x in (first, second, first, third, first, second):
        assert torch.equal(network(x), x + 1)
    assert [int(x) for x in calls] == [0, 1, 2, 1]
