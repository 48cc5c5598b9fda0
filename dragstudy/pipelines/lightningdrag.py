"""LightningDrag: an inpainting U-Net fills the mask, told by the photograph's features and by points."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from diffusers.loaders import IPAdapterMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from dragstudy.attention import attend_to_reference, exchange_attention
from dragstudy.guidance import GuidanceSchedule, ScheduleTime, guidance_weight, schedule_times
from dragstudy.inversion import clean_and_noise
from dragstudy.models.appearance import AppearanceEncoder, keys_and_values
from dragstudy.models.autoencoder import encode
from dragstudy.models.backbone import NullPrompt
from dragstudy.models.inpainting import inpainting_conditions
from dragstudy.models.points import PointEmbedding
from dragstudy.pipelines.base import (
    DragPipeline,
    DragPipelineOutput,
    Request,
    as_type,
    check_output_type,
)
from dragstudy.pipelines.engineered import engineered
from dragstudy.pipelines.few_steps import step_options
from dragstudy.pipelines.latent import one_generator_each
from dragstudy.pipelines.noise import apply_prior, editable
from dragstudy.pipelines.zoom import find_window, zoom_in, zoom_out
from dragstudy.priors import NoisePrior, check_noise_prior


class LightningDragPipeline(DragPipeline, IPAdapterMixin):
    """LightningDrag (Shi et al. 2024): a mask, no prompt, no optimisation; as fast as generating a picture.

    Names in the paper: c_appr is what `appearance_encoder` sees, c_points what `point_embedding` makes of the
    points, omega_max is `point_guidance_scale`.

    Args:
        autoencoder: Between images and latents, f8.
        unet: An inpainting U-Net; `[noisy latents, mask, masked latents]` go in.
        appearance_encoder: Made for the same U-Net's self-attention layers.
        point_embedding: The same.
        null_prompt: The embedding for "no prompt".
        scheduler: The sampler; `dragstudy.pipelines.few_steps.use_lcm` exchanges it.
        image_encoder: For an image prompt (IP-Adapter), which `load_ip_adapter` puts into `unet`; the tiny
            weights have none.
        feature_extractor: Prepares images for it.
        mask_pixels: Whether the mask is applied to the picture before it is encoded, as Stable Diffusion's
            inpainting model and the authors' code want it, or to its latents, as in the paper.
        working_area: Pixels of the size the edit is made at; images of any shape are fitted to nearly it.
        zoom: What calls do unless they say otherwise. Not in the paper; the tiny weights are used with it.
    """

    model_cpu_offload_seq = "autoencoder->image_encoder->appearance_encoder->point_embedding"
    _exclude_from_cpu_offload = ["unet"]  # its projections are used before it is called as a whole
    _optional_components = ["image_encoder", "feature_extractor"]
    _callback_tensor_inputs = ["latents", "denoised"]

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: UNet2DConditionModel,
        appearance_encoder: AppearanceEncoder,
        point_embedding: PointEmbedding,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
        image_encoder: nn.Module | None = None,
        feature_extractor: Any = None,
        mask_pixels: bool = False,
        working_area: int = 256 * 256,
        zoom: bool = False,
    ):
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder,
            unet=unet,
            appearance_encoder=appearance_encoder,
            point_embedding=point_embedding,
            null_prompt=null_prompt,
            scheduler=scheduler,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(mask_pixels=mask_pixels, working_area=working_area, zoom=zoom)

    def prepare_conditions(self, requests: list[Request]) -> tuple[Tensor, Tensor]:
        """Latents of the photographs `(b, c, h, w)`, and the channels after the noise, `(b, c + 1, h, w)`.

        Without a mask everything may change. A latent that any editable pixel lies in may change.
        """
        images = 2 * torch.cat([request.working_image for request in requests]) - 1
        masks = torch.stack([editable(request) for request in requests])
        place = {"device": self._execution_device, "dtype": self.autoencoder.dtype}
        latents = encode(self.autoencoder, images.to(**place)).float()
        cells = (nn.functional.adaptive_max_pool2d(masks, latents.shape[-2:]) > 0).to(latents)
        if not self.config.mask_pixels:
            return latents, inpainting_conditions(latents, cells)
        masked = encode(self.autoencoder, (images * (masks == 0)).to(**place)).float()
        return latents, torch.cat([cells, masked], dim=1)

    def embed_points(self, requests: list[Request]) -> dict[str, tuple[Tensor, Tensor]]:
        """E_hdl and E_tgt of each self-attention layer, `(2b, tokens, channels)` (Sec. 4.2.3).

        First those of no points, for guidance.
        """
        width, height = requests[0].fit.working_size
        drags = [request.working_drags for request in requests]
        handles, targets = (
            nn.utils.rnn.pad_sequence([torch.from_numpy(p).float() for p in points], True, torch.nan)
            for points in zip(*((one.handle_points, one.target_points) for one in drags), strict=True)
        )
        return self.point_embedding.guidance_rows(handles, targets, (height, width))

    def embed_images(self, requests: list[Request]) -> dict[str, list[Tensor]] | None:
        """The image prompt, if an adapter for one was loaded; it is the same with and without points."""
        if self.unet.config.encoder_hid_dim_type != "ip_image_proj":
            return None
        if self.image_encoder is None or self.feature_extractor is None:
            raise ValueError("the image adapter needs image_encoder and feature_extractor, which are missing")
        pictures = [request.image for request in requests]
        pixels = self.feature_extractor(images=pictures, return_tensors="pt").pixel_values
        pixels = pixels.to(self._execution_device, self.image_encoder.dtype)
        return {"image_embeds": [self.image_encoder(pixels).image_embeds[:, None].to(self.unet.dtype)]}

    @engineered
    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        point_guidance_scale: float = 3.0,
        guidance_schedule: GuidanceSchedule = "inverse_square",
        schedule_time: ScheduleTime = "timestep",
        noise_prior: NoisePrior = "source",
        zoom: bool | None = None,
        num_inference_steps: int = 25,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> DragPipelineOutput | tuple:
        """Edit one image, or a list of them.

        Args:
            image: PIL, uint8 array, or float tensor `(3, h, w)` in [0, 1]; any size. A list makes a batch.
            handle_points: `(n, 2)` x, y in pixels of the image.
            target_points: `(n, 2)`; equal to its handle point it is an anchor.
            mask: `(h, w)`, 1 = may change; the photograph's own pixels stay elsewhere. Without one everything
                may change.
            point_guidance_scale: omega_max of point-following guidance (Eq. 5); at 1 there is none.
            guidance_schedule: How it falls over time, see `dragstudy.guidance.guidance_weight`.
            schedule_time: What the schedule takes for time, see `dragstudy.guidance.schedule_times`.
            noise_prior: What the sampling starts from (Sec. 4.3.1), see `dragstudy.priors.noise_prior`.
            zoom: Whether to edit, in place of the whole photograph, a window around mask and points as large
                as the networks see, see `dragstudy.pipelines.zoom`; None asks the configuration.
            num_inference_steps: Steps of the sampler.
            generator: One generator, or one for each image of a batch.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: Whether to return a `DragPipelineOutput` or the tuple `(images, None)`.
            callback_on_step_end: Called as `(pipeline, step, timestep, tensors)`; setting
                `pipeline._interrupt = True` in it ends the sampling.
            callback_on_step_end_tensor_inputs: Which of `latents` and `denoised` it gets; the latter is what
                the step takes the clean latents to be.

        Raises:
            ValueError: If an argument cannot be used; the sentence says what was given and what is allowed.
        """
        # 1. Check the request
        check_output_type(output_type)
        check_noise_prior(noise_prior)
        self.check_sampling(num_inference_steps, callback_on_step_end_tensor_inputs)
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        one_generator_each(generator, len(requests))
        photos = [request.image for request in requests]
        windows = [(0, 0, *photo.size) for photo in photos]
        if self.config.zoom if zoom is None else zoom:
            windows = [find_window(request.drags) for request in requests]
            requests = [zoom_in(*both) for both in zip(requests, windows, strict=True)]
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        times = schedule_times(
            self.scheduler.timesteps, self.scheduler.config.num_train_timesteps, schedule_time
        )
        weights = [guidance_weight(guidance_schedule, point_guidance_scale, time) for time in times]
        self._interrupt, self._num_timesteps = False, len(self.scheduler.timesteps)

        # 2. What does not change from step to step
        source, conditions = self.prepare_conditions(requests)
        prompts = self.null_prompt(len(requests)).to(source.device, self.unet.dtype)
        own = self.appearance_encoder.dtype
        features = self.appearance_encoder(source.to(own), prompts.to(own))
        exchange = attend_to_reference(keys_and_values(self.unet, features), self.embed_points(requests))
        prompted = self.embed_images(requests)

        # 3. Noise
        noise = randn_tensor(source.shape, generator, source.device, source.dtype)
        latents = apply_prior(noise_prior, noise, source, requests, self.scheduler, generator)
        latents = latents * self.scheduler.init_noise_sigma

        # 4. Denoise
        with exchange_attention(self.unet, list(features), exchange):
            for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
                if self._interrupt:
                    break
                scaled = self.scheduler.scale_model_input(latents, timestep)
                inputs = torch.cat([scaled, conditions], dim=1)
                guided = self.denoise(inputs, timestep, prompts, prompted, weights[step])
                drawn = step_options(self.scheduler, generator)
                denoised, _ = clean_and_noise(self.scheduler, guided, latents, int(timestep))
                latents = self.scheduler.step(guided, timestep, latents, return_dict=False, **drawn)[0]
                if callback_on_step_end is not None:
                    tensors = {"latents": latents, "denoised": denoised}
                    given = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, step, timestep, given) or {}
                    latents = changed.get("latents", latents)

        # 5. Back to the photograph
        edited = self.decode_latents(latents)
        self.maybe_free_model_hooks()
        parts = self.finish(requests, edited, None, "pil", True).images
        images = [zoom_out(*one) for one in zip(photos, windows, parts, strict=True)]
        images = [as_type(image, output_type) for image in images]
        return DragPipelineOutput(images=images) if return_dict else (images, None)

    def denoise(
        self, inputs: Tensor, timestep: Tensor, prompts: Tensor, prompted: dict | None, weight: float
    ) -> Tensor:
        """The guided prediction (Eq. 5), from rows without points and with them; at a weight of 1 from one.

        To be called within `exchange_attention`, which gives points to the last rows.
        """
        rows = 1 if weight == 1 else 2
        inputs = inputs.repeat(rows, 1, 1, 1).to(self.unet.dtype)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        prompted = prompted and {
            key: [one.repeat(rows, 1, 1) for one in parts] for key, parts in prompted.items()
        }
        predicted = self.unet(
            inputs, timestep, prompts.repeat(rows, 1, 1), added_cond_kwargs=prompted, return_dict=False
        )[0].float()
        if rows == 1:
            return predicted
        without, following = predicted.chunk(2)
        return without + weight * (following - without)
