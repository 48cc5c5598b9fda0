"""Faces out of nothing: unconditional sampling of the backbone."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from dragstudy.models.autoencoder import decode
from dragstudy.models.backbone import NullPrompt


class BackbonePipeline(DiffusionPipeline):
    """Draws pictures from a latent U-Net under its null prompt.

    Args:
        autoencoder: Between images and latents, f8.
        unet: The backbone.
        null_prompt: The embedding for "no prompt".
        scheduler: The sampler, see `dragstudy.models.backbone.make_scheduler`.
    """

    model_cpu_offload_seq = "unet->autoencoder"

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: UNet2DConditionModel,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
    ):
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder, unet=unet, null_prompt=null_prompt, scheduler=scheduler
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=8)

    @torch.no_grad()
    def __call__(
        self,
        num_images: int = 1,
        *,
        num_inference_steps: int = 20,
        generator: torch.Generator | list[torch.Generator] | None = None,
        batch_size: int = 16,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Draw pictures.

        Args:
            num_images: How many.
            num_inference_steps: Steps of the sampler.
            generator: Source of the initial noise, one for all or one for each picture. All noise is drawn
                before the first step.
            batch_size: Pictures sampled together; it decides memory, not the result.
            output_type: `"pil"`, `"np"` or `"pt"` (`(n, 3, h, w)` in [0, 1]), or `"latent"`.
            return_dict: Whether to return an `ImagePipelineOutput` or the tuple `(images,)`.

        Raises:
            ValueError: If no picture is asked for, or a list of generators has another length.
        """
        # 0. Check inputs
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}")
        if isinstance(generator, list) and len(generator) != num_images:
            raise ValueError(f"{num_images} images need as many generators, got {len(generator)}")

        # 1. Noise
        side = self.unet.config.sample_size
        shape = (num_images, self.unet.config.out_channels, side, side)
        noise = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

        # 2. Denoise, 3. decode
        latents = torch.cat([self.denoise(part, num_inference_steps) for part in noise.split(batch_size)])
        if output_type == "latent":
            images = latents
        else:
            parts = latents.to(self.autoencoder.dtype).split(8)
            decoded = torch.cat([decode(self.autoencoder, part).float().cpu() for part in parts])
            images = self.image_processor.postprocess(decoded, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def denoise(self, noise: torch.Tensor, num_inference_steps: int) -> torch.Tensor:
        """Turn noise `(b, c, h, w)` of deviation 1 into scaled latents."""
        self.scheduler.set_timesteps(num_inference_steps, device=noise.device)  # forgets the last batch
        latents = noise * self.scheduler.init_noise_sigma
        prompts = self.null_prompt(len(noise)).to(noise)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(latents, timestep)
            predicted = self.unet(scaled, timestep, prompts, return_dict=False)[0]
            latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        return latents
