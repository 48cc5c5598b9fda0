"""The LoRA of one photograph: it learns, it is kept, and the U-Net is afterwards what it was."""

import copy

import pytest
import torch
from torch.testing import assert_close

from dragstudy.models.backbone import NullPrompt, make_ddim_scheduler
from dragstudy.models.lora import add_lora
from dragstudy.pipelines.image_lora import LoraSettings, image_lora, lora_file, merged_lora

from ..tiny import tiny_backbone

SETTINGS = LoraSettings(steps=3, learning_rate=1e-2, layers=("to_q", "to_k", "to_v", "to_out.0"), rank=4)


@pytest.fixture
def latents(generator):
    return torch.randn(1, 4, 8, 8, generator=generator)


def train(unet, latents, folder, settings=SETTINGS, prediction="v_prediction", **options):
    prompt, scheduler = NullPrompt()(1), make_ddim_scheduler(prediction)
    return image_lora(unet, latents, prompt, scheduler, settings, folder=folder, **options)


def predict(unet, latents):
    with torch.no_grad():
        return unet(latents, 300, NullPrompt()(1)).sample


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_it_learns_the_photograph(latents, tmp_path, prediction):
    unet, scheduler = tiny_backbone(), make_ddim_scheduler(prediction)
    settings = LoraSettings(steps=40, learning_rate=1e-2, rank=4, batch_size=8)
    factors = train(unet, latents, tmp_path, settings, prediction)

    @torch.no_grad()
    def loss() -> float:
        generator = torch.Generator().manual_seed(7)
        clean, noise = latents.expand(32, -1, -1, -1), torch.randn(32, 4, 8, 8, generator=generator)
        timesteps = torch.linspace(0, 999, 32).long()
        noisy = scheduler.add_noise(clean, noise, timesteps)
        wanted = {"epsilon": noise, "sample": clean}.get(prediction)
        wanted = scheduler.get_velocity(clean, noise, timesteps) if wanted is None else wanted
        return (unet(noisy, timesteps, NullPrompt()(32)).sample - wanted).square().mean().item()

    before = loss()
    with merged_lora(unet, factors):
        after = loss()
    assert after < 0.95 * before


def test_the_u_net_is_what_it_was(latents, tmp_path):
    unet = tiny_backbone()
    next(unet.parameters()).requires_grad_(False)
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    wanted = [weight.requires_grad for weight in unet.parameters()]
    random = torch.get_rng_state()
    factors = train(unet, latents, tmp_path)
    with merged_lora(unet, factors):
        pass
    with pytest.raises(RuntimeError), merged_lora(unet, factors):
        raise RuntimeError
    assert unet.state_dict().keys() == before.keys()  # no wrapper of peft's is left
    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())
    assert [weight.requires_grad for weight in unet.parameters()] == wanted
    assert torch.equal(torch.get_rng_state(), random)


def test_a_u_net_with_adapters_is_refused_until_they_are_fused(latents, tmp_path, generator):
    unet = tiny_backbone()
    add_lora(unet, rank=2, generator=generator)
    with pytest.raises(ValueError, match="fuse_lora"):
        train(unet, latents, tmp_path)
    unet.fuse_lora()
    unet.unload_lora()
    assert train(unet, latents, tmp_path)


def test_merged_it_does_what_peft_s_layers_do(latents, tmp_path):
    unet = tiny_backbone()
    factors = train(unet, latents, tmp_path)
    plain = predict(unet, latents)
    with merged_lora(unet, factors):
        merged = predict(unet, latents)
    assert (merged - plain).abs().max() > 1e-4
    unet.load_lora_adapter(dict(factors), prefix=None, adapter_name="again")
    assert_close(predict(unet, latents), merged, atol=1e-5, rtol=1e-4)


def test_a_second_edit_trains_none(latents, tmp_path):
    unet, calls = tiny_backbone(), []

    def on_step(step):
        calls.append(step)
        return True

    first = train(unet, latents, tmp_path, on_step=on_step)
    again = train(unet, latents, tmp_path, on_step=on_step)
    assert calls == [0, 1, 2] and first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_another_photograph_setting_or_u_net_has_another_file(latents):
    unet, prompt, scheduler = tiny_backbone(), NullPrompt()(1), make_ddim_scheduler()
    other = copy.deepcopy(unet)
    other.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.data[0, 0] += 0.01
    files = {
        lora_file(unet, latents, prompt, scheduler, SETTINGS),
        lora_file(unet, latents + 1e-3, prompt, scheduler, SETTINGS),
        lora_file(unet, latents, prompt + 1, scheduler, SETTINGS),
        lora_file(unet, latents, prompt, scheduler, LoraSettings(4, 1e-2)),
        lora_file(unet, latents, prompt, make_ddim_scheduler("epsilon"), SETTINGS),
        lora_file(other, latents, prompt, scheduler, SETTINGS),
    }
    assert len(files) == 6
    assert lora_file(copy.deepcopy(unet), latents, prompt, scheduler, SETTINGS) in files


def test_training_that_is_ended_is_not_kept(latents, tmp_path):
    factors = train(tiny_backbone(), latents, tmp_path, on_step=lambda step: False)
    assert factors and not list(tmp_path.iterdir())


def test_no_steps_are_no_lora(latents, tmp_path):
    assert train(tiny_backbone(), latents, tmp_path, LoraSettings(0, 1e-3)) == {}
