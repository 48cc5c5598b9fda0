"""How alike two images are: PSNR, SSIM, LPIPS, image fidelity, saturation, and what changed behind a person.

Images are `(b, 3, h, w)` in [0, 1]. Every function gives one number an image, so that pairs can be compared
one by one and means come with intervals.
"""

from functools import cache

from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy import _torchvision

_torchvision.require()  # torchmetrics imports torchvision

from jaxtyping import Float  # noqa: E402
from torchmetrics.functional.image import (  # noqa: E402
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from dragstudy.data.composite import DILATION, dilate  # noqa: E402
from dragstudy.metrics.perceptual import lpips_model  # noqa: E402


def psnr(images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB, `(b,)`; infinite where image and reference are equal.

    Example:
        >>> import torch
        >>> black = torch.zeros(1, 3, 8, 8)
        >>> round(psnr(black + 0.1, black).item(), 3)
        20.0
    """
    return peak_signal_noise_ratio(images, references, data_range=1.0, dim=(1, 2, 3), reduction="none")


def ssim(images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Structural similarity of each image (Wang et al. 2004), `(b,)`, at most 1; each side at least 6 px.

    torchmetrics mirrors the image at its border, where others leave out the outermost 5 px of the result.
    """
    similarity = structural_similarity_index_measure(images, references, data_range=1.0, reduction="none")
    return similarity.reshape(-1)  # torchmetrics gives no dimension to a batch of one


def lpips_distance(
    images: Float[Tensor, "b 3 h w"],
    references: Float[Tensor, "b 3 h w"],
    *,
    model: nn.Module | None = None,
    size: int | None = None,
) -> Float[Tensor, " b"]:
    """Learned perceptual distance of each image (Zhang et al. 2018), `(b,)`; 0 where equal.

    Args:
        images: In [0, 1]; each side at least 32 px.
        references: In [0, 1].
        model: What `lpips_model` gives; AlexNet by default, loaded once.
        size: Bring both images to this side first, bilinearly. DragBench's evaluator takes 224.

    Raises:
        AssetMissing: If no `model` is given and the asset `"lpips"` was not fetched.
    """
    model = (_alex() if model is None else model).to(images.device)
    if size is not None:
        images, references = (
            F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
            for x in (images, references)
        )
    return model(2 * images - 1, 2 * references - 1).flatten()


def image_fidelity(
    images: Float[Tensor, "b 3 h w"],
    references: Float[Tensor, "b 3 h w"],
    *,
    model: nn.Module | None = None,
    size: int | None = None,
) -> Float[Tensor, " b"]:
    """Image fidelity of DragDiffusion and LightningDrag, 1 - LPIPS, `(b,)`; arguments as in `lpips_distance`.

    They compare the edited image with the *source*: what never moved is the most faithful.
    """
    return 1 - lpips_distance(images, references, model=model, size=size)


def background_change(
    images: Float[Tensor, "b 3 h w"],
    references: Float[Tensor, "b 3 h w"],
    mask: Float[Tensor, "b 1 h w"],
    *,
    dilation: int = DILATION,
) -> Float[Tensor, " b"]:
    """Mean absolute change outside the dilated mask, `(b,)` in grey levels of 0..255; NaN without background.

    Args:
        images: Edited images, in [0, 1].
        references: The images before.
        mask: 1 on the person. Where the person moves, give both frames' masks together.
        dilation: Side of the square that the mask grows by, odd, in pixels.

    Example:
        >>> import torch
        >>> before, mask = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
        >>> mask[..., :8] = 1
        >>> background_change(before + 2 / 255, before, mask).round(decimals=3).item()
        2.0
    """
    outside = (dilate(mask, dilation) <= 0.5).to(images)
    change = (images - references).abs().mean(dim=1, keepdim=True) * outside
    return 255 * change.sum(dim=(1, 2, 3)) / outside.sum(dim=(1, 2, 3))


def saturation_change(
    images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """How much more saturated images are than references inside a mask, `(b,)`; NaN where it is empty.

    Saturation is the chroma, the largest less the smallest of a pixel's red, green and blue, in grey levels
    of 0..255. HSV's saturation divides that by the largest, so that dark pixels, hair above all, count most.

    Args:
        images: Edited images, in [0, 1].
        references: The images before.
        mask: Where to look; pixels above 0.5 count.

    Example:
        >>> import torch
        >>> grey, mask = torch.full((1, 3, 8, 8), 0.5), torch.ones(1, 1, 8, 8)
        >>> red = grey.clone()
        >>> red[:, 0] += 10 / 255
        >>> saturation_change(red, grey, mask).round(decimals=3).item()
        10.0
    """
    inside = (mask > 0.5).to(images)
    change = (_chroma(images) - _chroma(references)) * inside
    return 255 * change.sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3))


def _chroma(images: Tensor) -> Tensor:
    return images.amax(dim=1, keepdim=True) - images.amin(dim=1, keepdim=True)


@cache
def _alex() -> nn.Module:
    return lpips_model("alex")
