"""InstantDrag: FlowGen turns drags into a dense flow, FlowDiffusion image and flow into the edit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy.drags import DragInstruction
from dragstudy.flow import hold_anchors, resize_flow
from dragstudy.guidance import (
    GuidanceSchedule,
    ScheduleTime,
    guidance_rows,
    guidance_weight,
    guide,
    schedule_times,
)
from dragstudy.images import fit_size
from dragstudy.inversion import clean_and_noise
from dragstudy.models.autoencoder import encode
from dragstudy.models.backbone import NullPrompt
from dragstudy.models.flowdiffusion import drop_flow, flow_conditions, flow_variant, move_and_encode
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.lora import load_lora
from dragstudy.pipelines.base import DragPipeline, DragPipelineOutput, Request, check_output_type
from dragstudy.pipelines.detail import check_detail
from dragstudy.pipelines.engineered import engineered
from dragstudy.pipelines.few_steps import step_options
from dragstudy.pipelines.latent import one_generator_each
from dragstudy.pipelines.noise import apply_prior
from dragstudy.priors import NoisePrior, check_noise_prior
from dragstudy.sparse import sparse_flow


class InstantDragPipeline(DragPipeline):
    """InstantDrag (Shin et al., SIGGRAPH Asia 2024): no mask, no prompt, no optimisation.

    Names in the paper: the sparse flow S is `sparse_flow`, the dense flow F is `flow`, s_I and s_F are
    `image_guidance_scale` and `flow_guidance_scale`, the null embedding is `null_prompt`.

    Args:
        autoencoder: Between images and latents, f8.
        unet: FlowDiffusion, `"concat"` or `"splat"`.
        flowgen: From image and sparse flow to dense flow.
        null_prompt: The embedding for "no prompt".
        scheduler: The sampler.
        flow_scale: Factor on the fixed-size normalised flow that `unet` was trained with; the paper's is 1.
        scale_image_latents: Whether `unet` was trained on scaled image latents. The published one was not: it
            takes the autoencoder's raw mode.
        working_area: Pixels of the size FlowDiffusion works at; images of any shape are fitted to nearly it.
        flowgen_area: The same for FlowGen; 256 x 256 in the paper, whatever FlowDiffusion works at.
    """

    model_cpu_offload_seq = "flowgen->autoencoder->unet"
    _callback_tensor_inputs = ["latents", "conditions", "denoised"]

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: UNet2DConditionModel,
        flowgen: FlowGen,
        null_prompt: NullPrompt,
        scheduler: SchedulerMixin,
        flow_scale: float = 1.0,
        scale_image_latents: bool = True,
        working_area: int = 256 * 256,
        flowgen_area: int = 256 * 256,
    ):
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder, unet=unet, flowgen=flowgen, null_prompt=null_prompt, scheduler=scheduler
        )
        self.register_to_config(
            flow_scale=flow_scale,
            scale_image_latents=scale_image_latents,
            working_area=working_area,
            flowgen_area=flowgen_area,
        )

    def load_finetuned(self, folder: str | Path, adapter_name: str = "finetuned") -> None:
        """Use what `dragstudy finetune` made of one video: adapters on `unet`, and its own `flowgen`.

        The adapters are diffusers': `unet.disable_adapters()` goes back, `unet.fuse_lora()` and then
        `unet.unload_lora()` make them part of the weights.

        Args:
            folder: What `dragstudy.training.finetune` wrote.
            adapter_name: Name of the adapters; those of the same name are replaced.

        Raises:
            ValueError: If the folder holds none, or they were trained on another U-Net.
        """
        load_lora(self.unet, Path(folder), adapter_name)
        flowgen = FlowGen.from_pretrained(str(Path(folder) / "flowgen"), torch_dtype=self.flowgen.dtype)
        self.register_modules(flowgen=flowgen.to(self.flowgen.device))

    def predict_flow(self, requests: list[Request]) -> Tensor:
        """Dense flow of each request, `(b, 2, h, w)` in pixels of the working size (Sec. 3.2.4).

        FlowGen has a size of its own, since its sides must be multiples of 2 to the number of its halvings.
        The size of its answer follows that of the drags (`FlowGen.predict`), anchors are held and the mask is
        obeyed.
        """
        working_size = requests[0].fit.working_size
        multiple = 2**self.flowgen.config.num_downs
        width, height = fit_size(*working_size, area=self.config.flowgen_area, multiple=multiple)
        place = {"device": self._execution_device, "dtype": self.flowgen.dtype}
        images = 2 * torch.cat([request.working_image for request in requests]) - 1
        images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
        drags = [request.working_drags.resize((width, height)) for request in requests]
        sparse = torch.cat([sparse_flow(one, (height, width)) for one in drags])
        predicted = self.flowgen.predict(images.to(**place), sparse.to(place["device"])).cpu()
        flow = resize_flow(predicted, working_size[::-1])
        return torch.stack(
            [_obey(one, request.working_drags) for one, request in zip(flow, requests, strict=True)]
        )

    def encode_image(self, requests: list[Request]) -> Tensor:
        """Latents of the working images, `(b, c, h/8, w/8)`, as the U-Net was trained to see them."""
        latents = encode(self.autoencoder, self._images(requests))
        return (
            latents if self.config.scale_image_latents else latents / self.autoencoder.config.scaling_factor
        )

    def prepare_conditions(self, requests: list[Request], flow: Tensor, rows: tuple) -> Tensor:
        """Condition channels of every guidance row, `(rows, b, channels, h/8, w/8)`."""
        image_latents = self.encode_image(requests)
        flow = flow.to(image_latents.device)
        moved = None
        if flow_variant(self.unet) == "splat":
            moved = move_and_encode(self.autoencoder, self._images(requests), flow)
        full = flow_conditions(image_latents.float(), flow, moved, flow_scale=self.config.flow_scale)
        image_only = drop_flow(full, image_latents.shape[1])
        nothing = torch.zeros_like(full)
        chosen = {(False, False): nothing, (True, False): image_only, (True, True): full}
        return torch.stack([chosen[row[:2]] for row in rows])

    def prepare_latents(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | list[torch.Generator] | None,
        requests: list[Request],
        noise_prior: NoisePrior = "random",
    ) -> Tensor:
        """What the sampling starts from; with a list of generators each image has noise of its own."""
        latents = randn_tensor(shape, generator=generator, device=self._execution_device)
        if noise_prior != "random":
            source = encode(self.autoencoder, self._images(requests))
            latents = apply_prior(noise_prior, latents, source, requests, self.scheduler, generator)
        return latents * self.scheduler.init_noise_sigma

    def denoise(self, latents: Tensor, conditions: Tensor, prompts: Tensor, timestep: Tensor) -> Tensor:
        """The U-Net's prediction for every guidance row, `(rows, b, c, h, w)`, in one batch."""
        rows, b = conditions.shape[:2]
        scaled = self.scheduler.scale_model_input(latents, timestep).expand(rows, *latents.shape)
        inputs = torch.cat([scaled, conditions], dim=2).flatten(0, 1).to(self.unet.dtype)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        predicted = self.unet(inputs, timestep, prompts.flatten(0, 1), return_dict=False)[0]
        return predicted.float().unflatten(0, (rows, b))

    @engineered
    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        flow: Tensor | None = None,
        image_guidance_scale: float = 1.5,
        flow_guidance_scale: float = 1.5,
        text_guidance_scale: float = 3.0,
        guidance_schedule: GuidanceSchedule = "constant",
        schedule_time: ScheduleTime = "timestep",
        guidance_form: str = "image_flow",
        prompt_embeds: Tensor | None = None,
        detail: str = "none",
        noise_prior: NoisePrior = "random",
        num_inference_steps: int = 20,
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
            target_points: `(n, 2)`; equal to its handle point it is an anchor, which stays.
            mask: `(h, w)`, 1 = may change. InstantDrag needs none.
            flow: Dense flow to use in place of FlowGen's, `(b, 2, h, w)` in pixels of its own grid.
            image_guidance_scale: s_I; higher holds more of the source.
            flow_guidance_scale: s_F; higher moves more.
            text_guidance_scale: s_T, for `guidance_form="image_flow_text"` alone.
            guidance_schedule: How s_F falls to 1 on the way, see `dragstudy.guidance.guidance_weight`.
            schedule_time: What the schedule is read at, see `dragstudy.guidance.schedule_times`.
            guidance_form: See `dragstudy.guidance.guide`.
            prompt_embeds: Text embedding `(1, tokens, dim)` for `"image_flow_text"`.
            detail: `"none"` (the paper's); `"transfer"`: add what the autoencoder loses of the photograph,
                moved; or `"compose"`: keep the photograph's own pixels, moved. Both where it can be seen
                after the motion, at the photograph's resolution; see `dragstudy.pipelines.detail`.
            noise_prior: What the sampling starts from, see `dragstudy.priors.noise_prior`. With the zero
                terminal signal-to-noise ratio of the tiny weights only `"copy_paste"` makes a difference.
            num_inference_steps: Steps of the sampler.
            generator: One generator, or one for each image of a batch.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: Whether to return a `DragPipelineOutput` or the tuple `(images, flow)`.
            callback_on_step_end: Called as `(pipeline, step, timestep, tensors)`; setting
                `pipeline._interrupt = True` in it ends the sampling.
            callback_on_step_end_tensor_inputs: Which of `latents`, `conditions` and `denoised` it
                gets; the last is what the step takes the clean latents to be.

        Raises:
            ValueError: If an argument cannot be used; the sentence says what was given and what is allowed.
        """
        # 1. Check the request
        check_output_type(output_type)
        check_detail(detail)
        check_noise_prior(noise_prior)
        rows = guidance_rows(guidance_form)
        if any(row[2] for row in rows) and prompt_embeds is None:
            raise ValueError("guidance_form 'image_flow_text' needs prompt_embeds, got None")
        self.check_sampling(num_inference_steps, callback_on_step_end_tensor_inputs)
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        one_generator_each(generator, len(requests))
        scales = {"image": image_guidance_scale, "text": text_guidance_scale}
        scales["flow"] = guidance_weight(guidance_schedule, flow_guidance_scale, time=1)
        if all(scales[name] == 1 for name in ("image", "flow")) and guidance_form == "image_flow":
            rows, guidance_form = rows[-1:], ""  # nothing to guide: one row is enough
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        known = self.scheduler.config.num_train_timesteps
        times = schedule_times(self.scheduler.timesteps, known, schedule_time)
        self._interrupt, self._num_timesteps = False, len(self.scheduler.timesteps)

        # 2. Drags to dense flow
        if flow is None:
            flow = self.predict_flow(requests)
        else:
            flow = self.fit_flow(flow, requests)

        # 3. Conditions, prompts, noise
        conditions = self.prepare_conditions(requests, flow, rows)
        prompts = self._prompts(rows, len(requests), prompt_embeds)
        latent_channels = self.unet.config.out_channels
        shape = len(requests), latent_channels, *conditions.shape[-2:]
        latents = self.prepare_latents(shape, generator, requests, noise_prior)

        # 4. Denoise
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            if self._interrupt:
                break
            predictions = self.denoise(latents, conditions, prompts, timestep)
            scales["flow"] = guidance_weight(guidance_schedule, flow_guidance_scale, times[step])
            guided = guide(predictions, guidance_form, scales) if guidance_form else predictions[0]
            drawn = step_options(self.scheduler, generator)
            denoised, _ = clean_and_noise(self.scheduler, guided, latents, int(timestep))
            latents = self.scheduler.step(guided, timestep, latents, return_dict=False, **drawn)[0]
            if callback_on_step_end is not None:
                tensors = {"latents": latents, "conditions": conditions, "denoised": denoised}
                given = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                changed = callback_on_step_end(self, step, timestep, given) or {}
                latents, conditions = changed.get("latents", latents), changed.get("conditions", conditions)

        # 5. Back to the photograph
        edited = self.decode_latents(latents)
        copies = self.reconstruct(requests) if detail == "transfer" else None
        self.maybe_free_model_hooks()
        return self.finish(requests, edited, flow, output_type, return_dict, detail, copies)

    def _images(self, requests: list[Request]) -> Tensor:
        """Working images in [-1, 1], `(b, 3, h, w)`, as the autoencoder takes them."""
        images = 2 * torch.cat([request.working_image for request in requests]) - 1
        return images.to(self._execution_device, self.autoencoder.dtype)

    def _prompts(self, rows: tuple, count: int, prompt_embeds: Tensor | None) -> Tensor:
        null = self.null_prompt(count).to(self._execution_device, self.unet.dtype)
        text = null if prompt_embeds is None else prompt_embeds.to(null).expand(count, -1, -1)
        return torch.stack([text if row[2] else null for row in rows])


def _obey(flow: Tensor, drags: DragInstruction) -> Tensor:
    """Keep anchors where they are and what the mask protects at rest; flow `(2, h, w)`."""
    anchors = drags.anchors
    if anchors.any():
        flow = hold_anchors(flow[None], drags.handle_points[anchors], drags.handle_points[~anchors])[0]
    if drags.mask is not None:
        flow = flow * torch.from_numpy(drags.mask)
    return flow
