"""DragonDiffusion: five kinds of edits by one guidance, energies between the features of two latents."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dragstudy.images import load_image
from dragstudy.pipelines.base import DragPipelineOutput, Request, make_request
from dragstudy.pipelines.dragon_sampler import Job, edit_jobs
from dragstudy.pipelines.dragon_settings import PRESETS, Attention, DragonSettings, check_settings
from dragstudy.pipelines.engineered import DRAG_OPTIONS, engineered
from dragstudy.pipelines.latent import LatentDragPipeline, OutsideMask, choose_settings
from dragstudy.pipelines.object_masks import (
    Placement,
    appearance_regions,
    centre_of,
    check_object,
    drag_regions,
    grown,
    object_regions,
)

_SETTINGS = DragonSettings.__dataclass_fields__
_REQUEST = ("self", "image", "handle_points", "target_points", "mask")


class DragonDiffusionPipeline(LatentDragPipeline):
    """DragonDiffusion (Mou et al., ICLR 2024): guides the denoising by energies between features.

    A call drags points; `move`, `resize`, `replace_appearance` and `paste` are the paper's other tasks. Masks
    are in pixels of the images that are given.

    | paper | here |
    |---|---|
    | m_gud | around `handle_points`; `object_mask`; of another picture `reference_object_mask` |
    | m_gen | around `target_points`; where the object goes, which follows from the arguments |
    | m_share | what `mask` does not allow to change |
    | m_ref | `reference_mask` |
    | eta, w_e, w_c, w_i | `learning_rate`, `edit_weight`, `content_weight`, `inpaint_weight` |
    """

    @engineered
    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        handle_points: Any,
        target_points: Any,
        mask: Any = None,
        *,
        preset: str | None = None,
        inversion_strength: float | None = None,
        guided_share: float | None = None,
        learning_rate: float | None = None,
        guidance_scale: float | None = None,
        edit_weight: float | None = None,
        content_weight: float | None = None,
        contrast_weight: float | None = None,
        feature_blocks: tuple[str, ...] | None = None,
        feature_interpolation: str | None = None,
        round_points: bool | None = None,
        visual_attention: Attention | None = None,
        inversion_prior: bool | None = None,
        copy_start: bool | None = None,
        separate_gradients: bool | None = None,
        unguided_direction: bool | None = None,
        time_travel: int | None = None,
        sde_strength: float | None = None,
        prompt_embeds: Tensor | None = None,
        outside_mask: OutsideMask = "photograph",
        memory_device: str | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
    ) -> DragPipelineOutput | tuple:
        """Drag points of one image, or of a list of them, one after the other.

        Args:
            image: PIL, uint8 array, or float tensor `(3, h, w)` in [0, 1]; any size. A list makes a batch.
            handle_points: `(n, 2)` x, y in pixels of the image.
            target_points: `(n, 2)`; equal to its handle point it is an anchor, which is held.
            mask: `(h, w)`, 1 = may change. The rest is m_share; without a mask E_content is nothing.
            preset: `"paper"`, `"code"`, `"tiny"`, or a time of InstantDrag's Table A1: `"10s"` (50 steps),
                `"5s"` (20), `"1s"` (3); by default the pipeline's own. The arguments that follow replace its
                values, see `DragonSettings`.
            inversion_strength: Share of all DDIM steps that is inverted and denoised again, in (0, 1].
            guided_share: Share of the steps that are guided, n / N.
            learning_rate: eta.
            guidance_scale: Classifier-free guidance; of no effect without `prompt_embeds`.
            edit_weight: w_e.
            content_weight: w_c; 0 is the paper's "without content consistency guidance".
            contrast_weight: Against what was at the handle and is not at the target; the code's "w_inpaint".
            feature_blocks: Blocks whose features are compared.
            feature_interpolation: `"bilinear"` or `"nearest"`.
            round_points: Whether drags go from cell to cell of the features' grid.
            visual_attention: `"replace"`, `"concatenate"` or `"none"`.
            inversion_prior: False starts from pure noise, which belongs to an `inversion_strength` of 1.
            copy_start: Whether to copy the latents at the handle to the target before the first step.
            separate_gradients: Whether E_edit acts inside of the mask only, E_content outside only.
            unguided_direction: Whether a step's way back to noise leaves the gradient out.
            time_travel: How often every second step around the middle is taken.
            sde_strength: Share of new noise inside of the mask in steps before the middle.
            prompt_embeds: Text embedding `(1, tokens, dim)` in place of the null prompt.
            outside_mask: What stands where the mask forbids change: the `"photograph"`, what the
                `"autoencoder"` makes of it, or what the `"method"` does.
            memory_device: Where the memory bank keeps keys and values; by default with the U-Net.
            num_inference_steps: Steps of DDIM from noise to picture.
            generator: Source of new noise, which `inversion_prior=False` and `sde_strength` need; one, or one
                for each image.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: Whether to return a `DragPipelineOutput` or the tuple `(images, None)`.
            callback_on_step_end: Called as `(pipeline, step, timestep, tensors)` after every step of the
                inversion and of the denoising; setting `pipeline._interrupt = True` ends both.

        Raises:
            ValueError: If an argument cannot be used; the sentence says what was given and what is allowed.
        """
        given = locals()
        settings, shared = _sorted_options(
            self.config.preset, "drag", {name: given[name] for name in given if name not in _REQUEST}
        )
        requests, _ = self.check_inputs(image, handle_points, target_points, mask, self.config.working_area)
        jobs = [
            Job(one, None if one.drags.anchors.all() else drag_regions(one, rounded=settings.round_points))
            for one in requests
        ]
        return edit_jobs(self, jobs, settings, **shared)

    @torch.no_grad()
    def move(
        self,
        image: Any,
        object_mask: Any,
        displacement: Any,
        mask: Any = None,
        *,
        scale: float = 1.0,
        reference_mask: Any = None,
        **options: Any,
    ) -> DragPipelineOutput | tuple:
        """Move an object within its picture, and paint what it leaves.

        Args:
            image: As in a call.
            object_mask: m_gud, `(h, w)`, 1 = the object.
            displacement: (x, y) in pixels from where the object is to where it goes.
            mask: `(h, w)`, 1 = may change; by default the object's old and new place with a margin.
            scale: Growth of the object around its centre, gamma.
            reference_mask: m_ref, `(h, w)`: what the left place should look like; by default all of m_share.
            options: As in a call, and `inpaint_weight`.

        Raises:
            ValueError: As in a call; and if the object is empty, leaves the picture, or grows by nothing.
        """
        settings, shared = _sorted_options(self.config.preset, "move", options)
        photo = load_image(image)
        found = check_object(object_mask, photo.size, "object_mask")
        placement = _place(centre_of(found), np.asarray(displacement, dtype=np.float64), scale, photo.size)
        reference = None
        if reference_mask is not None:
            reference = check_object(reference_mask, photo.size, "reference_mask")
        request = self._request(photo, np.maximum(found, placement.mask(found, photo.size)), mask)
        regions = None
        if scale != 1 or np.any(placement.origin != placement.centre):
            regions = object_regions(
                request, found, placement, request.fit, moved=True, reference_mask=reference
            )
        return edit_jobs(self, [Job(request, regions)], settings, **shared)

    def resize(
        self, image: Any, object_mask: Any, scale: float, mask: Any = None, **options: Any
    ) -> DragPipelineOutput | tuple:
        """Make an object larger or smaller, around its centre, and paint what it leaves; see `move`."""
        return self.move(image, object_mask, (0, 0), mask, scale=scale, **options)

    @torch.no_grad()
    def replace_appearance(
        self,
        image: Any,
        object_mask: Any,
        reference_image: Any,
        reference_object_mask: Any,
        mask: Any = None,
        **options: Any,
    ) -> DragPipelineOutput | tuple:
        """Give an object the look of another one, of the same kind, in another picture; its shape stays.

        Args:
            image: As in a call.
            object_mask: m_gen, `(h, w)`, 1 = the object.
            reference_image: Shows the other object; of any size.
            reference_object_mask: m_gud, `(h, w)` of that image.
            mask: `(h, w)`, 1 = may change; by default the object with a margin.
            options: As in a call.
        """
        settings, shared = _sorted_options(self.config.preset, "appearance", options)
        photo, other = load_image(image), load_image(reference_image)
        found = check_object(object_mask, photo.size, "object_mask")
        looks = check_object(reference_object_mask, other.size, "reference_object_mask")
        request = self._request(photo, found, mask)
        guide = self._request(other, looks, looks)
        regions = appearance_regions(request, found, looks, guide.fit)
        return edit_jobs(self, [Job(request, regions, guide)], settings, **shared)

    @torch.no_grad()
    def paste(
        self,
        image: Any,
        reference_image: Any,
        reference_object_mask: Any,
        centre: Any,
        mask: Any = None,
        *,
        scale: float = 1.0,
        **options: Any,
    ) -> DragPipelineOutput | tuple:
        """Put an object of another picture into this one.

        Args:
            image: As in a call.
            reference_image: Shows the object; of any size.
            reference_object_mask: m_gud, `(h, w)` of that image, 1 = the object.
            centre: (x, y) in pixels of `image` that the centre of the object goes to.
            mask: `(h, w)`, 1 = may change; by default the object's place with a margin.
            scale: Pixels of `image` for a pixel of `reference_image`.
            options: As in a call.
        """
        settings, shared = _sorted_options(self.config.preset, "paste", options)
        photo, other = load_image(image), load_image(reference_image)
        found = check_object(reference_object_mask, other.size, "reference_object_mask")
        origin = centre_of(found)
        placement = replace(
            _place(np.asarray(centre, dtype=np.float64), np.zeros(2), scale, photo.size), origin=origin
        )
        request = self._request(photo, placement.mask(found, photo.size), mask)
        guide = self._request(other, found, found)
        regions = object_regions(request, found, placement, guide.fit, moved=False)
        return edit_jobs(self, [Job(request, regions, guide)], settings, **shared)

    def _request(self, image: Image.Image, changes: np.ndarray, mask: Any = None) -> Request:
        """A picture with the mask of what may change; by default an object's places with a margin."""
        centre = [np.clip(centre_of(changes), 0, np.array(image.size) - 1)]
        area = self.config.working_area
        request = make_request(image, centre, centre, changes if mask is None else mask, area)
        if mask is not None:
            return request
        return make_request(image, centre, centre, grown(changes, request.fit), area)


def _sorted_options(
    preset: str, task: str, options: Mapping[str, Any]
) -> tuple[DragonSettings, dict[str, Any]]:
    """The settings among a call's options, on top of their preset's, and the other options.

    Raises:
        ValueError: If drags are to be split or added to, and the task has none.
    """
    if unfit := [name for name in DRAG_OPTIONS if name in options]:
        raise ValueError(f"{unfit[0]} is for drags: moving, replacing and pasting objects have none")
    given = {name: value for name, value in options.items() if name in _SETTINGS}
    shared = {name: value for name, value in options.items() if name not in (*_SETTINGS, "preset")}
    presets = {name: tasks[task] for name, tasks in PRESETS.items()}
    settings = choose_settings(presets, options.get("preset") or preset, given)
    check_settings(settings)
    return settings, shared


def _place(origin: np.ndarray, displacement: np.ndarray, scale: float, size: tuple[int, int]) -> Placement:
    """Where an object goes whose centre is at `origin`.

    Raises:
        ValueError: If its centre would leave the picture, or it would grow by nothing.
    """
    centre = origin + displacement
    if centre.shape != (2,) or not ((centre >= -0.5) & (centre <= np.array(size) - 0.5)).all():
        raise ValueError(f"the object's centre must stay in the {size[0]}x{size[1]} picture, got {centre}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return Placement(origin, centre, scale)
