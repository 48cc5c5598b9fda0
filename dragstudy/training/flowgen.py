"""Train FlowGen: a pix2pix GAN from image and drags to the masked dense flow (InstantDrag, Eq. 3)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy.samplers import draw_pseudo_drags, find_sampler
from dragstudy.sparse import SamplerConfig
from dragstudy.training.augment import augment_colours, mirror_pairs, zoom_out


class FlowGenTask:
    """Losses of FlowGen. A batch is what `PairDataset` gives.

    For each discriminator update the generator is updated four times, each with freshly sampled drags of the
    same pairs, so that it learns to map many sparse flows to one dense flow.

    Args:
        generator: The `FlowGen`.
        discriminator: The `PatchDiscriminator`, or None to train on the reconstruction alone.
        sampler: Name of one of `dragstudy.samplers.SAMPLERS`, or a configuration of one's own.
        reconstruction: `"l2"` (the paper's) or `"l1"`.
        reconstruction_weight: Lambda of Eq. 3; pix2pix's 100, since the paper does not give its own.
        generator_updates: Updates of the generator for one of the discriminator.
        validation: A collated batch of pairs, or None.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        *,
        sampler: str | SamplerConfig = "config2",
        reconstruction: str = "l2",
        reconstruction_weight: float = 100.0,
        generator_updates: int = 4,
        validation: dict | None = None,
    ):
        if reconstruction not in ("l1", "l2"):
            raise ValueError(f"reconstruction must be 'l1' or 'l2', got {reconstruction!r}")
        self.networks, self.plain_generator = {"generator": generator}, generator
        self.asked = {"return_person": True} if generator.config.prior else {}
        if discriminator is not None:
            self.networks["discriminator"] = discriminator
        self.sampler = find_sampler(sampler)
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[reconstruction]
        self.reconstruction_weight, self.generator_updates = reconstruction_weight, generator_updates
        self.validation = validation

    def losses(
        self, batch: dict, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        batch = zoom_out(mirror_pairs(batch, generator), generator)
        image = 2 * augment_colours(batch["source"], generator) - 1
        image = image.contiguous(memory_format=torch.channels_last)
        normalize = self.plain_generator.normalize
        for _ in range(self.generator_updates):
            sparse, flow = normalize(self.sample_sparse(batch, generator), batch["flow"] * batch["mask"])
            # a flow much larger than its drags would count more than all others
            excess = flow.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1)
            fake, logs, loss = self.networks["generator"](image, sparse, **self.asked), {}, 0.0
            if self.asked:
                fake, person = fake
                logs["person"] = loss = F.binary_cross_entropy_with_logits(person, batch["mask"])
            flow, fake = flow / excess, fake.float() / excess
            logs["distance"] = self.distance(fake, flow)
            loss = loss + self.reconstruction_weight * logs["distance"]
            if "discriminator" in self.networks:
                logits = self.networks["discriminator"](image, sparse, fake)
                logs["adversarial"] = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
                loss = loss + logs["adversarial"]
            yield "generator", loss, logs
        if "discriminator" in self.networks:
            real = self.networks["discriminator"](image, sparse, flow)
            fake = self.networks["discriminator"](image, sparse, fake.detach())
            loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            loss = (loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))) / 2
            yield "discriminator", loss, {"real": real.sigmoid().mean(), "fake": fake.sigmoid().mean()}

    def sample_sparse(self, batch: dict, generator: torch.Generator) -> Tensor:
        """Draw pseudo drag instructions for each pair: a sparse flow `(b, 2, h, w)` in pixels."""
        drags = [
            draw_pseudo_drags(
                flow.cpu(),
                mask.cpu(),
                self.sampler,
                generator=generator,
                landmarks=None if points.isnan().any() else points.cpu(),
            )
            for flow, mask, points in zip(batch["flow"], batch["mask"], batch["landmarks"], strict=True)
        ]
        return torch.stack(drags).to(batch["flow"])

    def validate(self) -> dict[str, float]:
        """End-point error inside the mask, in pixels, of the flow as the pipeline scales it, and of zero."""
        if self.validation is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        device = next(self.plain_generator.parameters()).device
        batch = {key: value.to(device) for key, value in self.validation.items() if isinstance(value, Tensor)}
        drags = self.sample_sparse(batch, generator)
        flow = self.plain_generator.predict(2 * batch["source"] - 1, drags)
        truth = batch["flow"] * batch["mask"]
        inside = batch["mask"].sum(dim=(1, 2, 3)).clamp_min(1)
        error = ((flow - truth).norm(dim=1, keepdim=True) * batch["mask"]).sum(dim=(1, 2, 3)) / inside
        still = (truth.norm(dim=1, keepdim=True) * batch["mask"]).sum(dim=(1, 2, 3)) / inside
        return {"val_epe": error.mean().item(), "val_epe_zero": still.mean().item()}
