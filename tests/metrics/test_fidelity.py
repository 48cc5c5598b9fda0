"""Fidelity: known values, one number an image, and the background apart from the person."""

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F
from torch.testing import assert_close

from dragstudy import assets
from dragstudy.metrics.fidelity import (
    background_change,
    image_fidelity,
    lpips_distance,
    psnr,
    saturation_change,
    ssim,
)
from dragstudy.metrics.perceptual import lpips_model

from ..tiny import picture


def images(count: int = 3, size: int = 48) -> torch.Tensor:
    pictures = [picture(size, size, phase) for phase in range(count)]
    return (
        torch.stack([torch.tensor(list(p.tobytes())).view(size, size, 3) for p in pictures]).permute(
            0, 3, 1, 2
        )
        / 255
    )


@pytest.fixture(scope="module")
def lpips():
    assets.fetch("lpips", quiet=True)
    return lpips_model("alex")


@pytest.mark.parametrize(("error", "decibel"), [(0.1, 20.0), (0.01, 40.0)])
def test_psnr_of_a_known_error(error, decibel):
    reference = torch.full((2, 3, 16, 16), 0.5)
    assert_close(psnr(reference + error, reference), torch.full((2,), decibel), atol=1e-3, rtol=0)


def test_psnr_of_equal_images_is_infinite():
    assert psnr(images(1), images(1)).isinf().all()


def test_ssim_is_one_for_equal_images_and_agrees_with_scikit_image():
    reference = images()
    noisy = (reference + 0.1 * torch.randn(reference.shape)).clamp(0, 1)
    assert_close(ssim(reference, reference), torch.ones(3))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    padded = [F.pad(x, (5, 5, 5, 5), mode="reflect").numpy() for x in (noisy, reference)]
    expected = [
        structural_similarity(a, b, data_range=1.0, channel_axis=0, **options)
        for a, b in zip(*padded, strict=True)
    ]
    assert_close(ssim(noisy, reference), torch.tensor(expected).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("measure", [psnr, ssim, lpips_distance])
def test_every_image_has_its_own_number(measure, lpips):
    options = {"model": lpips} if measure is lpips_distance else {}
    a, b = images(3), images(3).roll(1, dims=0)
    together = measure(a, b, **options)
    alone = torch.cat([measure(a[k : k + 1], b[k : k + 1], **options) for k in range(3)])
    assert together.shape == (3,)
    assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_image_fidelity_is_one_for_the_untouched_image_and_less_else(lpips):
    reference = images(2)
    assert_close(image_fidelity(reference, reference, model=lpips), torch.ones(2))
    noisy = (reference + 0.2 * torch.randn(reference.shape)).clamp(0, 1)
    fidelity = image_fidelity(noisy, reference, model=lpips)
    assert (fidelity < 0.9).all()
    assert_close(fidelity, 1 - lpips_distance(noisy, reference, model=lpips))


def test_dragbench_s_size_changes_the_resolution_alone(lpips):
    a, b = images(2, 64)
    direct = lpips_distance(a[None], b[None], model=lpips)
    assert_close(lpips_distance(a[None], b[None], model=lpips, size=64), direct)
    assert not torch.allclose(lpips_distance(a[None], b[None], model=lpips, size=128), direct, rtol=1e-3)


def test_lpips_takes_images_between_zero_and_one(lpips):
    a, b = images(1), images(2)[1:]
    assert_close(lpips_distance(a, b, model=lpips), lpips(2 * a - 1, 2 * b - 1).flatten())


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")  # the package's own call
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_is_the_official_one_on_random_images(net, lpips):
    """The official class with the linear layers that its own package carries, on the same trunk."""
    import lpips as package

    model = lpips_model(net)
    official = package.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    official.net.load_state_dict(model.net.state_dict())
    a, b = torch.rand(2, 2, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = official(a, b, normalize=True).flatten()
    assert_close(lpips_distance(a, b, model=model), expected, atol=1e-5, rtol=0)
    assert (expected > 0.01).all()


def test_background_change_counts_grey_levels_outside_the_dilated_mask():
    before, mask = torch.rand(2, 3, 40, 40), torch.zeros(2, 1, 40, 40)
    mask[..., 10:20, 10:20] = 1
    after = before.clone()
    after[..., 3:27, 3:27] += 0.5  # the mask and the 7 pixels it grows by
    assert_close(background_change(after, before, mask), torch.zeros(2))
    after[1] += 3 / 255
    assert_close(background_change(after, before, mask), torch.tensor([0.0, 3.0]))
    assert background_change(after, before, mask, dilation=1)[0] > 1


def test_background_change_is_unknown_without_background():
    image = torch.zeros(1, 3, 16, 16)
    assert background_change(image, image, torch.ones(1, 1, 16, 16)).isnan().all()


def test_saturation_counts_the_chroma_inside_of_the_mask_alone():
    before, mask = images(2), torch.zeros(2, 1, 48, 48)
    mask[0, :, :24], mask[1, :, 24:] = 1, 1
    grey = before.mean(dim=1, keepdim=True)
    more = grey + 1.5 * (before - grey)  # the chroma times 1.5, not clipped
    more[0, :, 24:] = 0.0  # outside of the first one's mask
    chroma = 255 * (before.amax(dim=1) - before.amin(dim=1))
    expected = 0.5 * torch.stack([chroma[0, :24].mean(), chroma[1, 24:].mean()])
    assert_close(saturation_change(more, before, mask), expected, atol=1e-3, rtol=1e-4)
    assert_close(saturation_change(before, more, mask), -expected, atol=1e-3, rtol=1e-4)


def test_brightness_is_no_saturation_and_nothing_is_said_of_an_empty_mask():
    before, mask = images(1) / 2, torch.ones(1, 1, 48, 48)
    assert_close(saturation_change(before + 0.3, before, mask), torch.zeros(1), atol=1e-3, rtol=0)
    assert saturation_change(before, before, 0 * mask).isnan().all()
