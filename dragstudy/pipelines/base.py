"""What every editing method shares: how a request is read and checked, and how a result is given back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.flow import resize_flow
from dragstudy.images import Fit, composite, load_image, to_pil, to_tensor
from dragstudy.interpolation import Interpolation, interpolate_drags
from dragstudy.models.autoencoder import decode, encode
from dragstudy.pipelines.detail import compose, transfer


@dataclass
class DragPipelineOutput(BaseOutput):
    """What a drag pipeline returns.

    Attributes:
        images: Edited images of the input's size: PIL (`output_type="pil"`), or uint8 arrays `(h, w, 3)`
            (`"np"`), or float tensors `(3, h, w)` in [0, 1] (`"pt"`).
        flow: The dense flow of each image in pixels of that image, tensors `(1, 2, h, w)`; None where the
            method has no flow.
        handle_points: Where the method says the handle points are now, `(n, 2)` arrays in pixels of each
            image; None where it does not say.
        trajectories: Where they were before and after each iteration, `(iterations + 1, n, 2)`, for methods
            that track them.
        drags: What was carried out where `extra_points` were asked for: the given drags, then the suggested.
    """

    images: list[Any]
    flow: list[Tensor] | None = None
    handle_points: list[np.ndarray] | None = None
    trajectories: list[np.ndarray] | None = None
    drags: list[DragInstruction] | None = None


@dataclass(frozen=True)
class Request:
    """One image and what is asked of it, at the image's own size and at the size it is worked at.

    Attributes:
        image: The photograph, RGB.
        drags: Drags and mask in pixels of the photograph.
        fit: The way between the two sizes.
        working_image: `(1, 3, h, w)` in [0, 1].
        working_drags: Drags and mask in pixels of the working size.
    """

    image: Image.Image
    drags: DragInstruction
    fit: Fit
    working_image: Tensor
    working_drags: DragInstruction


class DragPipeline(DiffusionPipeline):
    """Base of the editing methods: reads requests, gives images back."""

    _callback_tensor_inputs: Sequence[str] = ()
    _num_timesteps = 1
    _num_rounds = 1

    @property
    def num_timesteps(self) -> int:
        """How many steps the running or the last call has, over all its phases and rounds.

        `callback_on_step_end` is called once for each, with 0 to `num_timesteps - 1`; the number falls when
        steps turn out not to be needed.
        """
        return self._num_rounds * self._num_timesteps

    def check_inputs(
        self, image: Any, handle_points: Any, target_points: Any, mask: Any, working_area: int
    ) -> tuple[list[Request], bool]:
        """Turn the arguments of a call into requests; also tell whether they were a batch.

        A list of images makes a batch; points and masks are then lists of the same length.

        Raises:
            ValueError: If an image cannot be read, points do not fit it, or the lists differ in length.
        """
        is_batch = isinstance(image, list | tuple) or (isinstance(image, Tensor) and image.ndim == 4)
        if not is_batch:
            return [make_request(image, handle_points, target_points, mask, working_area)], False
        masks = [None] * len(image) if mask is None else mask
        names = ("images", "handle_points", "target_points", "masks")
        parts = (image, handle_points, target_points, masks)
        lengths = [len(part) if hasattr(part, "__len__") else 0 for part in parts]
        if len(set(lengths)) != 1 or not lengths[0]:
            counted = ", ".join(f"{length} {name}" for length, name in zip(lengths, names, strict=True))
            raise ValueError(f"each image of a batch needs its points, and its mask if any, got {counted}")
        requests = [make_request(*one, working_area) for one in zip(*parts, strict=True)]
        sizes = {request.fit.working_size for request in requests}
        if len(sizes) > 1:
            raise ValueError(
                f"the images of a batch must fit one working size, got {sorted(sizes)}: "
                "call once for each shape"
            )
        return requests, True

    def check_sampling(self, num_inference_steps: int, tensor_inputs: Sequence[str]) -> None:
        """Refuse a number of steps or names of the callback's tensors that cannot be used.

        Raises:
            ValueError: The sentence says what was given and what is allowed.
        """
        if not isinstance(num_inference_steps, int | np.integer) or num_inference_steps < 1:
            raise ValueError(
                f"num_inference_steps must be a whole number and at least 1, got {num_inference_steps}"
            )
        if unknown := set(tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs must be of {', '.join(self._callback_tensor_inputs)}, "
                f"got {', '.join(sorted(unknown))}"
            )

    def fit_flow(self, flow: Tensor, requests: Sequence[Request]) -> Tensor:
        """Bring a flow that was given, in pixels of its own grid, to the working size: `(b, 2, h, w)`.

        Raises:
            ValueError: If it is not one flow an image.
        """
        if flow.ndim != 4 or tuple(flow.shape[:2]) != (len(requests), 2):
            raise ValueError(f"flow must have the shape ({len(requests)}, 2, h, w), got {tuple(flow.shape)}")
        width, height = requests[0].fit.working_size
        return resize_flow(flow.float(), (height, width))

    def predict_flow(self, requests: Sequence[Request]) -> Tensor:
        """Dense flow of each request, `(b, 2, h, w)` in pixels of the working size.

        For a method without a flow of its own it is the thin plate through the drags.
        """
        return interpolated_flow(requests)

    def reconstruct(self, requests: Sequence[Request]) -> Tensor:
        """The working images through the autoencoder and back, `(b, 3, h, w)` in [0, 1].

        `finish` wants it for `detail="transfer"`.
        """
        images = 2 * torch.cat([request.working_image for request in requests]) - 1
        return self.decode_latents(
            encode(self.autoencoder, images.to(self._execution_device, self.autoencoder.dtype))
        )

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images `(b, 3, h, w)` in [0, 1], at the working size, of scaled latents."""
        images = decode(self.autoencoder, latents.to(self.autoencoder.dtype)).float().cpu()
        return (images / 2 + 0.5).clamp(0, 1)

    def finish(
        self,
        requests: Sequence[Request],
        edited: Tensor,
        flow: Tensor | None,
        output_type: str,
        return_dict: bool,
        detail: str = "none",
        reconstructed: Tensor | None = None,
        composited: bool = True,
    ) -> DragPipelineOutput | tuple:
        """Bring edited images `(b, 3, h, w)` in [0, 1] and flow `(b, 2, h, w)` back to the photographs.

        `detail` is that of `dragstudy.pipelines.detail` and needs the flow; `"transfer"` needs what
        `reconstruct` gives, too. Where a mask forbids change, the photograph's own pixels are returned,
        unless `composited` is off.
        """
        images = []
        for k, (request, result) in enumerate(zip(requests, edited, strict=True)):
            image = request.fit.image_back(result)
            if detail != "none":
                photo, large = to_tensor(request.image), to_tensor(image)
                if detail == "transfer":
                    copy = to_tensor(request.fit.image_back(reconstructed[k]))
                    image = to_pil(transfer(photo, large, copy, flow[k : k + 1]))
                else:
                    image = to_pil(compose(photo, large, flow[k : k + 1]))
            if request.drags.mask is not None and composited:
                image = composite(request.image, image, request.drags.mask)
            images.append(as_type(image, output_type))
        flows = None
        if flow is not None:
            flows = [request.fit.flow_back(f[None]) for request, f in zip(requests, flow, strict=True)]
        return DragPipelineOutput(images=images, flow=flows) if return_dict else (images, flows)


def make_request(image: Any, handle_points: Any, target_points: Any, mask: Any, working_area: int) -> Request:
    """Read one image, its drags and its mask."""
    photo = load_image(image)
    drags = DragInstruction(handle_points, target_points, mask, photo.size)
    fit = Fit.plan(photo.size, area=working_area)
    return Request(photo, drags, fit, fit.image(photo), drags.resize(fit.working_size))


def interpolated_flow(requests: Sequence[Request], interpolation: Interpolation = "thin_plate") -> Tensor:
    """Flow through the drags of each request, `(b, 2, h, w)` in working pixels; the mask holds still."""
    flows = []
    for request in requests:
        width, height = request.fit.working_size
        flow = interpolate_drags(request.working_drags, (height, width), interpolation)
        mask = request.working_drags.mask
        flows.append(flow if mask is None else flow * torch.from_numpy(mask))
    return torch.cat(flows)


def check_output_type(output_type: str) -> None:
    """Refuse an unknown `output_type` before anything is computed."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")


def as_type(image: Image.Image, output_type: str) -> Image.Image | np.ndarray | Tensor:
    """A picture as `"pil"`, `"np"` or `"pt"`, see `DragPipelineOutput`."""
    if output_type == "pil":
        return image
    array = np.array(image)
    return array if output_type == "np" else torch.from_numpy(array).permute(2, 0, 1).float() / 255
