"""FID and KID: values known by other means, and that they order sets as they should."""

import numpy as np
import pytest
import skimage.data
import torch
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from dragstudy import assets
from dragstudy.metrics.generation import (
    InceptionFeatures,
    _inception_input,
    compare_sets,
    frechet_distance,
    kernel_distance,
)

from ..tiny import picture


class Given(torch.nn.Identity):
    """Features handed to torchmetrics as if they were images."""

    num_features = 12


def clouds(n: int = 40, m: int = 50, shift: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of features whose twelve dimensions differ in scale and hang together."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(12, 12, generator=generator)
    x, y = (torch.randn(count, 12, generator=generator) @ mix for count in (n, m))
    return x + shift, y


def kid(x: torch.Tensor, y: torch.Tensor, seed: int = 0, **options) -> tuple[float, float, float]:
    return kernel_distance(x, y, generator=torch.Generator().manual_seed(seed), **options)


# FID


@pytest.mark.parametrize(("n", "m"), [(40, 50), (5, 7), (8, 60)])
def test_fid_is_that_of_torchmetrics(n, m):
    x, y = clouds(n, m, shift=0.5)
    metric = FrechetInceptionDistance(feature=Given())
    metric.update(y, real=True)
    metric.update(x, real=False)
    assert frechet_distance(x, y) == pytest.approx(metric.compute().item(), rel=1e-4, abs=1e-4)


def test_fid_of_a_set_with_itself_is_zero_and_a_shift_counts_squared():
    x, _ = clouds()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x + 2, x) == pytest.approx(12 * 4, rel=1e-5)


def test_fid_is_symmetric_and_blind_to_rotation():
    x, y = clouds(shift=1.0)
    turn = torch.linalg.qr(torch.randn(12, 12)).Q
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-4)


def test_fid_of_small_sets_of_one_origin_is_too_large():
    small, large = (np.mean([frechet_distance(*clouds(n, n, seed=s)) for s in range(8)]) for n in (10, 300))
    assert small > 5 * large > 0


# KID

quiet = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")


@quiet
def test_kid_is_that_of_torchmetrics():
    x, y = clouds(40, 40, shift=0.5)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=40)
    metric.update(y, real=True)
    metric.update(x, real=False)
    assert kid(x, y)[0] == pytest.approx(metric.compute()[0].item(), rel=1e-4)


def test_kid_is_deterministic_with_its_generator_and_leaves_the_global_one_alone():
    x, y = clouds(shift=0.3)
    before = torch.get_rng_state()
    assert kid(x, y, seed=3) == kid(x, y, seed=3)
    assert kid(x, y, seed=3)[0] == kid(x, y, seed=4)[0] and kid(x, y, seed=3)[1:] != kid(x, y, seed=4)[1:]
    assert torch.equal(before, torch.get_rng_state())


def test_kid_is_zero_on_average_between_sets_of_one_origin():
    small = np.array([kid(*clouds(8, 8, seed=s), resamples=1)[0] for s in range(200)])
    assert abs(small.mean()) < 3 * small.std() / 200**0.5
    assert (small < 0).mean() > 0.3


def test_kid_s_interval_holds_the_true_value_about_as_often_as_it_says():
    x, y = clouds(1800, 1800, shift=2.0)
    truth = kid(x, y, resamples=1)[0]
    parts = [slice(30 * k, 30 * k + 30) for k in range(60)]
    intervals = [kid(x[part], y[part], seed=k, resamples=200)[1:] for k, part in enumerate(parts)]
    assert 50 <= sum(low <= truth <= high for low, high in intervals) <= 60, "95 % would be 57"


def test_two_images_are_enough_for_a_finite_interval_and_one_is_refused():
    x, y = clouds(2, 2)
    assert np.isfinite(kid(x, y)).all()
    for measure in (frechet_distance, kid):
        with pytest.raises(ValueError, match="at least two images, got 1 and 2"):
            measure(x[:1], y)


def test_a_table_has_a_row_for_each_set_and_reference():
    x, y = clouds(shift=1.0)
    table = compare_sets({"near": y[:20], "far": x}, {"one": y[20:], "other": y})
    assert table[["images", "reference"]].to_numpy().tolist() == [
        ["near", "one"],
        ["near", "other"],
        ["far", "one"],
        ["far", "other"],
    ]
    assert (table["low"] <= table["kid"]).all() and (table["kid"] <= table["high"]).all()
    assert table["fid"].iloc[2] > table["fid"].iloc[0] and table["n"].tolist() == [20, 20, 40, 40]


# Inception


@pytest.fixture(scope="module")
def inception():
    assets.fetch("inception", quiet=True)
    return InceptionFeatures()


def photographs(count: int = 6) -> torch.Tensor:
    """Squares out of photographs, `(count, 3, 128, 128)` in [0, 1]."""
    photos = [torch.from_numpy(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]
    squares = [photo[:256, k : k + 256] for photo in photos for k in (0, 120)]
    images = torch.stack(squares[:count]).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(images, size=(128, 128), mode="area")


@torch.no_grad()
def test_photographs_have_the_statistics_that_the_network_was_trained_on(inception):
    """Its batch norms remember the mean and variance of their input: the wrong range is off by far."""

    def off(images):
        layer = inception.network.net.layers.conv
        norm = dict(layer.named_parameters())
        response = F.conv2d(images, norm["weight"], stride=2)
        return ((response.mean(dim=(0, 2, 3)) - norm["mean"]).abs() / norm["var"].sqrt()).mean().item()

    prepared = _inception_input(photographs())
    assert prepared.shape[-2:] == (299, 299) and prepared.min() >= -1 and prepared.max() < 1
    assert off(prepared) < 0.4
    assert off(prepared + 1) > 0.5 and off(128 * prepared + 128) > 50


def test_a_picture_of_inception_s_size_is_taken_as_it_is():
    image = torch.tensor(list(picture(299, 299).tobytes())).view(1, 299, 299, 3).permute(0, 3, 1, 2)
    assert torch.allclose(_inception_input(image / 255), (image - 128) / 128, atol=1e-3)


@torch.no_grad()
def test_features_do_not_depend_on_the_batch_and_distances_grow_with_noise(inception):
    images = photographs()
    features = inception(images)
    assert features.shape == (6, InceptionFeatures.num_features)
    assert torch.allclose(inception(images[1:2]), features[1:2], atol=1e-4)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = [inception(images + strength * noise) for strength in (0.05, 0.3)]
    for measure in (frechet_distance, lambda *sets: kid(*sets)[0]):
        distances = [measure(one, features) for one in noisy]
        assert distances[0] < distances[1]
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-4)


@quiet
def test_torchmetrics_takes_the_network(inception):
    metric = KernelInceptionDistance(feature=inception, subsets=1, subset_size=2)
    images = photographs(4)
    metric.update(images[:2], real=True)
    metric.update(images[2:], real=False)
    features = inception(images)
    expected = kid(features[2:], features[:2])[0]
    assert metric.compute()[0].item() == pytest.approx(expected, rel=1e-3)
