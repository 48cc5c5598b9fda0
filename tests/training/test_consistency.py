"""Consistency distillation: its equations, a case whose answer is known, and training by the common loop."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.guidance import guide
from dragstudy.models.appearance import AppearanceEncoder
from dragstudy.models.backbone import NullPrompt, make_inpainting_scheduler, make_scheduler
from dragstudy.models.flowdiffusion import drop_flow
from dragstudy.models.lora import add_lora
from dragstudy.pipelines.few_steps import lcm_scheduler, scheduler_like
from dragstudy.training.backbone import add_noise
from dragstudy.training.consistency import ConsistencyTask, clean_and_noise, consistency, sample
from dragstudy.training.denoisers import FlowDiffusionDenoiser, LightningDenoiser
from dragstudy.training.loop import LoopSettings, train_loop

from ..tiny import tiny_backbone, tiny_flowdiffusion, tiny_inpainting, tiny_points
from .test_lightning import batch as lightning_batch
from .test_loop import assert_same_run
from .test_tasks import latent_batch

KINDS = ["v_prediction", "epsilon"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def schedule(kind: str = "v_prediction", solver_steps: int = 50) -> LCMScheduler:
    """The tiny networks' noise schedule; Stable Diffusion's own for the prediction of noise."""
    known = make_scheduler(kind)
    known.register_to_config(rescale_betas_zero_snr=kind != "epsilon")
    return lcm_scheduler(known, solver_steps)


def denoiser(image: float = 1.5, flow: float = 1.5) -> FlowDiffusionDenoiser:
    scales = {"image_guidance_scale": image, "flow_guidance_scale": flow}
    return FlowDiffusionDenoiser("splat", NullPrompt(), flow_scale=8.0, **scales)


def lora_task(teacher: UNet2DConditionModel, seed: int = 0, **options) -> ConsistencyTask:
    student = UNet2DConditionModel.from_config(teacher.config)
    student.load_state_dict(teacher.state_dict())
    add_lora(student, rank=2, generator=seeded(seed))
    return ConsistencyTask(student, copy.deepcopy(teacher), denoiser(), schedule(), **options)


@pytest.fixture
def teacher() -> UNet2DConditionModel:
    return tiny_flowdiffusion("splat")


@pytest.mark.parametrize("kind", KINDS)
def test_the_consistency_function_is_what_the_scheduler_s_step_denoises(kind):
    scheduler = schedule(kind)
    noisy, predicted = (torch.randn(2, 4, 8, 8, generator=seeded(k)) for k in range(2))
    scheduler.set_timesteps(8)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(predicted, timestep, noisy, generator=seeded()).denoised
        found = consistency(scheduler, predicted, noisy, timestep.expand(2))
        assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_data_it_is_the_identity_whatever_is_predicted(kind):
    noisy, predicted = (torch.randn(3, 4, 8, 8, generator=seeded(k)) for k in range(2))
    found = consistency(schedule(kind), 100 * predicted, noisy, torch.zeros(3, dtype=torch.long))
    assert torch.equal(found, noisy)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_s_step_is_ddim(kind):
    scheduler = schedule(kind)
    ddim = scheduler_like(scheduler, DDIMScheduler, timestep_spacing="trailing", set_alpha_to_one=False)
    noisy, predicted = (torch.randn(1, 4, 8, 8, generator=seeded(k)) for k in range(2))
    ddim.set_timesteps(50)
    for timestep in ddim.timesteps[:-1]:
        expected = ddim.step(predicted, timestep, noisy).prev_sample
        parts = clean_and_noise(scheduler, predicted, noisy, timestep.expand(1))
        found = add_noise(scheduler, *parts, timestep.expand(1) - 20)
        assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver_steps", [50, 20, 10])
def test_neighbours_are_the_sampler_s_timesteps_and_all_are_drawn(teacher, solver_steps):
    task = ConsistencyTask(nn.Identity(), teacher, denoiser(), schedule(solver_steps=solver_steps))
    start, end = task.neighbours(4 * solver_steps, seeded())
    task.scheduler.set_timesteps(solver_steps)
    assert set(start.tolist()) == set(task.scheduler.timesteps.tolist())
    assert torch.equal(end, start - 1000 // solver_steps) and end.min() == -1


@pytest.mark.parametrize(("scales", "rows"), [((1.5, 1.5), 2), ((1.0, 2.0), 2), ((1.2, 2.0), 3), ((1, 1), 1)])
def test_guided_predictions_are_guidance_s_with_the_rows_that_count(teacher, scales, rows):
    seen = []
    teacher.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    model, batch = denoiser(*scales), latent_batch(2)
    prepared, noisy = model.prepare(batch, seeded()), torch.randn(2, 4, 8, 8, generator=seeded())
    timesteps = torch.tensor([999, 19])
    with torch.no_grad():
        found = model.predict(teacher, noisy, timesteps, prepared, guided=True)
        chain = torch.zeros_like(prepared), drop_flow(prepared, 4), prepared
        alone = torch.stack([model.predict(teacher, noisy, timesteps, row, guided=False) for row in chain])
    assert seen == [2 * rows, 2, 2, 2]
    assert_close(
        found, guide(alone, "image_flow", {"image": scales[0], "flow": scales[1]}), atol=1e-4, rtol=1e-4
    )


def test_the_student_begins_as_the_teacher_and_the_teacher_stays(teacher):
    task, batch = lora_task(teacher), latent_batch(2)
    prepared, noisy = task.denoiser.prepare(batch, seeded()), torch.randn(2, 4, 8, 8, generator=seeded())
    with torch.no_grad():
        both = [
            task.denoiser.predict(one, noisy, torch.tensor([999, 19]), prepared, guided=False)
            for one in (task.networks["unet"], task.teacher)
        ]
    assert torch.equal(*both)
    next(task.losses(batch, seeded()))[1].backward()
    reached = {name for name, weight in task.networks["unet"].named_parameters() if weight.grad is not None}
    assert reached and all("lora_" in name for name in reached)
    assert not any(weight.requires_grad for weight in task.teacher.parameters())


def test_adapters_get_a_gradient_under_autocast(teacher):
    """Autocast keeps weights that it cast; cast without gradient they would be kept from it."""
    task = lora_task(teacher)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next(task.losses(latent_batch(2), seeded()))[1]
    loss.backward()
    adapters = task.networks["unet"].named_parameters()
    gradients = [weight.grad for name, weight in adapters if "resnets" in name and "lora_B" in name]
    assert gradients and all(one is not None and one.abs().max() > 0 for one in gradients)


def test_a_few_steps_on_one_batch_lower_the_loss(teacher):
    task, batch = lora_task(teacher), latent_batch(4)
    weights = [w for w in task.networks["unet"].parameters() if w.requires_grad]
    optimizer, losses = torch.optim.Adam(weights, lr=1e-2), []
    for _ in range(6):
        loss = next(task.losses(batch, seeded(1)))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_validation_says_how_far_one_step_is_from_the_teacher(teacher):
    task = lora_task(teacher, validation=latent_batch(2))
    with torch.no_grad():
        first, again = task.validate(), task.validate()
    assert first == again and first["val_one_step"] > 0 and first["val_loss"] > 0


class Gaussian:
    """Latents of which each is drawn from N(mean, spread^2): the best prediction is linear in the latents."""

    def __init__(self, mean: float, spread: float):
        self.mean, self.spread = mean, spread

    def latents(self, batch: Tensor) -> Tensor:
        return batch

    def prepare(self, batch: Tensor, generator: torch.Generator) -> None:
        return None

    def predict(self, network, noisy, timesteps, prepared, *, guided: bool) -> Tensor:
        return network(noisy, timesteps).sample

    def best(self, scheduler: LCMScheduler) -> "Line":
        alpha_bar = scheduler.alphas_cumprod.double()
        a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        gain = a * self.spread**2 / (alpha_bar * self.spread**2 + s**2)  # of E[x_0 | z] over z
        shift = self.mean * (1 - gain * a)
        if scheduler.config.prediction_type == "epsilon":
            return Line((1 - a * gain) / s, -a * shift / s)
        return Line((a - gain) / s, -shift / s)


class Line(nn.Module):
    """A network that is a line at each timestep."""

    def __init__(self, slope: Tensor, offset: Tensor):
        super().__init__()
        self.slope, self.offset = nn.Parameter(slope.float()), nn.Parameter(offset.float())

    def forward(self, noisy: Tensor, timesteps: Tensor) -> BaseOutput:
        slope, offset = (table[timesteps].view(-1, 1, 1, 1) for table in (self.slope, self.offset))
        return BaseOutput(sample=slope * noisy + offset)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_one_step_ends_where_the_solver_does_in_a_case_that_is_known(spread, kind, tmp_path):
    """At a single point that is the point; elsewhere the teacher's own single step gives the mean alone."""
    data, scheduler = Gaussian(2.0, spread), schedule(kind, solver_steps=10)
    teacher, student = data.best(scheduler), data.best(scheduler)
    if not spread:  # there the teacher's single step is right already
        student.slope.data += 0.2
    noise = torch.randn(256, 1, 1, 1, generator=seeded(1))
    points = 2 + spread * torch.randn(64, 1, 1, 1, generator=seeded(2))
    ddim = scheduler_like(scheduler, DDIMScheduler, timestep_spacing="trailing", set_alpha_to_one=False)
    expected = sample(teacher, data, None, ddim, noise, steps=10)
    assert expected.std().item() == pytest.approx(spread, abs=0.1)

    def error() -> float:
        return (
            (sample(student, data, None, scheduler, noise, steps=1) - expected).square().mean().sqrt().item()
        )

    before = error()
    assert before > 0.05
    settings = LoopSettings(
        tmp_path, steps=600, batch_size=64, learning_rate=0.03, weight_decay=0.0, ema_decay=0.9
    )
    train_loop(ConsistencyTask(student, teacher, data, scheduler), points, settings)
    assert error() < 0.15 * before


def test_sampling_follows_its_generator_alone(teacher):
    model, scheduler = denoiser(), schedule()
    prepared, noise = model.prepare(latent_batch(1), seeded()), torch.randn(1, 4, 8, 8, generator=seeded())
    state = torch.get_rng_state()
    first, again, other = (
        sample(teacher, model, prepared, scheduler, noise, steps=2, generator=seeded(k)) for k in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_in_parts_equals_a_whole_one_bit_for_bit(teacher, tmp_path):
    batch = latent_batch(3)
    items = [{key: value[k] for key, value in batch.items()} for k in range(3)]
    common = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "warmup": 1, "log_every": 1}
    train_loop(lora_task(teacher), items, LoopSettings(tmp_path / "whole", **common))
    for seed in range(3):  # with other first adapters, which must not matter where a run goes on
        parts = LoopSettings(tmp_path / "parts", minutes=0.0, **common)
        assert train_loop(lora_task(teacher, seed), items, parts) == seed + 1
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def lightning_task(**options) -> ConsistencyTask:
    teacher = tiny_inpainting()
    student = copy.deepcopy(teacher)
    add_lora(student, rank=2, generator=seeded())
    parts = AppearanceEncoder.from_unet(tiny_backbone()), tiny_points(teacher)
    model = LightningDenoiser(*parts, NullPrompt(), max_points=4, **options)
    return ConsistencyTask(
        student, teacher, model, lcm_scheduler(make_inpainting_scheduler()), validation=lightning_batch(2)
    )


def test_lightningdrag_is_distilled_without_touching_what_instructs_it():
    task = lightning_task()
    loss = task.loss(lightning_batch(), seeded())
    loss.backward()
    reached = {name for name, weight in task.networks["unet"].named_parameters() if weight.grad is not None}
    assert loss.isfinite() and reached and all("lora_" in name for name in reached)
    # keys of the photograph are the student's own, so its adapters there learn from them
    assert any("attn1.to_k.lora_B" in name for name in reached)
    frozen = [task.teacher, task.denoiser.appearance, task.denoiser.points]
    assert not any(weight.requires_grad for network in frozen for weight in network.parameters())
    with torch.no_grad():
        assert all(value > 0 for value in task.validate().values())


@torch.no_grad()
def test_guidance_by_points_falls_as_its_schedule_says():
    """At timestep 0 the inverse square gives a weight of 1, which is the prediction with points."""
    task = lightning_task(point_guidance_scale=3.0)
    batch, model = lightning_batch(), task.denoiser
    prepared = model.prepare(batch, seeded())
    noisy = torch.randn(3, 4, 8, 8, generator=seeded())

    def predict(timestep: int, guided: bool, given=prepared) -> Tensor:
        return model.predict(task.teacher, noisy, torch.full((3,), timestep), given, guided=guided)

    assert_close(predict(0, True), predict(0, False), atol=1e-5, rtol=1e-4)
    conditions, features, embeddings = prepared
    nothing = {name: tuple(one[:3] for one in pair) for name, pair in embeddings.items()}
    without, following = predict(500, False, (conditions, features, nothing)), predict(500, False)
    assert (following - without).abs().max() > 1e-3
    assert_close(predict(500, True), without + 1.5 * (following - without), atol=1e-4, rtol=1e-4)
