"""Latents of LightningDrag's pairs: what may change, mirrored drags, one computation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dragstudy.data.pairs import Pair, PairDataset, ShardWriter
from dragstudy.models.autoencoder import encode
from dragstudy.training.augment import mirror_pairs
from dragstudy.training.latents import augment_pairs
from dragstudy.training.lightning_latents import (
    cached_lightning_latents,
    editable_pair,
    encode_lightning_pairs,
)

from ..tiny import pair_batch, tiny_autoencoder

HANDLE, TARGET = (20, 30), (28, 36)  # x, y


def dragged_batch(count: int = 4, size: int = 64) -> dict[str, Tensor]:
    """Pairs in each of which one white pixel moves; the second place for a point is empty."""
    batch = pair_batch(count, size)
    for name, place, image in (("handle_points", HANDLE, "source"), ("target_points", TARGET, "target")):
        batch[name] = torch.full((count, 2, 2), torch.nan)
        batch[name][:, 0] = torch.tensor(place).float()
        batch[image] = 0.5 * batch[image]
        batch[image][:, :, place[1], place[0]] = 1
    return batch


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    """Five pairs of 64 x 64 pixels with two drags each."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path) as writer:
        for k in range(5):
            place = {"clip": "a", "identity": "b", "split": "train", "fps": 10.0, "estimator": "dis"}
            place |= {"source_index": k, "target_index": k + 1}
            drags = {
                name: rng.uniform(20, 40, (2, 2)).tolist() for name in ("handle_points", "target_points")
            }
            mask = np.zeros((64, 64), np.uint8)
            mask[20:40, 20:40] = 255
            frames = rng.integers(0, 255, (2, 64, 64, 3), np.uint8)
            flow, valid = np.zeros((2, 64, 64), np.float32), np.ones((64, 64), np.uint8)
            writer.write(Pair(f"a-{k}", *frames, mask, mask, flow, valid, info=place | drags))
    return PairDataset(tmp_path, max_points=4)


def test_pictures_agree_outside_the_mask_and_the_target_is_itself_inside() -> None:
    batch = dragged_batch()
    source, target, mask = editable_pair(batch)
    assert 0 < mask.mean() < 1 and (source != target).any()
    assert_close(target * (1 - mask), batch["source"] * (1 - mask), atol=0, rtol=0)
    assert_close(target * mask, batch["target"] * mask, atol=0, rtol=0)
    assert_close(source, batch["source"], atol=0, rtol=0)
    for name in ("mask", "target_mask"):
        assert (mask >= batch[name]).all() and mask.sum() > batch[name].sum()


def test_a_latent_may_change_where_any_of_its_pixels_may() -> None:
    batch = dragged_batch(1)
    batch["mask"] = batch["target_mask"] = torch.zeros(1, 1, 64, 64)
    assert encode_lightning_pairs(batch, tiny_autoencoder())["mask"].sum() == 0
    batch["mask"] = batch["mask"].clone()
    batch["mask"][..., 30, 31] = 1  # grows to rows 23..37 and columns 24..38
    mask = encode_lightning_pairs(batch, tiny_autoencoder())["mask"]
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 2:5, 3:5] = 1
    assert_close(mask, expected)


def test_latents_are_equal_where_nothing_moves() -> None:
    batch = dragged_batch()
    batch["mask"] = batch["target_mask"] = torch.zeros(4, 1, 64, 64)
    encoded = encode_lightning_pairs(batch, tiny_autoencoder())
    assert_close(encoded["source_latents"], encoded["target_latents"], atol=0, rtol=0)


def test_mirrored_and_recoloured_drags_still_lead_from_pixel_to_pixel(generator) -> None:
    batch = dragged_batch(8)
    augmented = augment_pairs(batch, generator)
    handles, targets = augmented["handle_points"][:, 0].long(), augmented["target_points"][:, 0].long()
    assert set(handles[:, 0].tolist()) == {HANDLE[0], 63 - HANDLE[0]}
    every = torch.arange(8)
    for image, points in (("source", handles), ("target", targets)):
        brightness = augmented[image].sum(dim=1)
        assert_close(brightness[every, points[:, 1], points[:, 0]], brightness.amax(dim=(1, 2)))
    assert augmented["handle_points"][:, 1].isnan().all()
    drag = (batch["target_points"] - batch["handle_points"])[:, 0]
    turned = (augmented["target_points"] - augmented["handle_points"])[:, 0]
    assert_close(turned.abs(), drag.abs())
    assert_close((turned[:, 0] < 0), handles[:, 0] != HANDLE[0])


def test_both_frames_change_colours_alike(generator) -> None:
    batch = dragged_batch()
    batch["target"] = batch["source"]
    augmented = augment_pairs(batch, generator)
    assert_close(augmented["source"], augmented["target"])
    assert (augmented["source"] - batch["source"]).abs().max() > 0.02


def test_pairs_without_drags_are_mirrored_as_before(generator) -> None:
    assert set(mirror_pairs(pair_batch(), generator)) == set(pair_batch())


def test_latents_are_computed_once_and_are_the_autoencoder_s(pairs: PairDataset) -> None:
    autoencoder = tiny_autoencoder()
    latents = cached_lightning_latents(pairs, autoencoder, augmented=False, batch_size=2)
    (path,) = pairs.folder.glob("lightning-latents-*.safetensors")
    made = path.stat().st_mtime_ns
    again = cached_lightning_latents(pairs, autoencoder, augmented=False, batch_size=2)
    assert path.stat().st_mtime_ns == made and len(latents) == len(again) == len(pairs) == 5
    for k in range(5):
        item, pair = latents[k], pairs[k]
        with torch.no_grad():
            expected = encode(autoencoder, 2 * pair["source"][None] - 1)[0]
        assert_close(item["source_latents"].float(), expected, atol=0.03, rtol=0.03)
        assert item["mask"].shape == (1, 8, 8) and 0 < item["mask"].float().mean() < 1
        for name in ("handle_points", "target_points"):
            assert_close(item[name], pair[name], atol=0, rtol=0, equal_nan=True)


def test_augmentation_and_autoencoder_have_files_of_their_own(pairs: PairDataset) -> None:
    autoencoder = tiny_autoencoder()
    plain = cached_lightning_latents(pairs, autoencoder, augmented=False)
    first = cached_lightning_latents(pairs, autoencoder)
    for path in pairs.folder.glob("lightning-latents-*.safetensors"):
        path.unlink()
    again = cached_lightning_latents(pairs, autoencoder)
    for name, value in first.tensors.items():
        assert_close(again.tensors[name], value, atol=0, rtol=0, equal_nan=True)
    assert (plain.tensors["source_latents"] != first.tensors["source_latents"]).any()
    cached_lightning_latents(pairs, tiny_autoencoder())  # other weights
    assert len(list(pairs.folder.glob("lightning-latents-*.safetensors"))) == 2


def test_drags_need_room(pairs: PairDataset) -> None:
    with pytest.raises(ValueError, match="open the pairs with max_points"):
        cached_lightning_latents(PairDataset(pairs.folder), tiny_autoencoder())
