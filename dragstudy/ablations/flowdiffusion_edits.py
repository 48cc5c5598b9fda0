"""Edits by a FlowDiffusion that is told the true flow, and how much of the motion arrives."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from dragstudy.data.people import FaceLandmarks
from dragstudy.flow import resize_flow
from dragstudy.images import to_tensor
from dragstudy.metrics.delivery import landmark_motion
from dragstudy.metrics.evaluate import landmark_drags, measure_edit
from dragstudy.metrics.perceptual import lpips_model
from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.models.flowgen import FlowGen
from dragstudy.pipelines.base import Request
from dragstudy.pipelines.instantdrag import InstantDragPipeline
from dragstudy.training.flowdiffusion import sample_as_fixed
from dragstudy.training.precision import fast_autocast

MEASURED = ("psnr", "ssim", "lpips", "landmark_distance", "background_change")


class SampleWiseInstantDrag(InstantDragPipeline):
    """InstantDrag whose FlowDiffusion was trained on flows that were normalised sample by sample."""

    def prepare_conditions(self, requests: list[Request], flow: Tensor, rows: tuple) -> Tensor:
        """Condition channels as `InstantDragPipeline` makes them, of the shape of the flow alone."""
        size = tuple(side // 8 for side in flow.shape[-2:])
        return super().prepare_conditions(
            requests, sample_as_fixed(resize_flow(flow, size, mode="area")), rows
        )


def make_editor(
    unet: UNet2DConditionModel, autoencoder: AutoencoderTiny, *, flow_scale: float, normalization: str
) -> InstantDragPipeline:
    """A pipeline around a FlowDiffusion; flows must be given, its FlowGen is an untrained one."""
    cls = {"fixed": InstantDragPipeline, "sample": SampleWiseInstantDrag}[normalization]
    pipe = cls(
        autoencoder=autoencoder,
        unet=unet.to(memory_format=torch.channels_last),
        flowgen=FlowGen(8, 3, norm_groups=4).eval(),
        null_prompt=NullPrompt(),
        scheduler=make_scheduler(),
        flow_scale=flow_scale,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edit_pair(pipe: InstantDragPipeline, item: Mapping[str, Any], **options: Any) -> Tensor:
    """Edit a pair's source by its own masked flow; `(1, 3, h, w)` in [0, 1], in steps of 1/255.

    In half precision where that is quick: 0.3 grey levels of difference for two thirds of the time.
    """
    handles, targets = landmark_drags(item)  # they only have to be there: the flow says all
    flow = (item["flow"] * item["mask"])[None]
    generator = torch.Generator().manual_seed(0)
    with fast_autocast(pipe.device):
        made = pipe(item["source"], handles, targets, flow=flow, generator=generator, **options)
    return to_tensor(made.images[0])


def measure_pair(
    edited: Tensor,
    item: Mapping[str, Any],
    detector: Callable[[np.ndarray], np.ndarray | None],
    lpips: nn.Module | None = None,
) -> dict[str, Any]:
    """Measure an edit of a pair.

    Returns:
        `key`; `MEASURED`, as in `dragstudy.metrics.evaluate.evaluate_edits`; `motion`, the mean way of the
        landmarks from source to target in pixels; `delivered` and `asked`, `landmark_motion` of the edit and
        of the target itself, in square pixels: a ratio of 1 of their means delivers everything, and less or
        more is too small or too large. NaN where no face is found.
    """
    found = detector((edited[0] * 255).round().byte().permute(1, 2, 0).numpy())
    begin, end = (np.asarray(item[name], np.float64) for name in ("landmarks", "target_landmarks"))
    measured = measure_edit(edited, item, lambda _: found, lpips)
    return {
        "key": item["key"],
        **{name: measured[name] for name in MEASURED},
        "motion": float(np.linalg.norm(end - begin, axis=1).mean()),
        "delivered": float("nan") if found is None else landmark_motion(found - begin, end - begin),
        "asked": landmark_motion(end - begin, end - begin),
    }


@cache
def measuring_networks() -> tuple[FaceLandmarks, nn.Module]:
    """The face detector and LPIPS, loaded once a process.

    Raises:
        AssetMissing: If an asset was not fetched.
    """
    return FaceLandmarks(), lpips_model("alex")
