"""Train the backbone: an unconditional latent diffusion model under the null prompt."""

from collections.abc import Iterator

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from dragstudy.models.backbone import NullPrompt


def draw_timesteps(count: int, scheduler: SchedulerMixin, generator: torch.Generator) -> Tensor:
    """Timesteps `(count,)`, stratified: one in each of `count` equal parts, for less variance."""
    part = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    steps = scheduler.config.num_train_timesteps
    return (part * steps).long().clamp(max=steps - 1)  # the last draw may round to one


def diffusion_target(scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network predicts: the noise, or the velocity alpha_t noise - sigma_t latents."""
    if scheduler.config.prediction_type == "epsilon":
        return noise
    alpha_bar = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents


def add_noise(scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """q(z_t | z_0): sqrt(alpha_bar) latents + sqrt(1 - alpha_bar) noise."""
    alpha_bar = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


class BackboneTask:
    """Losses of the backbone. A batch has `target_latents`, `(b, c, h, w)`."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
        *,
        validation: dict[str, Tensor] | None = None,
    ):
        self.networks = {"unet": unet}
        self.null_prompt, self.scheduler, self.validation = null_prompt, scheduler, validation

    def conditions(self, batch: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
        """Extra input channels; the backbone has none."""
        return []

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Squared error of the prediction at random timesteps."""
        latents = batch["target_latents"].float()
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = draw_timesteps(len(latents), self.scheduler, generator).to(latents.device)
        noisy = add_noise(self.scheduler, latents, noise, timesteps)
        predicted = self.predict(noisy, timesteps, batch, generator)
        return F.mse_loss(predicted, diffusion_target(self.scheduler, latents, noise, timesteps))

    def predict(
        self, noisy: Tensor, timesteps: Tensor, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """The network's prediction for noisy latents, in single precision."""
        inputs = torch.cat([noisy, *self.conditions(batch, generator)], dim=1)
        prompt = self.null_prompt.to(noisy.device)(len(noisy))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self.networks["unet"](inputs, timesteps, prompt).sample.float()

    def losses(
        self, batch: dict, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        yield "unet", self.loss(batch, generator), {}

    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        generator = torch.Generator().manual_seed(0)  # the same noise at every validation
        device = next(next(iter(self.networks.values())).parameters()).device
        batch = {key: value.to(device) for key, value in self.validation.items()}
        return {"val_loss": self.loss(batch, generator).item()}
