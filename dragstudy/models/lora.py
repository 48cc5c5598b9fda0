"""Low-rank adapters (LoRA) on a U-Net: what fine-tuning on one video and distillation to few steps train.

A layer's weight W is kept, and (alpha / r) B A is added to it, with A `(r, in)` and B `(out, r)` (Hu et al.
2021); for a convolution, A has its kernel and B is 1 x 1. B starts at zero, so the first training step
computes what the U-Net computed. The adapters are peft's, put in and stored in the way of diffusers.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
# InstantDrag, App. A: "selected convolutional and attention layers", as in LCM-LoRA (Luo et al. 2023). These
# are LCM-LoRA's; the first convolution is not among them.
LORA_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),  # attention
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
)
BASE_KEY = "base"  # beside diffusers' own metadata


def add_lora(
    unet: UNet2DConditionModel,
    *,
    rank: int = 8,
    layers: Sequence[str] = LORA_LAYERS,
    generator: torch.Generator,
    adapter_name: str = "default",
) -> None:
    """Freeze a U-Net and add adapters to it, which alone remain trainable; its output stays as it was.

    Args:
        unet: Changed in place.
        rank: r; alpha is the same, so that the adapters count fully.
        layers: Ends of the names of linear layers and convolutions.
        generator: Of the first values of A.
        adapter_name: Name for diffusers' and peft's methods.

    Raises:
        ValueError: If `rank` is less than 1, or no layer has such a name.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if not any(name == end or name.endswith(f".{end}") for name, _ in unet.named_modules() for end in layers):
        raise ValueError(f"the U-Net has no layer named {', '.join(layers) or 'nothing'}")
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers))
    with torch.random.fork_rng(devices=[]):  # peft draws first values from torch's own generator
        unet.add_adapter(config, adapter_name)
    for name, weight in unet.named_parameters():
        weight.requires_grad_("lora_" in name)
        if "lora_A" in name:
            nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)  # peft's, from our generator


def save_lora(
    unet: UNet2DConditionModel,
    folder: Path,
    adapter_name: str = "default",
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a U-Net's adapters to `folder / LORA_FILE` in half precision, as diffusers reads them.

    A few weights of the U-Net go into the file's metadata, so that it is not put onto another one; `notes`
    are more of the metadata.
    """
    # diffusers' own `save_lora_adapter` takes neither another precision nor weights in channels-last order
    state = get_peft_model_state_dict(unet, adapter_name=adapter_name)
    config = unet.peft_config[adapter_name].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    metadata = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True)}
    metadata |= {**(notes or {}), BASE_KEY: json.dumps(signature(unet))}
    path = Path(folder) / LORA_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous().cpu() for key, value in state.items()}, path, metadata)
    return path


def load_lora(unet: UNet2DConditionModel, folder: Path, adapter_name: str = "default") -> None:
    """Put adapters that `save_lora` wrote onto a U-Net, in its own precision, in place of any of that name.

    `folder` may also be the file itself.

    Raises:
        ValueError: If there are none, or they were trained on another U-Net.
    """
    path = Path(folder) if Path(folder).is_file() else Path(folder) / LORA_FILE
    if not path.is_file():
        raise ValueError(f"no fine-tuned weights in {folder}: it holds no {LORA_FILE}")
    with safe_open(path, "pt") as file:
        trained_on = torch.tensor(json.loads(file.metadata().get(BASE_KEY, "[]")))
    here = torch.tensor(signature(unet))
    # a hundredth is more than half precision and bfloat16 lose, and less than any training changes
    if trained_on.shape != here.shape or (here - trained_on).abs().max() > 0.01 * here.abs().max():
        raise ValueError(f"{folder} was fine-tuned from another U-Net: load the method and weights it is of")
    _attach(unet, adapter_name, str(path.parent), prefix=None, weight_name=path.name)


def load_published_lora(unet: UNet2DConditionModel, file: Path, adapter_name: str = "default") -> None:
    """Put a LoRA of others onto a Stable Diffusion U-Net, in place of any of that name.

    The names of diffusers (`unet.down_blocks.0...`) and of kohya-ss (`lora_unet_down_blocks_0_...`, with its
    `alpha`) are understood; published LCM-LoRAs have the second. What a file holds for a text encoder is left
    out: none is used here. A U-Net with more input channels than Stable Diffusion's takes the same LoRAs,
    unless they change its first convolution.

    Raises:
        ValueError: If the file has nothing for a U-Net, or not for one of these layers and widths.
    """
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(load_file(file))
    state = {key: value for key, value in state.items() if key.startswith("unet.")}
    alphas = {key: value for key, value in (alphas or {}).items() if key.startswith("unet.")}
    if not state:
        raise ValueError(f"{file} holds no LoRA of a U-Net")
    _check_shapes(unet, {key.removeprefix("unet."): value for key, value in state.items()}, file)
    _attach(unet, adapter_name, state, prefix="unet", network_alphas=alphas or None)


def _check_shapes(unet: UNet2DConditionModel, state: dict[str, Tensor], file: Path) -> None:
    """Refuse adapters that fit no layer: peft would leave them out, or fail in words of its own."""
    layers = dict(unet.named_modules())
    for key, value in convert_unet_state_dict_to_peft(dict(state)).items():
        name, _, factor = key.removesuffix(".weight").rpartition(".lora_")
        layer = layers.get(name)
        weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
        side = {"A": 1, "B": 0}.get(factor)  # A has the layer's inputs, B its outputs
        if weight is None or side is None or value.shape[side] != weight.shape[side]:
            raise ValueError(f"{file} is of another U-Net: it has {key} {tuple(value.shape)}")


def _attach(unet: UNet2DConditionModel, adapter_name: str, *args: Any, **options: Any) -> None:
    """`load_lora_adapter` in the U-Net's own precision; the new adapters alone are active."""
    if adapter_name in getattr(unet, "peft_config", {}):
        unet.delete_adapters(adapter_name)
    with warnings.catch_warnings():  # that others are there already is no mistake
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        unet.load_lora_adapter(*args, adapter_name=adapter_name, **options)
    place = unet.device, unet.dtype  # the file is in half precision; these look through all the weights
    for name, weight in unet.named_parameters():
        if f".{adapter_name}." in name:
            weight.data = weight.data.to(*place)
    unet.set_adapter(adapter_name)


def signature(unet: UNet2DConditionModel, count: int = 16) -> list[float]:
    """Some weights spread over a U-Net's first convolution: they differ between any two trainings."""
    layer = getattr(unet.conv_in, "base_layer", unet.conv_in)
    weights = layer.weight.detach().flatten().float().cpu()
    return weights[torch.linspace(0, len(weights) - 1, count).long()].tolist()
