"""Tiny real components, pictures and pairs that tests share; weights come from torch's seed at the time."""

import numpy as np
import torch
from diffusers import AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.autoencoder import make_autoencoder
from dragstudy.models.backbone import NullPrompt, make_inpainting_scheduler, make_scheduler
from dragstudy.models.flowdiffusion import make_flowdiffusion
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.inpainting import make_inpainting
from dragstudy.models.points import PointEmbedding, attention_levels
from dragstudy.pipelines import InstantDragPipeline, LightningDragPipeline


def tiny_autoencoder(latent_channels: int = 4) -> AutoencoderTiny:
    return make_autoencoder(latent_channels, width=8).eval()


def tiny_backbone(latent_channels: int = 4) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=64,
    ).eval()


def tiny_flowdiffusion(variant: str = "concat") -> UNet2DConditionModel:
    """FlowDiffusion whose conditions already have weight, as after some training."""
    unet = make_flowdiffusion(tiny_backbone(), variant)
    nn.init.normal_(unet.conv_in.weight, std=0.1)
    return unet.eval()


def tiny_flowgen(prior: bool = False) -> FlowGen:
    return FlowGen(base_channels=8, num_downs=3, norm_groups=4, prior=prior).eval()


def tiny_instantdrag(variant: str = "concat") -> InstantDragPipeline:
    """InstantDrag on 64 x 64 pixels."""
    pipe = InstantDragPipeline(
        autoencoder=tiny_autoencoder(),
        unet=tiny_flowdiffusion(variant),
        flowgen=tiny_flowgen(),
        null_prompt=NullPrompt(),
        scheduler=make_scheduler(),
        flow_scale=8.0,
        working_area=64 * 64,
        flowgen_area=64 * 64,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_inpainting() -> UNet2DConditionModel:
    """An inpainting U-Net whose mask and masked latents already have weight."""
    unet = make_inpainting(tiny_backbone())
    nn.init.normal_(unet.conv_in.weight, std=0.1)
    return unet.eval()


def tiny_points(unet: UNet2DConditionModel, maps: str = "identifiers") -> PointEmbedding:
    """A point embedding whose points already have weight."""
    widths = (4, 8, 8, 16, 16, 16, 16) if maps == "identifiers" else (16, 16, 16, 16)
    points = PointEmbedding(attention_levels(unet), maps, widths).eval()
    for projection in points.projections.values():
        nn.init.normal_(projection.weight)
    return points


def tiny_lightningdrag(
    maps: str = "identifiers", scheduler: SchedulerMixin | None = None
) -> LightningDragPipeline:
    """LightningDrag on 64 x 64 pixels."""
    unet = tiny_inpainting()
    pipe = LightningDragPipeline(
        autoencoder=tiny_autoencoder(),
        unet=unet,
        appearance_encoder=AppearanceEncoder.from_unet(tiny_backbone()).eval(),
        point_embedding=tiny_points(unet, maps),
        null_prompt=NullPrompt(),
        scheduler=scheduler or make_inpainting_scheduler(),
        working_area=64 * 64,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(width: int, height: int, phase: float = 0.0) -> Image.Image:
    """A smooth colourful image."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 5 + phase), np.cos(y / 7), np.sin((x + y) / 9 - phase)]
    return Image.fromarray(np.rint(127.5 + 127 * np.stack(waves, axis=-1)).astype(np.uint8))


def pair_batch(count: int = 2, size: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """A collated batch as `PairDataset` gives it; a disc moves, and everything differs from pair to pair."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = size / 2 + 8 * (torch.rand(count, 2, 1, 1, generator=generator) - 0.5)
    mask = ((x - centre[:, :1]) ** 2 + (y - centre[:, 1:]) ** 2 < (size / 3) ** 2).float()
    shift = 4 * torch.randn(count, 2, 1, 1, generator=generator)
    turn = 0.1 * torch.stack([y - size / 2, size / 2 - x]).float()
    pictures = [
        picture(size, size, phase) for phase in torch.rand(2 * count, generator=generator).mul(6).tolist()
    ]
    images = torch.stack([torch.from_numpy(np.array(image)) for image in pictures]).permute(0, 3, 1, 2) / 255
    return {
        "source": images[:count],
        "target": images[count:],
        "mask": mask,
        "target_mask": mask.roll(2, dims=3),
        "valid": torch.ones_like(mask),
        "flow": shift + turn,
        "landmarks": size * (0.2 + 0.6 * torch.rand(count, 68, 2, generator=generator)),
        "target_landmarks": size * (0.2 + 0.6 * torch.rand(count, 68, 2, generator=generator)),
    }
