"""The appearance encoder gives what goes into a U-Net's self-attention, and keys and values from it."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.attention import attend_to_reference, exchange_attention, self_attention_layers
from dragstudy.models.appearance import AppearanceEncoder, keys_and_values

from ..tiny import tiny_backbone, tiny_inpainting, tiny_points


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return tiny_backbone()


@pytest.fixture(scope="module")
def encoder(unet):
    return AppearanceEncoder.from_unet(unet).eval()


def latents(batch: int = 1, size: tuple[int, int] = (8, 12), channels: int = 4, seed: int = 0):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


PROMPT = torch.zeros(1, 1, 64)


def test_it_sees_what_the_whole_unet_sees(unet, encoder):
    seen, hooks = {}, []
    for name in self_attention_layers(unet):
        hook = lambda module, args, name=name: seen.__setitem__(name, args[0])  # noqa: E731
        hooks.append(unet.get_submodule(name).register_forward_pre_hook(hook))
    with torch.no_grad():
        unet(latents(), 0, PROMPT)
        features = encoder(latents(), PROMPT)
    for hook in hooks:
        hook.remove()
    assert list(features) == list(seen)
    for name, feature in features.items():
        assert torch.equal(feature, seen[name])


def test_what_nobody_reads_is_cut_off(unet, encoder):
    tail = [name for name, _ in encoder.unet.named_parameters() if name.startswith(("conv_out", "conv_norm"))]
    sizes = [sum(p.numel() for p in network.parameters()) for network in (unet, encoder)]
    assert not tail and sizes[1] < sizes[0]


def test_every_weight_it_has_matters(encoder):
    """All parameters get a gradient, but for those of attention to a prompt of one token, which are idle."""
    total = sum(feature.square().sum() for feature in encoder(latents(), PROMPT).values())
    total.backward()
    without = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert not without
    encoder.zero_grad()


def test_it_leaves_no_hooks(encoder):
    encoder(latents(), PROMPT)
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_it_is_what_it_was_after_saving(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = AppearanceEncoder.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for name, feature in encoder(latents(), PROMPT).items():
            assert_close(again(latents(), PROMPT)[name], feature)


def test_zero_embeddings_are_plain_reference_attention(encoder):
    unet = tiny_inpainting()
    source, inputs = latents(), latents(channels=9, seed=1)
    layers = self_attention_layers(unet)
    with torch.no_grad():
        references = keys_and_values(unet, encoder(source, PROMPT))
        zero = {name: tuple(torch.zeros_like(part) for part in pair) for name, pair in references.items()}
        outputs = []
        for embeddings in (None, zero):
            with exchange_attention(unet, layers, attend_to_reference(references, embeddings)):
                outputs.append(unet(inputs, 500, PROMPT).sample)
        plain = unet(inputs, 500, PROMPT).sample
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[0] - plain).abs().max() > 1e-4


def test_equation_4_by_hand():
    """One layer's exchange against the formula written out."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda tokens: torch.randn(1, tokens, 6, generator=generator)  # noqa: E731
    query, key, value, key_ref, value_ref, handle, target = (draw(5) for _ in range(7))
    exchange = attend_to_reference({"layer": (key_ref, value_ref)}, {"layer": (handle, target)})
    q, k, v = exchange("layer", query, key, value)
    found = torch.softmax(q @ k.mT / 6**0.5, dim=-1) @ v
    logits = (query + target) @ torch.cat([key + target, key_ref + handle], dim=1).mT
    assert_close(found, torch.softmax(logits / 6**0.5, dim=-1) @ torch.cat([value, value_ref], dim=1))


def test_rows_without_points_are_plain_reference_attention(encoder):
    """Two rows of one image: the first is plain reference attention, the second follows the points."""
    unet = tiny_inpainting()
    points = tiny_points(unet)
    layers = self_attention_layers(unet)
    inputs = latents(channels=9, seed=1)
    drags = torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[40.0, 30.0]]])
    with torch.no_grad():
        references = keys_and_values(unet, encoder(latents(), PROMPT))
        nowhere = torch.full_like(drags[0], torch.nan)
        rows = (torch.cat([nowhere, one]) for one in drags)
        embeddings = points(points.maps(*rows, (64, 96)))
        with exchange_attention(unet, layers, attend_to_reference(references, embeddings)):
            both = unet(inputs.repeat(2, 1, 1, 1), 500, PROMPT.repeat(2, 1, 1)).sample
            following = unet(inputs, 500, PROMPT).sample
        with exchange_attention(unet, layers, attend_to_reference(references)):
            without = unet(inputs, 500, PROMPT).sample
    assert_close(both[:1], without, atol=1e-5, rtol=0)
    assert_close(both[1:], following, atol=1e-5, rtol=0)
    assert (following - without).abs().max() > 1e-4


def test_processors_are_back_after_an_exception(encoder):
    unet = tiny_inpainting()
    before = dict(unet.attn_processors)
    with (
        pytest.raises(RuntimeError, match="stop"),
        exchange_attention(unet, self_attention_layers(unet), attend_to_reference({})),
    ):
        raise RuntimeError("stop")
    assert unet.attn_processors == before
