"""Appearance encoder: what a U-Net sees in the photograph, for another U-Net's self-attention to look at.

LightningDrag, Sec. 4.2.2. It takes clean latents, so it runs once an edit, whatever the number of steps.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from dragstudy.attention import self_attention_layers

TIMESTEP = 0  # of clean latents


class AppearanceEncoder(ModelMixin, ConfigMixin):
    """A text-to-image U-Net of which only the inputs of the self-attention layers are wanted.

    What comes after the last of them is cut off, as in the published one: the rest of the block that it is
    in, later blocks, and the output layers.

    Args:
        unet_config: The configuration of a `UNet2DConditionModel`.
    """

    @register_to_config
    def __init__(self, unet_config: dict[str, Any]):
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(unet_config)
        _cut(self.unet)

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel) -> "AppearanceEncoder":
        """Start from a text-to-image U-Net's weights; it is left as it was."""
        kept = {key: value for key, value in unet.config.items() if not key.startswith("_")}
        encoder = cls({**kept, "_class_name": type(unet).__name__})
        wanted = encoder.unet.state_dict()
        encoder.unet.load_state_dict(
            {key: value for key, value in copy.deepcopy(unet.state_dict()).items() if key in wanted}
        )
        return encoder

    def forward(
        self, latents: Float[Tensor, "b c h w"], prompt_embeds: Float[Tensor, "b tokens dim"]
    ) -> dict[str, Float[Tensor, "b n d"]]:
        """By the name of each self-attention layer, what goes into it, `(b, tokens, channels)`.

        Args:
            latents: Scaled latents of the photograph, without noise.
            prompt_embeds: The null prompt.
        """
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: tuple) -> None:
                seen[name] = args[0]

            return hook

        layers = self_attention_layers(self.unet)
        hooks = [self.unet.get_submodule(name).register_forward_pre_hook(keep(name)) for name in layers]
        try:
            self.unet(latents, TIMESTEP, prompt_embeds, return_dict=False)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def keys_and_values(
    unet: UNet2DConditionModel, features: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """What `unet`'s own projections make of the features of an appearance encoder: K_ref and V_ref of Eq. 3.

    The layers of both must have the same names and widths. They do not depend on the step of an edit.
    """
    found = {}
    for name, feature in features.items():
        layer = unet.get_submodule(name)
        feature = feature.to(unet.dtype)
        found[name] = (layer.to_k(feature), layer.to_v(feature))
    return found


class _Nothing(nn.Module):
    """In place of a layer whose output nobody reads."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros_like(hidden_states)


def _cut(unet: UNet2DConditionModel) -> None:
    """Take away what follows the last self-attention layer's input."""
    _, block, _, attention, _, layer, _ = self_attention_layers(unet)[-1].split(".")
    unet.up_blocks = unet.up_blocks[: int(block) + 1]
    last = unet.up_blocks[int(block)]
    last.upsamplers = None
    transformer = last.attentions[int(attention)]
    final = transformer.transformer_blocks[int(layer)]
    final.attn1, final.ff = _Nothing(), _Nothing()
    final.norm2 = final.attn2 = None
    final.norm3 = transformer.proj_out = nn.Identity()
    unet.conv_norm_out, unet.conv_act, unet.conv_out = None, None, nn.Identity()
