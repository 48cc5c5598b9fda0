"""Exchanged attention: which layers, what they see, and that the U-Net is afterwards what it was."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional as F
from torch.testing import assert_close

from dragstudy.attention import (
    attend_to_first,
    exchange_attention,
    keep_attention,
    keep_keys_and_values,
    self_attention_layers,
)
from dragstudy.models.backbone import NullPrompt, make_backbone

from .tiny import tiny_backbone


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_backbone()


@pytest.fixture
def latents(generator) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=generator)


def unchanged(layer, query, key, value):
    return query, key, value


@torch.no_grad()
def predict(unet: UNet2DConditionModel, latents: torch.Tensor) -> torch.Tensor:
    return unet(latents, 300, NullPrompt()(len(latents)), return_dict=False)[0]


def test_stable_diffusion_has_sixteen_layers_and_the_tenth_is_where_dragdiffusion_starts():
    with torch.device("meta"):
        layers = self_attention_layers(UNet2DConditionModel())
    assert len(layers) == 16 and len(set(layers)) == 16
    assert [layer.split(".")[0] for layer in layers] == (
        ["down_blocks"] * 6 + ["mid_block"] + ["up_blocks"] * 9
    )
    assert layers[10].startswith("up_blocks.2.attentions.0.") and layers[10].endswith(".attn1")


def test_the_tiny_backbone_has_four_layers_besides_the_middle():
    layers = self_attention_layers(make_backbone())
    blocks = [".".join(layer.split(".")[: 1 + layer[0].isalpha()]) for layer in layers]
    assert sorted(set(blocks)) == ["down_blocks.1", "down_blocks.2", "mid_block.attentions", "up_blocks.1",
                                   "up_blocks.2"]  # fmt: skip


def test_layers_are_named_in_the_order_in_which_they_run(unet, latents):
    ran = []

    def note(layer, query, key, value):
        ran.append(layer)
        return query, key, value

    layers = self_attention_layers(unet)
    with exchange_attention(unet, layers[::-1], note):
        predict(unet, latents)
    assert ran == layers


def test_layers_can_be_asked_for_by_block(unet):
    layers = self_attention_layers(unet)
    assert self_attention_layers(unet, ["up_blocks"]) == [n for n in layers if n.startswith("up_blocks")]
    assert self_attention_layers(unet, ["up_blocks.1"]) == [n for n in layers if n.startswith("up_blocks.1.")]
    assert self_attention_layers(unet, ["up_blocks.1", "down_blocks"]) == [
        n for n in layers if n.startswith(("down_blocks", "up_blocks.1."))
    ]
    assert self_attention_layers(unet, ["up_blocks.1.att"]) == []  # a block's whole name, not its beginning


def test_an_exchange_that_changes_nothing_changes_nothing(unet, latents):
    expected = predict(unet, latents)
    with exchange_attention(unet, self_attention_layers(unet), unchanged):
        found = predict(unet, latents)
    assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_gradients_are_those_of_the_network_s_own_attention(unet, latents):
    def gradient() -> torch.Tensor:
        inputs = latents.clone().requires_grad_()
        unet(inputs, 300, NullPrompt()(2), return_dict=False)[0].square().sum().backward()
        return inputs.grad

    expected = gradient()
    with exchange_attention(unet, self_attention_layers(unet), unchanged):
        assert_close(gradient(), expected, atol=1e-5, rtol=1e-5)


def processors(unet: UNet2DConditionModel) -> dict[str, int]:
    return {name: id(processor) for name, processor in unet.attn_processors.items()}


def test_the_processors_return_also_after_an_error(unet, latents):
    before = processors(unet)
    layers = self_attention_layers(unet)
    with exchange_attention(unet, layers[:2], unchanged):
        changed = {name for name, processor in processors(unet).items() if processor != before[name]}
        assert changed == {f"{layer}.processor" for layer in layers[:2]}
    assert processors(unet) == before

    def broken(layer, query, key, value):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), exchange_attention(unet, layers, broken):
        predict(unet, latents)
    assert processors(unet) == before


def test_one_exchange_can_lie_within_another(unet, latents):
    before, kept = processors(unet), {}
    first, second = self_attention_layers(unet)[:2]
    with exchange_attention(unet, [first, second], keep_keys_and_values(kept)):
        outer = processors(unet)
        with exchange_attention(unet, [second], unchanged):
            predict(unet, latents)
        assert processors(unet) == outer and list(kept) == [first]
    assert processors(unet) == before


def test_a_layer_that_sees_twice_as_many_equal_tokens_answers_the_same(unet, latents):
    expected = predict(unet, latents)

    def twice(layer, query, key, value):
        return query, torch.cat([key, key], dim=1), torch.cat([value, value], dim=1)

    with exchange_attention(unet, self_attention_layers(unet), twice):
        assert_close(predict(unet, latents), expected, atol=1e-6, rtol=1e-5)


def test_a_layer_attends_to_the_keys_and_values_that_it_is_given(unet, generator):
    layer = self_attention_layers(unet)[-1]
    attention = unet.get_submodule(layer)
    hidden = torch.randn(2, 64, 32, generator=generator)
    given = torch.randn(2, 2, 5, 32, generator=generator)
    with torch.no_grad(), exchange_attention(unet, [layer], lambda _, query, k, v: (query, *given)):
        found = attention(hidden)
        heads = (part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in given)
        key, value = heads
        query = attention.to_q(hidden).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        weights = F.softmax(query @ key.transpose(2, 3) * attention.scale, dim=3)
        expected = attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["up_blocks.0", "nowhere.attn1", "attn2"])
def test_an_unknown_layer_is_refused_by_name(unet, name):
    name = self_attention_layers(unet)[0].replace("attn1", "attn2") if name == "attn2" else name
    before = processors(unet)
    message = f"layers must be self-attention layers.*got {name}$"
    with pytest.raises(ValueError, match=message), exchange_attention(unet, [name], unchanged):
        pass
    assert processors(unet) == before


def test_attending_to_the_first_row_leaves_it_alone_and_shows_it_to_the_others(unet, latents):
    layers = self_attention_layers(unet)
    alone, plain = predict(unet, latents[:1]), predict(unet, latents)
    with exchange_attention(unet, layers, attend_to_first):
        found = predict(unet, latents)
    assert_close(found[:1], alone, atol=1e-5, rtol=1e-5)
    assert (found[1] - plain[1]).abs().max() > 1e-4
    # the same by hand: the second picture alone, with keys and values kept from a run of the first
    kept = {}
    with exchange_attention(unet, layers, keep_keys_and_values(kept)):
        predict(unet, latents[:1])
    with exchange_attention(unet, layers, lambda layer, query, key, value: (query, *kept[layer])):
        assert_close(found[1:], predict(unet, latents[1:]), atol=1e-5, rtol=1e-5)


def test_what_is_kept_has_no_gradient_and_lies_where_it_is_wanted(unet, latents):
    layers = self_attention_layers(unet)
    for device in (None, "meta"):
        kept = {}
        with exchange_attention(unet, layers, keep_keys_and_values(kept, device)):
            unet(latents, 300, NullPrompt()(2))
        assert list(kept) == layers
        for tensor in (tensor for pair in kept.values() for tensor in pair):
            assert tensor.device.type == (device or "cpu") and not tensor.requires_grad


def test_kept_attention_is_the_one_that_the_layers_use(unet, latents):
    """With values of 0 at one half of the keys and 1 at the other, the output is what the other gets."""
    layers, memory, told = self_attention_layers(unet), {}, {}

    def to_second_half(layer, query, key, value):
        marks = torch.cat([torch.zeros_like(value), torch.ones_like(value)], dim=1)
        return query, torch.cat([key, key.flip(1)], dim=1), marks

    def note(name):
        return lambda module, args: told.update({name: args[0]})

    hooks = [unet.get_submodule(f"{name}.to_out.0").register_forward_pre_hook(note(name)) for name in layers]
    with exchange_attention(unet, layers, keep_attention(unet, memory, to_second_half)):
        predict(unet, latents)
    _ = [hook.remove() for hook in hooks]
    assert list(memory) == layers
    for name, attention in memory.items():
        assert_close(attention.sum(dim=2), torch.ones(attention.shape[:2]))
        half = attention.shape[2] // 2
        assert_close(attention[..., half:].sum(dim=2), told[name].mean(dim=2), atol=1e-5, rtol=1e-5)


def test_looking_changes_nothing(unet, latents):
    expected = predict(unet, latents)
    with exchange_attention(unet, self_attention_layers(unet), keep_attention(unet, {}, unchanged)):
        assert_close(predict(unet, latents), expected, atol=1e-6, rtol=1e-6)
