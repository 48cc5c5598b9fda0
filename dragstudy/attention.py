"""Looking into a U-Net's self-attention, and handing it other keys and values, for the length of a `with`.

Four methods rest on it: DragDiffusion's code lets an edit attend to the photograph, DragonDiffusion to what
the inversion of the photograph kept, LightningDrag to a second network, and a memory bank needs to be filled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # importing diffusers takes seconds, and first needs dragstudy._torchvision
    from diffusers import UNet2DConditionModel

# (layer, query, key, value), each (b, tokens, dim) before the heads are split -> query, key, value
Exchange = Callable[[str, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def self_attention_layers(unet: "UNet2DConditionModel", blocks: Sequence[str] = ("",)) -> list[str]:
    """Names of the self-attention layers in some blocks, in the order in which they run.

    Args:
        unet: Any `UNet2DConditionModel`.
        blocks: Starts of module names, such as `"up_blocks"` (the whole decoder) or `"up_blocks.2"`; all
            layers by default.

    Example:
        Stable Diffusion 1.5 has 16: six on the way down, one in the middle, nine on the way up. DragDiffusion
        counts them from 0, and its "start layer 10" is the first of `"up_blocks.2"`.
    """
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn1")]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    names.sort(key=lambda name: order[name.split(".")[0]])  # stable: inside a part they are in order
    return [name for name in names if any(f"{name}.".startswith(_with_dot(block)) for block in blocks)]


@contextmanager
def exchange_attention(
    unet: "UNet2DConditionModel", layers: Sequence[str], exchange: Exchange
) -> Iterator[None]:
    """Within it, some self-attention layers use the queries, keys and values that `exchange` gives back.

    The number of key tokens may change. The processors that were there before return, however it ends.

    Args:
        unet: Changed within the `with` only.
        layers: Names of self-attention layers, see `self_attention_layers`.
        exchange: From `(layer, query, key, value)`, each `(b, tokens, dim)`, to the three that are used.

    Raises:
        ValueError: If the U-Net has no such layer.
    """
    modules = dict(unet.named_modules())
    if unknown := [name for name in layers if not name.endswith(".attn1") or name not in modules]:
        raise ValueError(
            f"layers must be self-attention layers, such as {', '.join(self_attention_layers(unet)[:2])}; "
            f"got {', '.join(unknown)}"
        )
    before = {name: modules[name].processor for name in layers}
    try:
        for name in layers:
            modules[name].processor = _Exchanging(name, exchange)
        yield
    finally:
        for name, processor in before.items():
            modules[name].processor = processor


def keep_keys_and_values(memory: dict[str, tuple[Tensor, Tensor]], device: Any = None) -> Exchange:
    """An exchange that changes nothing and puts each layer's keys and values into `memory`, on `device`."""

    def exchange(layer: str, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory[layer] = (key.detach().to(device or key.device), value.detach().to(device or key.device))
        return query, key, value

    return exchange


def attend_to_first(layer: str, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The exchange of mutual self-attention (Cao et al. 2023): all rows see the first row's content."""
    return query, key[:1].expand_as(key), value[:1].expand_as(value)


def attend_to_reference(
    references: Mapping[str, tuple[Tensor, Tensor]],
    embeddings: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Exchange:
    """The exchange of reference attention, and of point-following attention (LightningDrag, Eq. 3 and 4).

    `Softmax((Q + E_tgt) [K + E_tgt, K_ref + E_hdl]^T / sqrt(d)) [V, V_ref]`; without embeddings, or where
    they are zero, Eq. 3.

    Args:
        references: By layer, K_ref and V_ref, `(b, tokens, dim)`. A batch of several rows for each image, one
            after the other, is served by repeating them.
        embeddings: By layer, E_hdl and E_tgt of the batch's rows; of more, the last are used. With the
            unconditional rows of classifier-free guidance first, a batch may also be the conditional alone.
    """

    def exchange(layer: str, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key_ref, value_ref = (
            part.to(query).repeat(len(query) // len(part), 1, 1) for part in references[layer]
        )
        if embeddings is not None:
            if (rows := len(embeddings[layer][0])) < len(query):
                raise ValueError(f"embeddings must have the batch's {len(query)} rows or more, got {rows}")
            handle, target = (part.to(query)[-len(query) :] for part in embeddings[layer])
            query, key, key_ref = query + target, key + target, key_ref + handle
        return query, torch.cat([key, key_ref], dim=1), torch.cat([value, value_ref], dim=1)

    return exchange


def keep_attention(unet: "UNet2DConditionModel", memory: dict[str, Tensor], exchange: Exchange) -> Exchange:
    """The exchange that is given, which also puts into `memory` where each layer looks.

    That is, by layer, the softmax of Eq. 3 or 4, `(b, queries, keys)`, the mean over the heads: each row sums
    to 1. It is computed beside the U-Net's own, so this is for looking, not for editing.

    Args:
        unet: Whose layers are exchanged.
        memory: Filled as the U-Net runs.
        exchange: What the layers use.
    """

    def kept(layer: str, *projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = exchange(layer, *projected)
        attn = unet.get_submodule(layer)
        q, k = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in (query, key))
        memory[layer] = (attn.scale * q @ k.mT).softmax(dim=3).mean(dim=1).detach()
        return query, key, value

    return kept


class _Exchanging:
    """Stable Diffusion's attention processor, with an exchange before the heads are split."""

    def __init__(self, layer: str, exchange: Exchange):
        self.layer, self.exchange = layer, exchange

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: None = None, *_: Any, **__: Any
    ) -> Tensor:
        projected = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        query, key, value = (
            part.unflatten(2, (attn.heads, -1)).transpose(1, 2)  # (b, heads, tokens, dim / heads)
            for part in self.exchange(self.layer, *projected)
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        hidden_states = attended.transpose(1, 2).flatten(2)
        for layer in attn.to_out:  # the projection, and a dropout of zero
            hidden_states = layer(hidden_states)
        return hidden_states / attn.rescale_output_factor


def _with_dot(block: str) -> str:
    return block and f"{block}."
