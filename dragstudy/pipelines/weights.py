"""The weights that live in this repository, put together into pipelines."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.backbone import (
    NullPrompt,
    make_ddim_scheduler,
    make_inpainting_scheduler,
    make_scheduler,
)
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.points import PointEmbedding
from dragstudy.pipelines.instantdrag import InstantDragPipeline
from dragstudy.pipelines.latent import LatentDragPipeline
from dragstudy.pipelines.lightningdrag import LightningDragPipeline

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "weights"
FLOW_SCALE = 8.0  # what the tiny FlowDiffusion was trained with
# While diffusers loads its own way, networks that any other thread makes are left without values.
PLAINLY = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}


def tiny_weights(name: str) -> Path:
    """Folder of one set of shipped weights.

    Raises:
        ValueError: If this installation has none of that name.
    """
    folder = WEIGHTS / name
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"the shipped weights {name!r} are not at {folder}: install from a clone with `pip install -e .`"
        )
    return folder


def tiny_instantdrag(variant: str) -> InstantDragPipeline:
    """InstantDrag with the shipped weights, in single precision; `variant` is `"concat"` or `"splat"`."""
    unet = UNet2DConditionModel.from_pretrained(tiny_weights(f"flowdiffusion-{variant}"), **PLAINLY)
    return InstantDragPipeline(
        autoencoder=AutoencoderTiny.from_pretrained(tiny_weights("autoencoder"), **PLAINLY),
        unet=unet.to(memory_format=torch.channels_last),
        flowgen=FlowGen.from_pretrained(tiny_weights("flowgen"), **PLAINLY),
        null_prompt=NullPrompt(),
        scheduler=make_scheduler(),
        flow_scale=FLOW_SCALE,
    )


def tiny_lightningdrag() -> LightningDragPipeline:
    """LightningDrag with the shipped weights, in single precision."""
    unet = UNet2DConditionModel.from_pretrained(tiny_weights("lightning/unet"), **PLAINLY)
    encoder = AppearanceEncoder.from_pretrained(tiny_weights("lightning/appearance_encoder"), **PLAINLY)
    return LightningDragPipeline(
        autoencoder=AutoencoderTiny.from_pretrained(tiny_weights("autoencoder"), **PLAINLY),
        unet=unet.to(memory_format=torch.channels_last),
        appearance_encoder=encoder.to(memory_format=torch.channels_last),
        point_embedding=PointEmbedding.from_pretrained(tiny_weights("lightning/point_embedding"), **PLAINLY),
        null_prompt=NullPrompt(),
        scheduler=make_inpainting_scheduler(),
        zoom=True,
    )


def tiny_latent(pipeline: type[LatentDragPipeline]) -> LatentDragPipeline:
    """A method that needs the backbone alone, with the shipped one, in single precision."""
    unet = UNet2DConditionModel.from_pretrained(tiny_weights("backbone"), **PLAINLY)
    return pipeline(
        autoencoder=AutoencoderTiny.from_pretrained(tiny_weights("autoencoder"), **PLAINLY),
        unet=unet.to(memory_format=torch.channels_last),
        null_prompt=NullPrompt(),
        scheduler=make_ddim_scheduler(),
        preset="tiny",
    )
