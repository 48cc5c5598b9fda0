"""`dragstudy train`: every model from a tiny folder of pairs, in a few steps, and the weights it leaves."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file

from dragstudy import cli
from dragstudy.attention import self_attention_layers
from dragstudy.data.pairs import ShardWriter
from dragstudy.data.synthetic import synthetic_pair
from dragstudy.models.flowdiffusion import flow_variant
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.lora import LORA_FILE
from dragstudy.models.points import PointEmbedding
from dragstudy.training import TRAINABLE, train
from dragstudy.training.card import WEIGHTS

from ..tiny import picture

FEW = {"steps": 2, "batch_size": 2, "warmup": 1}
OWN = {
    "autoencoder": {"width": 8},
    "backbone": {},
    "inpainting": {},
    "lightning": {"widths": "[8, 8, 8, 8]"},
    "flowgen": {"num_downs": 4, "generator_updates": 2},
    "flowdiffusion": {"variant": "splat"},
    "flowdiffusion-lcm": {"rank": 2},
    "lightning-lcm": {"rank": 2},
}
NEEDS = {
    "backbone": ["autoencoder"],
    "inpainting": ["autoencoder", "backbone"],
    "lightning": ["autoencoder", "backbone", "inpainting"],
    "flowdiffusion": ["autoencoder", "backbone"],
    "flowdiffusion-lcm": ["autoencoder", "flowdiffusion"],
    "lightning-lcm": ["autoencoder", "lightning"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Two pairs of 128 x 128 to train on and one to validate with."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    with ShardWriter(folder) as writer:
        for k, split in enumerate(("train", "train", "val")):
            photo, chance = np.asarray(picture(128, 128, k)), torch.Generator().manual_seed(k)
            pair = synthetic_pair(photo, f"photo-{k}", chance, split=split)
            drags = {
                "handle_points": [[20.0, 30.0], [90.0, 64.0]],
                "target_points": [[28.0, 30.0], [90.0, 60.5]],
            }
            writer.write(replace(pair, info=pair.info | drags))
    return folder


def command(model: str, pairs: Path, runs: Path, **options) -> list[str]:
    given = FEW | OWN[model] | options
    for network in NEEDS.get(model, ()):
        given[network] = runs / network
    flags = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    return ["train", model, "--data", str(pairs), "--out", str(runs / model), *flags]


@pytest.fixture(scope="module")
def runs(pairs, asset, tmp_path_factory) -> Path:
    """A folder of the models, trained one after another as the README says."""
    asset("lpips", "alexnet.ckpt")
    folder = tmp_path_factory.mktemp("runs")
    (folder / "pairs").symlink_to(pairs)
    for model in TRAINABLE:
        assert cli.main(command(model, pairs, folder)) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", TRAINABLE)
def test_a_run_leaves_half_precision_weights_a_card_and_a_log(runs, model):
    out = runs / model
    name = LORA_FILE if model.endswith("-lcm") else WEIGHTS
    files = [path for path in out.rglob(name) if "checkpoint" not in str(path.relative_to(out))]
    assert len(files) == (3 if model == "lightning" else 1)
    for weights in map(load_file, files):
        assert {value.dtype for value in weights.values()} == {torch.float16}
        assert all(value.isfinite().all() for value in weights.values())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and any(key.startswith("val_") for key in lines[-1])
    card = (out / "README.md").read_text()
    assert "2 pairs of split `train`" in card and str(runs) not in card


@pytest.mark.slow
def test_the_weights_are_those_of_the_models(runs):
    autoencoder = AutoencoderTiny.from_pretrained(runs / "autoencoder")
    assert autoencoder.config.scaling_factor != 1 and autoencoder.config.latent_channels == 8
    assert UNet2DConditionModel.from_pretrained(runs / "backbone").config.in_channels == 8
    assert flow_variant(UNet2DConditionModel.from_pretrained(runs / "flowdiffusion")) == "splat"
    assert FlowGen.from_pretrained(runs / "flowgen").config.num_downs == 4
    points = PointEmbedding.from_pretrained(runs / "lightning" / "point_embedding")
    assert points.config.maps == "origins" and list(points.config.widths) == [8, 8, 8, 8]
    unet = UNet2DConditionModel.from_pretrained(runs / "lightning" / "unet")
    assert unet.config.in_channels == 17 and set(points.config.layers) == set(self_attention_layers(unet))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["backbone", "flowgen"])
def test_the_command_on_the_card_finds_a_finished_run(runs, model, monkeypatch):
    monkeypatch.chdir(runs)
    log, weights = Path(model, "metrics.jsonl"), Path(model, "diffusion_pytorch_model.safetensors")
    before = log.read_bytes(), weights.read_bytes()
    (line,) = (line for line in Path(model, "README.md").read_text().splitlines() if "**Command**" in line)
    assert cli.main(shlex.split(line.split("`")[1])[1:]) == 0
    assert (log.read_bytes(), weights.read_bytes()) == before


@pytest.mark.slow
def test_a_longer_run_goes_on_where_a_shorter_one_ended(runs, pairs):
    log = runs / "flowgen" / "metrics.jsonl"
    assert cli.main(command("flowgen", pairs, runs, steps=3)) == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [3]


@pytest.mark.slow
def test_latents_are_computed_once_for_an_autoencoder_and_an_approach(runs, pairs):
    """Training and validation pairs, for the backbone; FlowDiffusion finds them."""
    assert len(list(pairs.glob("latents-*.safetensors"))) == 2


def test_pairs_without_validation_are_refused(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write(synthetic_pair(np.asarray(picture(64, 64)), "photo", torch.Generator()))
    with pytest.raises(ValueError, match="no kept pairs of split 'val'"):
        train("flowgen", tmp_path, tmp_path / "out", **FEW)
