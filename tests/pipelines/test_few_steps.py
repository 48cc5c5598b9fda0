"""Few-step weights in a pipeline: its own and published ones, their scheduler, and noise from a generator."""

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, PNDMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.models.backbone import make_ddim_scheduler, make_scheduler
from dragstudy.models.lora import LORA_FILE, add_lora, save_lora
from dragstudy.pipelines import DragPipeline, InstantDragPipeline
from dragstudy.pipelines.few_steps import lcm_scheduler, scheduler_like, step_options, use_lcm
from dragstudy.training.consistency import save_lcm_lora

from ..tiny import picture, tiny_instantdrag
from .contract import PipelineContract, seeded

SCALES = {"image_guidance_scale": 1.5, "flow_guidance_scale": 1.5}


class TestInstantDragInFewSteps(PipelineContract):
    @classmethod
    def make(cls) -> DragPipeline:
        pipe = tiny_instantdrag("splat")
        pipe.register_modules(scheduler=lcm_scheduler(pipe.scheduler))
        return pipe


def answer(pipe: InstantDragPipeline) -> Tensor:
    """What the U-Net predicts for one input."""
    latents = torch.randn(1, pipe.unet.config.in_channels, 8, 8, generator=seeded())
    with torch.no_grad():
        return pipe.unet(latents, 500, torch.zeros(1, 1, 64)).sample


def train_a_little(pipe: InstantDragPipeline, folder, seed: int = 0) -> Tensor:
    """Save adapters that have an effect on the pipeline's U-Net, and take them off; what it did with them."""
    add_lora(pipe.unet, rank=2, generator=seeded(seed))
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.03, generator=seeded(seed))
    save_lcm_lora(pipe.unet, folder, 50, SCALES)
    changed = answer(pipe)
    pipe.unet.unload_lora()
    return changed


@pytest.fixture
def pipe() -> InstantDragPipeline:
    return tiny_instantdrag("splat")


@pytest.mark.parametrize("merge", [True, False])
def test_weights_and_scheduler_are_exchanged(pipe, merge, tmp_path):
    before, expected = answer(pipe), train_a_little(pipe, tmp_path)
    assert (expected - before).abs().max() > 0.01
    options = use_lcm(pipe, tmp_path, merge=merge)
    assert_close(answer(pipe), expected, atol=1e-3, rtol=1e-3)
    assert isinstance(pipe.scheduler, LCMScheduler)
    assert options == {"num_inference_steps": 4, "image_guidance_scale": 1, "flow_guidance_scale": 1}
    assert any("lora" in name for name, _ in pipe.unet.named_parameters()) != merge
    edited = pipe(picture(64, 64), [[30, 30]], [[34, 30]], generator=seeded(), **options)
    assert edited.images[0].size == (64, 64) and len(pipe.scheduler.timesteps) == 4


def test_a_merged_pipeline_is_saved_and_loaded_as_any_other(pipe, tmp_path):
    train_a_little(pipe, tmp_path / "lora")
    options = use_lcm(pipe, tmp_path / "lora") | {"output_type": "pt"}
    pipe.save_pretrained(tmp_path / "pipe")
    again = InstantDragPipeline.from_pretrained(tmp_path / "pipe")
    edits = [
        one(picture(64, 64), [[30, 30]], [[34, 30]], generator=seeded(), **options) for one in (pipe, again)
    ]
    assert_close(edits[0].images[0], edits[1].images[0], atol=1.01 / 255, rtol=0)


def test_adapters_in_use_stay_in_use(pipe, tmp_path):
    before = answer(pipe)
    few = train_a_little(pipe, tmp_path)
    add_lora(pipe.unet, rank=2, layers=("conv_in",), generator=seeded(), adapter_name="video")
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1, generator=seeded())
    video = answer(pipe)
    use_lcm(pipe, tmp_path)
    both = answer(pipe)
    assert all((both - one).abs().max() > 0.01 for one in (before, few, video))
    assert not any("lora" in name for name, _ in pipe.unet.named_parameters())


def test_a_published_lcm_lora_leaves_guidance_alone(pipe, tmp_path):
    up = torch.randn(32, 2, generator=seeded()) / 4
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    state = {
        f"{layer}.lora_down.weight": torch.randn(2, 32, generator=seeded()),
        f"{layer}.lora_up.weight": up,
    }
    save_file(state | {f"{layer}.alpha": torch.tensor(2.0)}, tmp_path / "lcm-lora.safetensors")
    before = answer(pipe)
    assert use_lcm(pipe, tmp_path / "lcm-lora.safetensors") == {"num_inference_steps": 4}
    assert not torch.equal(answer(pipe), before)


def test_what_cannot_be_used_is_refused(pipe, tmp_path):
    train_a_little(pipe, tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"a pickle")
    for source in (tmp_path / "none", tmp_path / "weights.bin"):
        with pytest.raises(ValueError, match=f"a folder with {LORA_FILE}"):
            use_lcm(pipe, source)
    with pytest.raises(ValueError, match="another U-Net"):
        use_lcm(tiny_instantdrag("splat"), tmp_path)
    use_lcm(pipe, tmp_path)
    with pytest.raises(ValueError, match="already"):
        use_lcm(pipe, tmp_path)


def test_adapters_of_a_fine_tuning_are_no_few_step_weights(pipe, tmp_path):
    add_lora(pipe.unet, rank=2, generator=seeded())
    save_lora(pipe.unet, tmp_path)
    with pytest.raises(ValueError, match="not distilled"):
        use_lcm(pipe, tmp_path)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_sampling_begins_at_the_noisiest_timestep_of_the_same_noise(steps):
    for before in (make_scheduler(), make_ddim_scheduler()):
        found = lcm_scheduler(before)
        assert torch.equal(found.alphas_cumprod[:-1], before.alphas_cumprod[:-1])
        assert found.config.prediction_type == "v_prediction"
        found.set_timesteps(steps)
        assert found.timesteps[0] == 999 and len(found.timesteps) == steps
        assert all((timestep + 1) % 20 == 0 for timestep in found.timesteps)


def test_schedulers_that_cannot_sample_are_refused():
    with pytest.raises(ValueError, match="divide 1000 training timesteps, got 30"):
        lcm_scheduler(make_scheduler(), 30)
    with pytest.raises(ValueError, match="must not be 'epsilon'"):
        lcm_scheduler(make_scheduler("epsilon"))
    assert lcm_scheduler(DDIMScheduler()).config.prediction_type == "epsilon"


def test_a_scheduler_takes_a_generator_where_it_can():
    generator = seeded()
    assert step_options(lcm_scheduler(make_scheduler()), generator) == {"generator": generator}
    assert step_options(PNDMScheduler(), generator) == {}
    ddim = scheduler_like(lcm_scheduler(make_scheduler()), DDIMScheduler, timestep_spacing="trailing")
    assert torch.equal(ddim.alphas_cumprod, lcm_scheduler(make_scheduler()).alphas_cumprod)


def test_noise_between_steps_is_drawn_for_each_image_of_a_batch():
    scheduler = lcm_scheduler(make_scheduler())
    latents, predicted = (torch.randn(2, 4, 8, 8, generator=seeded(k)) for k in range(2))

    def step(part: slice, generators: list[torch.Generator]) -> Tensor:
        scheduler.set_timesteps(4)
        options = step_options(scheduler, generators)
        return scheduler.step(predicted[part], scheduler.timesteps[0], latents[part], **options).prev_sample

    together = step(slice(0, 2), [seeded(3), seeded(4)])
    assert_close(together[:1], step(slice(0, 1), [seeded(3)]))
    assert_close(together[1:], step(slice(1, 2), [seeded(4)]))
