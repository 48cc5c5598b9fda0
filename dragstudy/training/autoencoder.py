"""Train the autoencoder: L1, image gradients and LPIPS on random crops."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio

from dragstudy.metrics.perceptual import lpips_model
from dragstudy.models.autoencoder import decode, encode
from dragstudy.training.augment import augment_colours, random_crop, random_flip


class Reconstruction(nn.Module):
    """Encode and decode images `(b, 3, h, w)` in [-1, 1], in one `forward`, as several GPUs need it.

    `AutoencoderTiny.forward` is no use in training: it rounds the latents to bytes, where every gradient
    ends.
    """

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return decode(self.autoencoder, encode(self.autoencoder, images))


class AutoencoderTask:
    """Losses of the autoencoder. A batch has `image`, `(b, 3, h, w)` in [0, 1].

    Args:
        autoencoder: An `AutoencoderTiny`.
        crop: Side of the random crops, in pixels.
        validation: Whole images `(n, 3, h, w)` in [0, 1], or None.
        gradient_weight: Weight of the L1 distance of horizontal and vertical differences: sharp edges.
        lpips_weight: Weight of LPIPS (AlexNet).
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        *,
        crop: int = 128,
        validation: Tensor | None = None,
        gradient_weight: float = 0.5,
        lpips_weight: float = 0.25,
    ):
        self.networks = {"autoencoder": Reconstruction(autoencoder)}
        self.crop, self.validation = crop, validation
        self.gradient_weight, self.lpips_weight = gradient_weight, lpips_weight
        self.lpips = lpips_model("alex").requires_grad_(False)

    def losses(
        self, batch: dict, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        images = random_crop(random_flip(batch["image"], generator), self.crop, generator)
        images = 2 * augment_colours(images, generator) - 1
        images = images.contiguous(memory_format=torch.channels_last)
        rebuilt = self.networks["autoencoder"](images).float()
        l1 = F.l1_loss(rebuilt, images)
        gradient = sum(F.l1_loss(rebuilt.diff(dim=d), images.diff(dim=d)) for d in (2, 3))
        lpips = self.lpips.to(images.device)(rebuilt, images).mean()
        loss = l1 + self.gradient_weight * gradient + self.lpips_weight * lpips
        yield "autoencoder", loss, {"l1": l1, "gradient": gradient, "lpips": lpips}

    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        autoencoder = self.networks["autoencoder"]
        images = 2 * self.validation.to(next(autoencoder.parameters()).device) - 1
        rebuilt = torch.cat([autoencoder(part).float() for part in images.split(8)]).clamp(-1, 1)
        lpips = self.lpips.to(images.device)
        distance = torch.cat(
            [lpips(a, b).flatten() for a, b in zip(rebuilt.split(8), images.split(8), strict=True)]
        )
        psnr = peak_signal_noise_ratio(
            rebuilt, images, data_range=2.0, dim=(1, 2, 3), reduction="elementwise_mean"
        )
        return {"val_psnr": psnr.item(), "val_lpips": distance.mean().item()}
