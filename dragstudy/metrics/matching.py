"""Where a point of one picture lies in another, by a diffusion network's features (DIFT, Tang et al. 2023).

Every published mean distance is this search with its own settings; `FeatureSettings` names them, and
`BackboneFeatures` reads any backbone by them: Stable Diffusion, or the tiny one in this repository.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy import _torchvision
from dragstudy.features import diffusion_features

_torchvision.require()  # diffusers reaches torchvision through transformers as it is imported

from diffusers import AutoencoderTiny, SchedulerMixin, UNet2DConditionModel  # noqa: E402

from dragstudy.models.autoencoder import encode  # noqa: E402
from dragstudy.models.backbone import NullPrompt, make_scheduler  # noqa: E402

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Interpolation = Literal["bilinear", "nearest"]
STRIP = 16  # rows of features that are brought to the picture's size at a time; decides memory, not results


@dataclass(frozen=True)
class FeatureSettings:
    """How an evaluator reads features; the defaults are DragBench's, for Stable Diffusion 2.1.

    Attributes:
        timestep: Of the noise, in 0..999.
        up_block: Which up block is read, from 0, the coarsest.
        draws: Draws of noise that the features are averaged over.
        side: Side in pixels of the square that pictures are squashed to; None leaves them as they are.
        interpolation: Of that resizing, and of the features to the picture's size.
        sample_latents: Whether every draw also samples the latents of a variational autoencoder, instead of
            taking their mode.
        prompt: Whether the network is told the picture's prompt, instead of the empty one.
    """

    timestep: int = 261
    up_block: int = 1
    draws: int = 8
    side: int | None = None
    interpolation: Interpolation = "bilinear"
    sample_latents: bool = True
    prompt: bool = True


class Features(Protocol):
    """What reads features: `BackboneFeatures`, or any function of these arguments.

    From an image `(1, 3, h, w)` in [0, 1], already of the size that the settings ask for, to a map
    `(1, c, h', w')` of any resolution.
    """

    def __call__(
        self, image: Tensor, settings: FeatureSettings, *, generator: torch.Generator, prompt: str = ""
    ) -> Tensor: ...


class BackboneFeatures:
    """Features of a diffusion backbone, read as an evaluator's settings say.

    Args:
        autoencoder: Between images and latents.
        unet: The backbone.
        scheduler: Its `alphas_cumprod` is the noise schedule.
        encode_prompt: From a text to its embedding `(1, tokens, dim)`.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        encode_prompt: Callable[[str], Tensor],
    ) -> None:
        self.autoencoder, self.unet, self.scheduler = autoencoder, unet, scheduler
        self.encode_prompt = encode_prompt

    @classmethod
    def tiny(cls) -> "BackboneFeatures":
        """The shipped backbone, which knows no prompt but the empty one.

        It sees most at another noise level and block than Stable Diffusion, and at another size: adapt the
        protocols to it by `dragstudy.metrics.mean_distance.tiny_protocols`.
        """
        from dragstudy.pipelines.weights import tiny_weights

        single = {"torch_dtype": torch.float32}
        autoencoder = AutoencoderTiny.from_pretrained(tiny_weights("autoencoder"), **single)
        unet = UNet2DConditionModel.from_pretrained(tiny_weights("backbone"), **single)
        null_prompt = NullPrompt(dim=unet.config.cross_attention_dim)
        return cls(autoencoder.eval(), unet.eval(), make_scheduler(), lambda prompt: null_prompt(1))

    @classmethod
    def from_stable_diffusion(cls, pipe: "StableDiffusionPipeline") -> "BackboneFeatures":
        """Stable Diffusion as diffusers loads it; the evaluators take version 2.1."""

        def encode_prompt(prompt: str) -> Tensor:
            return pipe.encode_prompt(prompt, pipe.unet.device, 1, do_classifier_free_guidance=False)[0]

        return cls(pipe.vae, pipe.unet, pipe.scheduler, encode_prompt)

    @torch.no_grad()
    def __call__(
        self,
        image: Float[Tensor, "1 3 h w"],
        settings: FeatureSettings,
        *,
        generator: torch.Generator,
        prompt: str = "",
    ) -> Float[Tensor, "1 c h2 w2"]:
        """Features of one image in [0, 1].

        Args:
            image: Already of the size that the settings ask for.
            settings: Of the evaluator.
            generator: Source of the noise, and of the latents if they are sampled.
            prompt: Of the image, for settings that use one.

        Raises:
            ValueError: If the U-Net has no such block.
        """
        device, dtype = self.unet.device, self.unet.dtype
        image = 2 * image.to(device, dtype) - 1
        embeds = self.encode_prompt(prompt if settings.prompt else "").to(device, dtype)
        block = f"up_blocks.{settings.up_block}"

        def look(latents: Tensor, draws: int) -> Tensor:
            options = {"blocks": [block], "timestep": settings.timestep, "draws": draws}
            return diffusion_features(
                self.unet, latents, embeds, self.scheduler, generator=generator, **options
            )[block].float()

        encoded = self.autoencoder.encode(image)
        if not settings.sample_latents or not hasattr(encoded, "latent_dist"):
            return look(encode(self.autoencoder, image), settings.draws)
        scale = self.autoencoder.config.scaling_factor
        samples = (encoded.latent_dist.sample(generator) * scale for _ in range(settings.draws))
        return sum(look(latents, 1) for latents in samples) / settings.draws


def resize_for(settings: FeatureSettings, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h2 w2"]:
    """The image at the size that the settings ask for."""
    if settings.side is None:
        return image
    return F.interpolate(image, size=(settings.side,) * 2, mode=settings.interpolation)


def find_points(
    source: Float[Tensor, "1 c h1 w1"],
    edited: Float[Tensor, "1 c h2 w2"],
    points: Float[np.ndarray, "n 2"],
    size: tuple[int, int],
    *,
    region: Bool[np.ndarray, "h w"] | Bool[np.ndarray, "n h w"] | None = None,
    interpolation: Interpolation = "bilinear",
) -> Float64[np.ndarray, "n 2"]:
    """Where in an image the features have the largest cosine with those at each point of another.

    As the evaluators do it, both maps are brought to the image's size, vector by vector, before cosines are
    taken (`match_features` interpolates the cosines, which is faster). Points are read at the nearest pixel,
    and found pixel by pixel; what the rounding took is given back, so that a point that stays is found where
    it was.

    Args:
        source: Features of the image before.
        edited: Features of the image after.
        points: x, y in pixels.
        size: (height, width) of both images.
        region: Where a point may be found: one region for all points, or one each. Everywhere by default.
        interpolation: How features are brought to the image's size.

    Returns:
        x, y in pixels, shape `(n, 2)`.

    Raises:
        ValueError: If a region is empty, or of another size.
    """
    h, w = size
    points = np.asarray(points, dtype=np.float64)
    pixels = np.clip(np.floor(points + 0.5), 0, (w - 1, h - 1)).astype(int)
    wanted = _vectors_at(source, pixels, size, interpolation)
    cosines = _cosines(wanted, edited, size, interpolation)
    if region is not None:
        if region.shape[-2:] != size or not region.any(axis=(-2, -1)).all():
            raise ValueError(f"a region must be of the size {size} and not empty, got one of {region.shape}")
        allowed = torch.from_numpy(np.broadcast_to(region, cosines.shape).copy())
        cosines = cosines.masked_fill(~allowed.to(cosines.device), -torch.inf)
    best = cosines.flatten(1).argmax(dim=1).cpu().numpy()
    return points + np.stack([best % w, best // w], axis=1) - pixels


def _vectors_at(features: Tensor, pixels: np.ndarray, size: tuple[int, int], mode: str) -> Tensor:
    """Unit vectors `(c, n)` of a map brought to `size`, at whole pixels x, y."""
    tall = F.interpolate(features, size=(size[0], features.shape[-1]), mode=mode)
    rows = (F.interpolate(tall[:, :, y : y + 1], size=(1, size[1]), mode=mode)[0, :, 0, x] for x, y in pixels)
    return F.normalize(torch.stack(list(rows), dim=1), dim=0)


def _cosines(wanted: Tensor, features: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Cosines `(n, h, w)` of unit vectors `(c, n)` with a map brought to `size`, strip by strip."""
    tall = F.interpolate(features, size=(size[0], features.shape[-1]), mode=mode)
    strips = []
    for strip in tall.split(STRIP, dim=2):
        wide = F.interpolate(strip, size=(strip.shape[2], size[1]), mode=mode)[0]
        strips.append(torch.einsum("cn,chw->nhw", wanted, F.normalize(wide, dim=0)))
    return torch.cat(strips, dim=1)
