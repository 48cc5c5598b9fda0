"""LoRA on FlowDiffusion: no effect at first, only adapters trained, the same again from a small file."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.models.backbone import make_backbone
from dragstudy.models.flowdiffusion import make_flowdiffusion
from dragstudy.models.lora import (
    LORA_FILE,
    LORA_LAYERS,
    add_lora,
    load_lora,
    load_published_lora,
    save_lora,
    signature,
)

from ..tiny import tiny_backbone, tiny_flowdiffusion


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def output(unet: UNet2DConditionModel) -> Tensor:
    latents = torch.randn(2, unet.config.in_channels, 8, 8, generator=seeded())
    prompt = torch.randn(2, 1, 64, generator=seeded())
    with torch.no_grad():
        return unet(latents, torch.tensor([3, 500]), prompt).sample


def copy_of(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    copy = UNet2DConditionModel.from_config(unet.config).eval()
    copy.load_state_dict(unet.state_dict())
    return copy


def adapters(unet: UNet2DConditionModel, part: str = "lora_") -> dict[str, Tensor]:
    return {name: weight for name, weight in unet.named_parameters() if part in name}


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_flowdiffusion("splat")


@pytest.fixture
def trained(unet) -> UNet2DConditionModel:
    """A copy of `unet` whose adapters have an effect."""
    trained = copy_of(unet)
    add_lora(trained, generator=seeded())
    for weight in adapters(trained, "lora_B").values():
        nn.init.normal_(weight, std=0.05, generator=seeded())
    assert (output(trained) - output(unet)).abs().max() > 0.05
    return trained


@pytest.mark.parametrize("variant", ["concat", "splat"])
def test_at_the_start_the_output_is_as_before(variant):
    unet = tiny_flowdiffusion(variant)
    before = output(unet)
    add_lora(unet, generator=seeded())
    assert torch.equal(output(unet), before)


def test_adapters_alone_can_be_trained(unet):
    add_lora(unet, rank=2, generator=seeded())
    trainable = {name for name, weight in unet.named_parameters() if weight.requires_grad}
    assert trainable == set(adapters(unet)) and trainable
    unet(torch.randn(1, 15, 8, 8), 5, torch.zeros(1, 1, 64)).sample.sum().backward()
    assert all((weight.grad is not None) == (name in trainable) for name, weight in unet.named_parameters())


def test_rank_and_layers_are_those_asked_for(unet):
    add_lora(unet, rank=3, layers=("conv1", "to_q"), generator=seeded())
    down = adapters(unet, "lora_A")
    assert {name.split(".lora_A")[0].rsplit(".", 1)[1] for name in down} == {"conv1", "to_q"}
    assert {weight.shape[0] for weight in down.values()} == {3}


def test_every_layer_of_the_list_is_in_the_u_net():
    unet = tiny_backbone()
    names = [name for name, _ in unet.named_modules()]
    assert all(any(name.endswith(f".{end}") for name in names) for end in LORA_LAYERS)


def test_the_first_values_follow_the_generator_alone():
    first, again, other = (tiny_flowdiffusion() for _ in range(3))
    for k, (unet, seed) in enumerate([(first, 0), (again, 0), (other, 1)]):
        torch.manual_seed(k)
        add_lora(unet, generator=seeded(seed))
    states = [adapters(unet, "lora_A") for unet in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_what_cannot_be_added_is_refused(unet):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        add_lora(unet, rank=0, generator=seeded())
    with pytest.raises(ValueError, match="no layer named qkv"):
        add_lora(unet, layers=("qkv",), generator=seeded())
    assert all(weight.requires_grad for weight in unet.parameters())


def test_saved_and_loaded_they_do_the_same(unet, trained, tmp_path):
    before = output(unet)
    save_lora(trained.to(memory_format=torch.channels_last), tmp_path)  # as training leaves it
    load_lora(unet, tmp_path, "bird")
    assert_close(output(unet), output(trained), atol=1e-3, rtol=1e-3)
    assert unet.active_adapters() == ["bird"] and {p.dtype for p in unet.parameters()} == {torch.float32}
    unet.disable_adapters()
    assert torch.equal(output(unet), before)


def test_loading_again_replaces_and_fusing_leaves_a_plain_u_net(unet, trained, tmp_path):
    keys = set(unet.state_dict())
    save_lora(trained, tmp_path)
    load_lora(unet, tmp_path)
    once = output(unet)
    load_lora(unet, tmp_path)
    assert torch.equal(output(unet), once)
    unet.fuse_lora()
    unet.unload_lora()
    assert_close(output(unet), once, atol=1e-5, rtol=1e-5)
    assert set(unet.state_dict()) == keys


def test_diffusers_alone_reads_the_file(unet, trained, tmp_path):
    save_lora(trained, tmp_path)
    unet.load_lora_adapter(str(tmp_path), prefix=None, weight_name=LORA_FILE)
    assert_close(output(unet), output(trained), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_u_net_is_known_in_any_precision_and_another_is_refused(unet, trained, dtype, tmp_path):
    save_lora(trained, tmp_path)
    load_lora(unet.to(dtype), tmp_path)
    assert {weight.dtype for weight in unet.parameters()} == {dtype}
    with pytest.raises(ValueError, match="another U-Net"):
        load_lora(tiny_flowdiffusion("splat"), tmp_path)
    with pytest.raises(ValueError, match="another U-Net"):
        load_lora(tiny_flowdiffusion("concat"), tmp_path)


def test_the_signature_is_the_base_s(unet, trained):
    assert signature(trained) == signature(unet)
    both = copy_of(unet)
    add_lora(both, layers=("conv_in",), generator=seeded())
    assert signature(both) == signature(unet)


def test_a_folder_without_adapters_is_refused(unet, tmp_path):
    with pytest.raises(ValueError, match="no fine-tuned weights in"):
        load_lora(unet, tmp_path)


def test_rank_8_of_the_tiny_profile_takes_less_than_2_mb(tmp_path):
    unet = make_flowdiffusion(make_backbone(8), "splat")
    add_lora(unet, generator=seeded())
    stored = save_lora(unet, tmp_path).stat().st_size
    assert 2 * sum(weight.numel() for weight in adapters(unet).values()) < stored < 2e6


def published(unet: UNet2DConditionModel, alpha: float | None, rank: int = 2) -> tuple[dict, dict]:
    """A LoRA as others publish it, on every layer that LCM-LoRA changes, and what it adds to each weight."""
    state, added = {}, {}
    for name, layer in unet.named_modules():
        if any(name.endswith(f".{end}") for end in LORA_LAYERS):
            out, inputs, *kernel = layer.weight.shape
            down = torch.randn(rank, inputs, *kernel, generator=seeded(len(state))) / inputs
            up = torch.randn(out, rank, *[1] * len(kernel), generator=seeded(len(state) + 1)) / 2
            scale = 1 if alpha is None else alpha / rank
            added[f"{name}.weight"] = scale * torch.einsum("or,ri...->oi...", up.flatten(1), down)
            if alpha is None:
                state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
            else:
                kohya = "lora_unet_" + name.replace(".", "_")
                state |= {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up}
                state[f"{kohya}.alpha"] = torch.tensor(alpha)
    return {key: value.contiguous() for key, value in state.items()}, added


@pytest.mark.parametrize("alpha", [None, 2.0, 0.5])
def test_a_published_lora_is_added_in_both_ways_of_naming(unet, alpha, tmp_path):
    state, added = published(unet, alpha)
    expected = copy_of(unet)
    for name, weight in expected.named_parameters():
        weight.data += added.get(name, 0)
    assert (output(expected) - output(unet)).abs().max() > 0.05
    save_file(state, tmp_path / "lcm.safetensors")
    load_published_lora(unet, tmp_path / "lcm.safetensors", "lcm")
    assert_close(output(unet), output(expected), atol=1e-4, rtol=1e-4)
    load_published_lora(unet, tmp_path / "lcm.safetensors", "lcm")
    assert_close(output(unet), output(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("broken", ["widths", "layers", "text encoder", "nothing"])
def test_a_published_lora_of_another_network_is_refused_and_changes_nothing(unet, broken, tmp_path):
    state, _ = published(unet, alpha=1.0)
    first = next(iter(state)).split(".")[0]
    if broken == "widths":
        state[f"{first}.lora_down.weight"] = torch.zeros(2, 7, 3, 3)
    if broken == "layers":
        state = {key.replace("down_blocks_0", "down_blocks_7"): value for key, value in state.items()}
    if broken == "text encoder":
        state = {
            key.replace("lora_unet_", "lora_te_text_model_"): state[key] for key in state if first in key
        }
    if broken == "nothing":
        state = {"weight": torch.zeros(1)}
    save_file(state, tmp_path / "lcm.safetensors")
    before = output(unet)
    with pytest.raises(ValueError, match=r"another U-Net|no LoRA of a U-Net"):
        load_published_lora(unet, tmp_path / "lcm.safetensors")
    assert torch.equal(output(unet), before)
