"""FlowDiffusion's trials: told the flow, measured by edits and losses; what sample-wise flows forget."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from dragstudy.ablations import flowdiffusion
from dragstudy.ablations.flowdiffusion import FlowDiffusionTrials, pair_losses
from dragstudy.ablations.flowdiffusion_edits import edit_pair, make_editor, measure_pair
from dragstudy.data.pairs import PairDataset
from dragstudy.flow import normalize_flow, resize_flow
from dragstudy.models.backbone import NullPrompt, make_scheduler
from dragstudy.models.flowdiffusion import flow_conditions
from dragstudy.sweeps import collect, grid, run_trials
from dragstudy.training.flowdiffusion import FlowDiffusionTask, sample_as_fixed

from ..tiny import tiny_autoencoder, tiny_backbone, tiny_flowdiffusion
from .pairs import write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    tiny_autoencoder().save_pretrained(folder / "autoencoder")
    tiny_backbone().save_pretrained(folder / "backbone")
    return folder


def test_conditions_of_sample_wise_flows_are_those_of_that_normalisation(generator):
    flow, latents = 5 * torch.randn(2, 2, 32, 24, generator=generator), torch.zeros(2, 4, 8, 6)
    small = resize_flow(flow, (8, 6), mode="area")
    found = flow_conditions(latents, sample_as_fixed(small))[:, 4:]
    assert_close(found, normalize_flow(small, "sample")[0])
    assert_close(sample_as_fixed(3 * small), sample_as_fixed(small))


def editor(normalization: str):
    torch.manual_seed(0)
    return make_editor(tiny_flowdiffusion(), tiny_autoencoder(), flow_scale=1.0, normalization=normalization)


@pytest.mark.slow
def test_an_editor_of_sample_wise_flows_cannot_know_their_size(pairs):
    item = PairDataset(pairs, "test")[0]
    longer = item | {"flow": 2 * item["flow"]}
    for normalization, knows in (("fixed", True), ("sample", False)):
        pipe = editor(normalization)
        one, two = (edit_pair(pipe, each, num_inference_steps=2) for each in (item, longer))
        assert one.shape == (1, 3, 128, 128) and torch.equal(one, two) is not knows
        assert torch.equal(one, edit_pair(pipe, item, num_inference_steps=2))


def test_delivered_and_asked_motion_are_in_one_unit(pairs, asset):
    asset("lpips", "alexnet.ckpt")
    item = PairDataset(pairs, "test")[0]
    begin, end = (item[name].double().numpy() for name in ("landmarks", "target_landmarks"))
    for share in (0.0, 0.5, 1.0):
        found = measure_pair(item["target"][None], item, lambda _, share=share: begin + share * (end - begin))
        assert found["delivered"] == pytest.approx(share * found["asked"], abs=1e-9)
        assert found["motion"] == pytest.approx(5**0.5, rel=1e-4)
        assert found["landmark_distance"] == pytest.approx((1 - share) * 5**0.5, rel=1e-4, abs=1e-6)
    assert measure_pair(item["target"][None], item, lambda _: None)["delivered"] != found["delivered"]


def test_a_pair_s_loss_does_not_depend_on_its_neighbours(generator):
    batch = {
        name: torch.randn(3, 4, 8, 8, generator=generator) for name in ("source_latents", "target_latents")
    }
    batch["flow"] = torch.randn(3, 2, 8, 8, generator=generator)
    task = FlowDiffusionTask(tiny_flowdiffusion(), NullPrompt(), make_scheduler(), drop_image=0, drop_flow=0)
    together = torch.tensor(pair_losses(task, batch))
    alone = [
        pair_losses(task, {name: value[k : k + 1] for name, value in batch.items()})[0] for k in range(3)
    ]
    assert_close(together, torch.tensor(alone), rtol=1e-4, atol=1e-5)
    assert len(set(alone)) == 3


@pytest.mark.slow
def test_trials_train_from_the_backbone_and_are_measured(pairs, weights, tmp_path, asset):
    asset("lpips", "alexnet.ckpt"), asset("face-recognition-models", "shape_predictor_68_face_landmarks.dat")
    task = FlowDiffusionTrials(pairs, pairs, weights)
    changed = {"steps": 2, "batch_size": 2, "validate_every": 1, "log_every": 1, "mixed_precision": "no"}
    variants = {"concat": {}, "few": {"subset": 2}, "sample": {"normalization": "sample", "flow_scale": 1.0}}
    measuring = flowdiffusion.MEASURING | {"count": 2, "seen": 2, "sampling_steps": 1}
    trials = grid(task, flowdiffusion.BASE | changed, variants, (0,), measuring)
    states = run_trials(trials, tmp_path, report=lambda _: None)
    assert list(states["state"]) == ["complete"] * 3, list(states["error"])
    tables = collect(trials, tmp_path)
    assert len(tables["flowdiffusion-edits"]) == 3 * 2 and len(tables["flowdiffusion-losses"]) == 3 * 6
    assert set(tables["flowdiffusion-losses"]["set"]) == {"held-out", "train", "val"}
    assert tables["flowdiffusion-losses"]["loss"].notna().all()
    assert list(tables["flowdiffusion-curve"]["val_loss"].notna()) == [True] * 6
    losses = tables["flowdiffusion-losses"].groupby("variant")["loss"].mean()
    assert losses.nunique() == 3
    assert len(list(pairs.glob("latents-*.safetensors"))) == 2
