"""The training loop that every model shares.

A model brings a `Task`: its networks, and a generator of losses. The loop does the rest: optimisers, mixed
precision, several GPUs (`accelerate launch`), clipping, exponential moving averages, metrics, checkpoints,
resuming and a time budget. Everything random in a step follows from `(seed, step)`, so a resumed run
continues bit for bit.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from dragstudy.progress import HEADLESS
from dragstudy.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from dragstudy.training.order import ProcessShare, StepSampler, step_generator
from dragstudy.training.precision import fast_precision


class Task(Protocol):
    """What a model brings to the loop."""

    networks: dict[str, nn.Module]  # trained; each has an optimiser and a moving average of its own

    def losses(
        self, batch: Any, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """Yield `(network, loss, logged values)` once an update.

        The loop steps that network's optimiser before it asks for the next loss, so a GAN yields its
        generator's and its discriminator's losses in turn.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Measure the networks, which hold their averaged weights meanwhile; may be an empty dict."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How to train.

    Attributes:
        out: Folder of `metrics.jsonl`, checkpoints and the final weights.
        steps: Optimiser steps; the learning rate falls to zero over them.
        batch_size: Samples a step and a process.
        learning_rate: Peak learning rate of AdamW.
        betas: AdamW's momenta; GANs want a smaller first one.
        weight_decay: AdamW's decoupled weight decay.
        warmup: Steps of linear warm-up, followed by half a cosine down to zero.
        max_grad_norm: Gradients are clipped to this norm.
        ema_decay: Decay of the moving average of the weights; it warms up from zero.
        seed: Decides the order of the data and every random draw.
        minutes: Stop (with a checkpoint) after this many minutes; `None` never does. A stopped run goes on
            when it is started again with the same settings.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations; 0 never validates.
        log_every: Steps between lines of `metrics.jsonl`; losses are means over them.
        mixed_precision: `"no"`, `"bf16"` (CPU and GPU), `"fp16"` (GPU) or `"auto"`, see `fast_precision`.
        num_workers: Data loading processes.
    """

    out: Path
    steps: int
    batch_size: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-2
    warmup: int = 100
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    minutes: float | None = None
    checkpoint_every: int = 500
    validate_every: int = 0
    log_every: int = 25
    mixed_precision: str = "no"
    num_workers: int = 0


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    return warm * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / settings.steps)).item())


def train_loop(
    task: Task, dataset: Dataset, settings: LoopSettings, *, on_log: Callable[[dict], None] | None = None
) -> int:
    """Train until `settings.steps` or the time budget, resuming from the newest checkpoint in `settings.out`.

    Args:
        task: Networks and losses.
        dataset: Map-style; the default collation makes its batches.
        settings: How to train.
        on_log: Called with every line that goes to `metrics.jsonl`.

    Returns:
        The number of steps done in all; `settings.steps` when training is complete. The networks then hold
        the averaged weights.
    """
    AcceleratorState._reset_state()  # else it refuses another precision than an earlier run's in this process
    if settings.mixed_precision == "auto":
        settings = replace(settings, mixed_precision=fast_precision())
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    state = _LoopState(task, settings, accelerator)
    start = state.resume()
    sampler = StepSampler(
        len(dataset),
        settings.batch_size * accelerator.num_processes,
        settings.seed,
        range(start, settings.steps),
    )
    share = ProcessShare(sampler, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(dataset, batch_sampler=share, num_workers=settings.num_workers)
    began = time.monotonic()
    unwatched = not accelerator.is_local_main_process or bool(os.environ.get(HEADLESS))
    bar = tqdm(total=settings.steps, initial=start, disable=unwatched, mininterval=5)
    step = start
    for step, batch in enumerate(loader, start=start):
        state.step(_to_device(batch, accelerator.device), step)
        done = step + 1
        out_of_time = settings.minutes is not None and time.monotonic() - began > 60 * settings.minutes
        finished = done == settings.steps or out_of_time
        bar.update()
        if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
            state.validate()
        if done % settings.log_every == 0 or finished:
            state.log(done, on_log, bar)
        if done % settings.checkpoint_every == 0 or finished:
            state.save(done)
        if finished:
            start = done
            break
    bar.close()
    state.use_averages()
    return start


class _LoopState:
    """Optimisers, averages, sums of logged values and the clock of one run."""

    def __init__(self, task: Task, settings: LoopSettings, accelerator: Accelerator):
        self.task, self.settings, self.accelerator = task, settings, accelerator
        self.plain = dict(task.networks)
        self.optimizers = {
            name: torch.optim.AdamW(
                network.parameters(),
                settings.learning_rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
            for name, network in self.plain.items()
        }
        if (
            accelerator.scaler is not None
        ):  # fp16: the wrapped optimiser divides the scale of the loss out again
            self.optimizers = {
                name: accelerator.prepare_optimizer(one) for name, one in self.optimizers.items()
            }
        for name, network in self.plain.items():
            network.to(accelerator.device, memory_format=torch.channels_last).train()
            task.networks[name] = accelerator.prepare_model(network)
        self.averages = {
            name: EMAModel(network.parameters(), decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
            for name, network in self.plain.items()
        }
        self.sums: dict[str, list[float]] = {}
        self.seconds, self.clock = 0.0, time.monotonic()

    def resume(self) -> int:
        folder = latest_checkpoint(self.settings.out)
        if folder is None:
            self.settings.out.mkdir(parents=True, exist_ok=True)
            (self.settings.out / "metrics.jsonl").write_text("")
            return 0
        step, self.seconds, self.sums = load_checkpoint(folder, self.plain, self.optimizers, self.averages)
        _drop_later_lines(self.settings.out / "metrics.jsonl", step, self.settings)
        return step

    def step(self, batch: Any, step: int) -> None:
        generator = step_generator(self.settings.seed, step, self.accelerator.process_index)
        torch.manual_seed(
            int(torch.randint(2**62, (), generator=generator))
        )  # dropout knows no other generator
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = self.settings.learning_rate * learning_rate_factor(
                step, self.settings
            )
        losses = self.task.losses(batch, generator)
        while True:
            with self.accelerator.autocast():
                update = next(losses, None)
            if update is None:
                break
            name, loss, logs = update
            self.optimizers[name].zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.plain[name].parameters(), self.settings.max_grad_norm)
            self.optimizers[name].step()
            self.averages[name].step(self.plain[name].parameters())
            for key, value in {f"{name}_loss": loss, **logs}.items():
                self.sums.setdefault(key, []).append(float(value.detach()))

    def validate(self) -> None:
        with _Averaged(self.plain, self.averages), torch.no_grad(), self.accelerator.autocast():
            for key, value in self.task.validate().items():
                self.sums[key] = [value]

    def log(self, done: int, on_log: Callable[[dict], None] | None, bar: tqdm) -> None:
        self.tick()
        line = {"step": done, "images": done * self.settings.batch_size, "seconds": round(self.seconds, 1)}
        line |= {key: sum(values) / len(values) for key, values in self.sums.items()}
        if (
            done % self.settings.log_every == 0
        ):  # else the next line takes these values in, and replaces this one
            self.sums.clear()
        if self.accelerator.is_main_process:
            with (self.settings.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        bar.set_postfix({key: f"{value:.4g}" for key, value in line.items() if isinstance(value, float)})
        if on_log is not None:
            on_log(line)

    def tick(self) -> None:
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def save(self, done: int) -> None:
        self.tick()
        if self.accelerator.is_main_process:
            settings = {key: str(value) for key, value in asdict(self.settings).items()}
            progress = {"step": done, "seconds": self.seconds, "sums": self.sums, "settings": settings}
            save_checkpoint(self.settings.out, progress, self.plain, self.optimizers, self.averages)

    def use_averages(self) -> None:
        for name, network in self.plain.items():
            self.averages[name].copy_to(network.parameters())
            for attribute in ("forward", "_original_forward"):  # accelerate's, which computes in bf16 or fp16
                network.__dict__.pop(attribute, None)
            self.task.networks[name] = network.eval()


class _Averaged:
    """Within it the networks hold their averaged weights and are in evaluation mode."""

    def __init__(self, networks: dict[str, nn.Module], averages: dict[str, EMAModel]):
        self.networks, self.averages = networks, averages

    def __enter__(self) -> None:
        for name, network in self.networks.items():
            self.averages[name].store(network.parameters())
            self.averages[name].copy_to(network.parameters())
            network.eval()

    def __exit__(self, *_: object) -> None:
        for name, network in self.networks.items():
            self.averages[name].restore(network.parameters())
            network.train()


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, dict):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_to_device(value, device) for value in batch]
    return batch.to(device) if isinstance(batch, Tensor) else batch


def _drop_later_lines(path: Path, step: int, settings: LoopSettings) -> None:
    """Keep the lines up to `step`, but not the one that a time budget's stop wrote early."""
    lines = path.read_text().splitlines() if path.exists() else []
    steps = [json.loads(line)["step"] for line in lines]
    kept = [
        line
        for line, done in zip(lines, steps, strict=True)
        if done <= step and (done % settings.log_every == 0 or done == settings.steps)
    ]
    path.write_text("".join(line + "\n" for line in kept))
