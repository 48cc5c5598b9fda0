"""LPIPS on its published weights: an independent reference, the properties of a distance, golden numbers."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from dragstudy import assets
from dragstudy.metrics.perceptual import _read_pickle, image_features, lpips_model

GOLDEN = {"alex": 0.1300, "vgg": 0.2901}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def model(request):
    assets.fetch("lpips", quiet=True)
    return lpips_model(request.param)


def waves(phase: float, size: int = 64) -> torch.Tensor:
    """A smooth colourful image `(1, 3, size, size)` in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    sign = -1 if phase else 1
    return torch.stack([torch.sin(x / 5 + phase), torch.cos(y / 7), torch.sin((x + sign * y) / 9)])[None]


def reference(net: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Zhang et al. 2018, Eq. 1, written out from the pickled arrays alone."""
    weights = _read_pickle(assets.locate("lpips", {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}[net]))
    trunk = weights[{"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]]

    def tensor(array):
        return torch.tensor(array)

    def convolve(x, i, **options):
        layer = trunk[f"Conv_{i}"]
        kernel = tensor(layer["kernel"]).permute(3, 2, 0, 1)
        return F.relu(F.conv2d(x, kernel, tensor(layer["bias"]), **options))

    def features(x):
        x = (x - tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        if net == "alex":
            yield (x := convolve(x, 0, stride=4, padding=2))
            yield (x := convolve(F.max_pool2d(x, 3, 2), 1, padding=2))
            yield (x := convolve(F.max_pool2d(x, 3, 2), 2, padding=1))
            yield (x := convolve(x, 3, padding=1))
            yield convolve(x, 4, padding=1)
            return
        i = 0
        for count in (2, 2, 3, 3, 3):
            x = F.max_pool2d(x, 2) if i else x
            for _ in range(count):
                x, i = convolve(x, i, padding=1), i + 1
            yield x

    total = torch.zeros(len(a))
    for k, (f, g) in enumerate(zip(features(a), features(b), strict=True)):
        head = tensor(weights[f"NetLinLayer_{k}"]["Conv_0"]["kernel"]).flatten()
        difference = (F.normalize(f, dim=1) - F.normalize(g, dim=1)).square()
        total += (difference * head.view(-1, 1, 1)).sum(1).mean((1, 2))
    return total


def test_equals_an_independent_reference(model):
    a, b = waves(0), waves(0.3)
    assert_close(model(a, b).flatten(), reference(model.pnet_type, a, b), rtol=1e-4, atol=1e-6)


def test_golden_number(model):
    assert model(waves(0), waves(0.3)).item() == pytest.approx(GOLDEN[model.pnet_type], abs=2e-4)


def test_identical_images_are_at_distance_zero(model):
    assert model(waves(0), waves(0)).item() == 0


def test_symmetric(model):
    assert_close(model(waves(0), waves(0.3)), model(waves(0.3), waves(0)))


def test_more_noise_is_farther(model):
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    distances = [model(waves(0), (waves(0) + s * noise).clamp(-1, 1)).item() for s in (0.05, 0.1, 0.2, 0.4)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_linear_layers_are_those_of_the_lpips_package(model):
    import lpips

    path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{model.pnet_type}.pth"
    state = model.state_dict()
    for name, weight in torch.load(path, map_location="cpu", weights_only=True).items():
        assert torch.equal(state[name], weight)


def test_gradients_reach_the_image_only(model):
    image = waves(0.3).requires_grad_()
    model(image, waves(0)).sum().backward()
    assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_features_go_from_fine_to_coarse(model):
    features = image_features(model, waves(0))
    assert len(features) == 5
    widths = [feature.shape[-1] for feature in features]
    assert widths == {"alex": [15, 7, 3, 3, 3], "vgg": [64, 32, 16, 8, 4]}[model.pnet_type]


def test_building_leaves_the_global_random_state_alone(model):
    before = torch.get_rng_state()
    lpips_model(model.pnet_type)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_trunk_is_refused():
    with pytest.raises((TypeError, ValueError), match="squeeze"):
        lpips_model("squeeze")


def test_weights_may_hold_nothing_but_arrays(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"weights": Path("a")}))
    with pytest.raises(pickle.UnpicklingError, match=r"found pathlib"):
        _read_pickle(path)
