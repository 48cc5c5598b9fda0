"""Fine-tuning on one video: adapters and FlowGen learn, the rest stays, later frames are never trained on."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from dragstudy import cli
from dragstudy.data.shards import read_manifest
from dragstudy.metrics.finetuned import AFTER, BEFORE, study_clip
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.lora import LORA_FILE
from dragstudy.pipelines import InstantDragPipeline, load
from dragstudy.training.checkpoints import latest_checkpoint
from dragstudy.training.finetune import (
    FinetuneSettings,
    finetune,
    flowgen_task,
    split_by_time,
    unet_task,
)

from ..tiny import picture, tiny_instantdrag

METHOD = "instantdrag-splat"
FRAMES = 12
SETTINGS = FinetuneSettings(
    mask="none", max_interval=2, pairs=None, min_valid_share=0.2, steps=3, batch_size=2, flowgen_steps=2,
    flowgen_batch_size=2, mixed_precision="no",
)  # fmt: skip
FLAGS = ["mask=none", "max_interval=2", "pairs=null", "min_valid_share=0.2", "steps=3", "batch_size=2"]
FLAGS += ["flowgen_steps=2", "flowgen_batch_size=2", "mixed_precision='no'"]  # a bare no is false in YAML
DRAG = {"handle_points": [[30, 30]], "target_points": [[36, 26]]}


def write_clip(path: Path, step: int) -> Path:
    """A pan of `step` px a frame over a colourful picture."""
    wide = np.asarray(picture(64 + FRAMES * 3, 64))[:, :, ::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for k in range(FRAMES):
        writer.write(np.ascontiguousarray(wide[:, k * step : k * step + 64]))
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "pan.avi", step=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    tiny_instantdrag("splat").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finetuned(clip, base, tmp_path_factory) -> Path:
    """What the command makes."""
    out = tmp_path_factory.mktemp("finetuned") / "pan"
    options = [argument for flag in FLAGS for argument in ("--set", flag)]
    command = ["finetune", str(clip), "--out", str(out), "--weights", str(base), *options]
    assert cli.main(command) == 0
    return out


def loaded(base: Path, finetuned: Path | None = None) -> InstantDragPipeline:
    pipe = load(METHOD, base)
    pipe.set_progress_bar_config(disable=True)
    if finetuned:
        pipe.load_finetuned(finetuned)
    return pipe


def edit(pipe: InstantDragPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.asarray(
        pipe(picture(64, 64), **DRAG, generator=generator, num_inference_steps=2).images[0], int
    )


def made(folder: Path) -> dict[str, torch.Tensor]:
    """All weights that a fine-tuning made."""
    return load_file(folder / LORA_FILE) | load_file(folder / "flowgen/diffusion_pytorch_model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_adapters_and_flowgen_learn_and_nothing_else(base, finetuned):
    before, after = loaded(base), loaded(base, finetuned)
    kept = {name.replace(".base_layer", ""): weight for name, weight in after.unet.state_dict().items()}
    assert all(torch.equal(kept[name], weight) for name, weight in before.unet.state_dict().items())
    learned = {name: weight.any() for name, weight in after.unet.named_parameters() if "lora_B" in name}
    # attention to a single token, such as the null prompt, has nothing to weigh: its queries learn nothing
    assert all(learned[name] for name in learned if "resnets" in name) and len(learned) > 50
    pairs = zip(before.flowgen.parameters(), after.flowgen.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)
    assert np.abs(edit(before) - edit(after)).max() > 0


def test_the_average_too_leaves_frozen_weights_bit_for_bit(base, finetuned):
    before = loaded(base).unet.state_dict()
    state = load_file(latest_checkpoint(finetuned / "unet-training") / "unet.safetensors")
    frozen = {name.replace(".base_layer", ""): w for name, w in state.items() if "lora_" not in name}
    assert frozen.keys() == before.keys() and all(torch.equal(frozen[name], before[name]) for name in frozen)


def test_the_pipeline_edits_as_it_was_trained(clip, base, finetuned, tmp_path):
    """The adapters' effect survives the file: the U-Net in training and the loaded one say the same."""
    pipe = loaded(base)
    unet_task(pipe, *split_by_time(finetuned / "pairs-64", SETTINGS.held_out), SETTINGS)
    folder = latest_checkpoint(finetuned / "unet-training")
    pipe.unet.load_state_dict(load_file(folder / "unet.safetensors"))
    average = torch.load(folder / "unet.average.pt", weights_only=True)["shadow_params"]
    for weight, mean in zip(pipe.unet.parameters(), average, strict=True):
        weight.data = mean
    pipe.register_modules(flowgen=FlowGen.from_pretrained(finetuned / "flowgen", torch_dtype=torch.float32))
    assert np.abs(edit(pipe) - edit(loaded(base, finetuned))).max() <= 1


def test_the_edit_command_uses_them(base, finetuned, tmp_path):
    picture(64, 64).save(tmp_path / "photo.png")
    command = [
        "edit",
        str(tmp_path / "photo.png"),
        "--drag",
        "30,30:36,26",
        "--method",
        METHOD,
        "--steps",
        "2",
    ]
    command += ["--weights", str(base), "--finetuned", str(finetuned), "-o", str(tmp_path / "out.png")]
    assert cli.main(command) == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "out.png"))[:, :, ::-1], edit(loaded(base, finetuned)))


def test_its_later_pairs_are_measured_before_and_after(base, finetuned):
    options = {"method": METHOD, "weights": base, "num_inference_steps": 1}
    study = study_clip("pan", finetuned, SETTINGS.held_out, 2, 3, **options)
    early, later = split_by_time(finetuned / "pairs-64", SETTINGS.held_out)
    assert (study.pairs, study.later) == (len(early), len(later))
    assert {item["key"] for item in study.items} <= set(later.manifest["key"])
    rows = study.edits.set_index(["clip", "method", "key"])
    for item in study.items:
        both = [rows.loc[("pan", name, item["key"]), "psnr"] for name in (BEFORE, AFTER)]
        assert both[0] != both[1]
        assert not torch.equal(
            *(study.predicted[f"FlowGen, {name}", item["key"]] for name in (BEFORE, AFTER))
        )
    with pytest.raises(ValueError, match="nothing was held out"):
        study_clip("pan", finetuned, 0, 2, 3, method=METHOD, weights=base)


def test_a_finished_run_is_not_trained_further(clip, base, finetuned):
    before = made(finetuned)
    log = (finetuned / "unet-training" / "metrics.jsonl").read_text()
    finetune(clip, finetuned, SETTINGS, method=METHOD, weights=base)
    assert_same(made(finetuned), before)
    assert (finetuned / "unet-training" / "metrics.jsonl").read_text() == log


def test_a_run_that_stopped_goes_on_to_the_same_weights(clip, base, finetuned, tmp_path):
    for reached in (1, 2, 3):  # a budget of nothing is one step of each training
        finetune(clip, tmp_path, SETTINGS, method=METHOD, weights=base, minutes=0.0)
        assert latest_checkpoint(tmp_path / "unet-training").name == f"checkpoint-{reached:08d}"
    assert_same(made(tmp_path), made(finetuned))


def test_a_folder_of_other_settings_or_another_base_is_refused(clip, base, finetuned, tmp_path):
    with pytest.raises(ValueError, match="made with another rank: use another folder"):
        finetune(clip, finetuned, replace(SETTINGS, rank=4), method=METHOD, weights=base)
    torch.manual_seed(1)
    tiny_instantdrag("splat").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another weights and base: use another folder"):
        finetune(clip, finetuned, SETTINGS, method=METHOD, weights=tmp_path)
    with pytest.raises(ValueError, match="another U-Net"):
        load("instantdrag", tmp_path).load_finetuned(finetuned)


def test_pairs_are_split_by_time(finetuned):
    early, later = split_by_time(finetuned / "pairs-64", 0.2)
    for pairs, frames in ((early, range(10)), (later, range(10, FRAMES))):
        assert set(pairs.manifest["source_index"]) | set(pairs.manifest["target_index"]) <= set(frames)
        assert [pairs[k]["key"] for k in range(len(pairs))] == list(pairs.manifest["key"])
    kept = (read_manifest(finetuned / "pairs-64")["reason"] == "").sum()
    everything, nothing = split_by_time(finetuned / "pairs-64", 0)
    assert len(everything) == kept > len(early) + len(later) and nothing is None
    with pytest.raises(ValueError, match="no kept pair lies in frames 11 to 11"):
        split_by_time(finetuned / "pairs-64", 0.1)


def test_the_card_and_the_logs_tell_what_was_done(finetuned):
    card = (finetuned / "README.md").read_text()
    for text in (
        "pan.avi",
        "FlowGen**: 2 steps",
        "FlowDiffusion**: 3 steps",
        "max_interval=2",
        ", loss ",
        "epe",
    ):
        assert text in card
    assert str(finetuned.parent) not in card + (finetuned / "finetuned.json").read_text()


def test_image_latents_are_as_the_u_net_was_trained_to_see_them(base, finetuned):
    halves = split_by_time(finetuned / "pairs-64", 0)
    scaled, unscaled = loaded(base), loaded(base)
    unscaled.register_to_config(scale_image_latents=False)
    for pipe in (scaled, unscaled):
        pipe.autoencoder.register_to_config(scaling_factor=0.5)
    (_, one), (_, other) = (unet_task(pipe, *halves, SETTINGS) for pipe in (scaled, unscaled))
    assert_close(other.tensors["source_latents"], 2 * one.tensors["source_latents"])
    assert torch.equal(other.tensors["target_latents"], one.tensors["target_latents"])


def test_a_flowgen_that_does_not_fit_the_frames_is_refused():
    pipe = tiny_instantdrag()
    pipe.register_modules(flowgen=FlowGen(base_channels=4, num_downs=7, norm_groups=2))
    with pytest.raises(ValueError, match="multiples of 128, got 64 x 64"):
        flowgen_task(pipe, [{"flow": torch.zeros(2, 64, 64)}], None, SETTINGS)


def test_what_cannot_be_learned_from_is_refused(base, tmp_path):
    with pytest.raises(FileNotFoundError, match="no clip at"):
        finetune(tmp_path / "no.mp4", tmp_path / "out", weights=base)
    still = write_clip(tmp_path / "still.avi", step=0)
    with pytest.raises(ValueError, match="can be trained on: 21 near_identical"):
        finetune(still, tmp_path / "out", SETTINGS, method=METHOD, weights=base)
    with pytest.raises(ValueError, match="warp has no FlowGen"):
        finetune(still, tmp_path / "warp", SETTINGS, method="warp")
    with pytest.raises(ValueError, match="held_out must be"):
        FinetuneSettings(held_out=1.0)
