"""The training loop: resuming bit for bit, stopping in time, averages, the order of the data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.models.flowgen import FlowGen, PatchDiscriminator
from dragstudy.training.backbone import BackboneTask
from dragstudy.training.checkpoints import latest_checkpoint
from dragstudy.training.flowgen import FlowGenTask
from dragstudy.training.loop import LoopSettings, Task, learning_rate_factor, train_loop
from dragstudy.training.order import ProcessShare, StepSampler
from dragstudy.training.precision import fast_precision

from ..tiny import pair_batch, tiny_backbone

STEPS = 5


class Line:
    """Fit a line through noise: the smallest real task. It says in which state it was validated."""

    def __init__(self):
        self.networks = {"line": nn.Linear(3, 1)}
        self.validated = []

    def losses(self, batch: dict, generator: torch.Generator):
        noise = torch.randn(len(batch["x"]), 1, generator=generator)
        loss = (self.networks["line"](batch["x"]) - batch["y"] - 0.1 * noise).square().mean()
        yield "line", loss, {"noise": noise.mean()}

    def validate(self) -> dict[str, float]:
        line = self.networks["line"]
        self.validated.append((line.training, line.weight.detach().clone()))
        return {"val_norm": line.weight.norm().item()}


def points(count: int = 7) -> list[dict[str, Tensor]]:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return [{"x": one, "y": one.sum(dim=0, keepdim=True)} for one in x]


def items(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{key: value[i] for key, value in batch.items()} for i in range(len(batch["flow"]))]


def single_network() -> tuple[Task, list]:
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return BackboneTask(tiny_backbone(), NullPrompt(), make_scheduler()), [
        {"target_latents": z} for z in latents
    ]


def gan() -> tuple[Task, list]:
    generator = FlowGen(base_channels=4, num_downs=6, norm_groups=2)  # deep enough to have dropout
    discriminator = PatchDiscriminator(base_channels=4, num_layers=3, norm_groups=2)
    return FlowGenTask(generator, discriminator), items(pair_batch(3))


def settings(out: Path, **options) -> LoopSettings:
    defaults = {"steps": STEPS, "batch_size": 2, "learning_rate": 1e-3, "warmup": 2, "log_every": 2}
    return LoopSettings(out=out, **{**defaults, **options})


def metrics(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(first: Path, second: Path) -> None:
    """Equal metrics, and equal bits of every weight, optimiser state and average in the last checkpoint."""
    assert metrics(first) == metrics(second)
    one, other = latest_checkpoint(first), latest_checkpoint(second)
    assert one.name == other.name
    for path in one.glob("*.safetensors"):
        state, again = load_file(path), load_file(other / path.name)
        assert all(torch.equal(state[key], again[key]) for key in state)
    for path in one.glob("*.pt"):
        state, again = (torch.load(folder / path.name, weights_only=True) for folder in (one, other))
        assert_close(state, again, rtol=0, atol=0)


class Interrupted(Exception):
    pass


def interrupt_at(step: int) -> Callable[[dict], None]:
    def on_log(line: dict) -> None:
        if line["step"] == step:
            raise Interrupted

    return on_log


@pytest.mark.parametrize("make", [single_network, gan])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(make, tmp_path):
    whole, broken = settings(tmp_path / "whole"), settings(tmp_path / "broken", checkpoint_every=3)
    task, dataset = make()
    assert train_loop(task, dataset, whole) == STEPS
    torch.manual_seed(0)  # the same first weights
    task, dataset = make()
    with pytest.raises(Interrupted):
        train_loop(task, dataset, broken, on_log=interrupt_at(4))
    assert [line["step"] for line in metrics(broken.out)] == [2, 4]
    resumed, dataset = make()  # with other first weights, which must not matter
    assert train_loop(resumed, dataset, broken) == STEPS
    assert [line["step"] for line in metrics(broken.out)] == [2, 4, 5]
    assert_same_run(whole.out, broken.out)


def test_a_time_budget_stops_with_a_checkpoint_and_the_next_call_goes_on(tmp_path):
    train_loop(Line(), points(), settings(tmp_path / "whole"))
    torch.manual_seed(0)
    reached = [train_loop(Line(), points(), settings(tmp_path / "parts", minutes=0.0)) for _ in range(STEPS)]
    assert reached == [1, 2, 3, 4, 5]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_stops_early_tells_how_far_it_came(tmp_path):
    train_loop(Line(), points(), settings(tmp_path, minutes=0.0, log_every=100))
    assert [line["step"] for line in metrics(tmp_path)] == [1]


def test_a_generous_time_budget_changes_nothing(tmp_path):
    assert train_loop(Line(), points(), settings(tmp_path, minutes=5.0)) == STEPS


def test_a_finished_run_is_loaded_and_not_trained_further(tmp_path):
    first, again = Line(), Line()
    train_loop(first, points(), settings(tmp_path))
    before = (tmp_path / "metrics.jsonl").read_text()
    assert train_loop(again, points(), settings(tmp_path)) == STEPS
    assert torch.equal(again.networks["line"].weight, first.networks["line"].weight)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_an_unfinished_checkpoint_is_ignored_and_cleared_away(tmp_path):
    train_loop(Line(), points(), settings(tmp_path / "whole"))
    torch.manual_seed(0)
    train_loop(Line(), points(), settings(tmp_path / "broken", minutes=0.0))
    partial = tmp_path / "broken" / "checkpoint-00000003.partial"
    partial.mkdir()
    (partial / "line.safetensors").write_bytes(b"half a file")
    assert latest_checkpoint(tmp_path / "broken").name == "checkpoint-00000001"
    train_loop(Line(), points(), settings(tmp_path / "broken"))
    assert [path.name for path in (tmp_path / "broken").glob("checkpoint-*")] == ["checkpoint-00000005"]
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_fresh_run_forgets_the_metrics_of_a_run_without_checkpoint(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    train_loop(Line(), points(), settings(tmp_path))
    assert [line["step"] for line in metrics(tmp_path)] == [2, 4, 5]


def test_metrics_count_images_and_are_means_since_the_line_before(tmp_path):
    seen = []
    train_loop(Line(), points(), settings(tmp_path / "two"), on_log=seen.append)
    torch.manual_seed(0)
    train_loop(Line(), points(), settings(tmp_path / "one", log_every=1))
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["images"] for line in two] == [4, 8, 10]
    assert len(seen) == 3 and {"seconds", *two[0]} == set(seen[0])
    for key in ("line_loss", "noise"):
        assert two[1][key] == pytest.approx((one[2][key] + one[3][key]) / 2)


def test_seeds_decide_the_run(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(0)
        train_loop(Line(), points(), settings(tmp_path / name, seed=seed))
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != metrics(tmp_path / "c")


def test_at_the_end_the_networks_hold_their_averages_which_differ_from_the_raw_weights(tmp_path):
    task = Line()
    train_loop(task, points(), settings(tmp_path))
    folder = latest_checkpoint(tmp_path)
    raw = load_file(folder / "line.safetensors")["weight"]
    averaged = torch.load(folder / "line.average.pt", weights_only=True)["shadow_params"][0]
    line = task.networks["line"]
    assert torch.equal(line.weight, averaged) and not torch.equal(line.weight, raw) and not line.training


def test_validation_sees_the_averages_and_leaves_training_as_it_was(tmp_path):
    task = Line()
    train_loop(task, points(), settings(tmp_path / "with", validate_every=2))
    torch.manual_seed(0)
    train_loop(Line(), points(), settings(tmp_path / "without"))
    assert [training for training, _ in task.validated] == [False] * 3  # after 2, 4 and the last
    assert torch.equal(task.validated[-1][1], task.networks["line"].weight)
    lines = metrics(tmp_path / "with")
    assert all(line.pop("val_norm") > 0 for line in lines) and lines == metrics(tmp_path / "without")


def test_precision_is_the_run_s_own_and_leaves_the_network_when_it_ends(tmp_path):
    for precision in ("bf16", "no", "bf16", "auto"):
        task, dataset = single_network()
        train_loop(task, dataset, settings(tmp_path / precision, steps=1, mixed_precision=precision))
        saved = json.loads((latest_checkpoint(tmp_path / precision) / "state.json").read_text())["settings"]
        assert saved["mixed_precision"] == (fast_precision() if precision == "auto" else precision)
        unet = task.networks["unet"]
        fresh = UNet2DConditionModel.from_config(unet.config).eval()
        fresh.load_state_dict(unet.state_dict())
        inputs = (torch.randn(1, 4, 8, 8), 3, torch.zeros(1, 1, 64))
        with torch.no_grad():
            assert_close(unet(*inputs).sample, fresh(*inputs).sample)


def test_learning_rate_warms_up_and_falls_to_zero_along_half_a_cosine():
    plan = settings(Path("."), steps=100, warmup=10)
    factors = [learning_rate_factor(step, plan) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[4] == pytest.approx(0.5, abs=0.01)
    assert factors[50] == pytest.approx(0.5) and factors[100] == pytest.approx(0, abs=1e-6)
    assert all(a < b for a, b in zip(factors[:9], factors[1:10], strict=True))
    assert all(a > b for a, b in zip(factors[9:-1], factors[10:], strict=True))


@pytest.mark.parametrize(("size", "batch_size"), [(7, 2), (6, 3), (3, 8), (1, 4)])
def test_every_index_comes_once_an_epoch(size, batch_size):
    sampler = StepSampler(size, batch_size, 0, range(3 * size))
    order = [index for batch in sampler for index in batch]
    assert len(sampler) == 3 * size and len(order) == 3 * size * batch_size
    epochs = [order[start : start + size] for start in range(0, len(order), size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert size < 3 or len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("start", [0, 1, 4, 19])
def test_the_order_does_not_depend_on_the_step_it_starts_from(start):
    whole = list(StepSampler(7, 3, 5, range(20)))
    assert list(StepSampler(7, 3, 5, range(start, 20))) == whole[start:]
    assert list(StepSampler(7, 3, 6, range(20))) != whole


def test_processes_share_every_batch():
    sampler = StepSampler(7, 4, 0, range(5))
    shares = [list(ProcessShare(sampler, process, 2)) for process in range(2)]
    for batch, one, other in zip(sampler, *shares, strict=True):
        assert len(one) == len(other) == 2 and sorted(one + other) == sorted(batch)


def test_an_empty_training_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        train_loop(Line(), [], settings(tmp_path))
