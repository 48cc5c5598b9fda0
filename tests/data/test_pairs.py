"""Pairs survive their way through shards, and the dataset reads them from anywhere."""

import gc
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dragstudy.data.pairs import Pair, PairDataset, ShardWriter, decode_pair, encode_pair, pair_row


@pytest.fixture
def folder(tmp_path: Path, make_pair) -> Path:
    """Ten pairs in shards of four; numbers 7 to 9 are test pairs, and two more were rejected."""
    with ShardWriter(tmp_path / "shards", pairs_per_shard=4) as writer:
        for k in range(10):
            writer.write(make_pair(k, split="train" if k < 7 else "test"), mean_motion=float(k))
        for k in (10, 11):
            writer.reject(pair_row(make_pair(k)), "no_face")
    return tmp_path / "shards"


def test_record_round_trip(make_pair) -> None:
    pair = make_pair(1, handle_points=[[1.0, 2.0]])
    back = decode_pair(pair.key, encode_pair(pair))
    assert np.abs(back.source.astype(int) - pair.source).mean() < 2.5  # JPEG at quality 95
    for name in ("mask", "target_mask", "valid"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pair, name))
    largest = np.abs(pair.flow).max(axis=(1, 2), keepdims=True)
    assert (np.abs(back.flow - pair.flow) <= largest / 254 + 1e-6).all()
    np.testing.assert_allclose(back.landmarks, pair.landmarks, atol=1e-3)
    assert back.target_landmarks is None
    assert back.info == pair.info


def test_encoding_is_deterministic(make_pair) -> None:
    assert encode_pair(make_pair(3)) == encode_pair(make_pair(3))


def test_masked_flow_is_zero_outside(make_pair) -> None:
    pair = make_pair(2)
    assert (pair.masked_flow[:, pair.mask == 0] == 0).all()
    assert (pair.masked_flow[:, pair.mask > 0] == pair.flow[:, pair.mask > 0]).all()


def test_items(folder: Path, make_pair) -> None:
    dataset = PairDataset(folder, split=None)
    assert len(dataset) == 10
    item = dataset[5]
    shapes = {name: tuple(value.shape) for name, value in item.items() if name != "key"}
    assert shapes == {
        "source": (3, 32, 48), "target": (3, 32, 48), "mask": (1, 32, 48), "target_mask": (1, 32, 48),
        "valid": (1, 32, 48), "flow": (2, 32, 48), "landmarks": (68, 2), "target_landmarks": (68, 2),
    }  # fmt: skip
    assert item["key"] == make_pair(5).key
    assert 0 <= item["source"].min() and item["source"].max() <= 1
    assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
    assert item["landmarks"].isfinite().all() and item["target_landmarks"].isnan().all()


def test_splits(folder: Path) -> None:
    assert len(PairDataset(folder)) == 7
    assert [k for k in PairDataset(folder, "test").manifest["source_index"]] == [7, 8, 9]
    with pytest.raises(ValueError, match="no kept pairs of split 'val'"):
        PairDataset(folder, "val")


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dragstudy curate"):
        PairDataset(tmp_path)


def test_any_order_and_any_process(folder: Path) -> None:
    dataset = PairDataset(folder, split=None)
    straight = [dataset[k]["flow"] for k in range(10)]
    copy = pickle.loads(pickle.dumps(dataset))
    for k in reversed(range(10)):
        torch.testing.assert_close(copy[k]["flow"], straight[k], rtol=0, atol=0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=5, num_workers=1, multiprocessing_context="spawn"
    )
    torch.testing.assert_close(torch.cat([batch["flow"] for batch in loader]), torch.stack(straight))


def test_padded_drag_points(tmp_path: Path, make_pair) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_pair(0, handle_points=[[1, 2], [3, 4]], target_points=[[5, 6], [7, 8]]))
        writer.write(make_pair(1))
    dataset = PairDataset(tmp_path, max_points=3)
    assert dataset[0]["handle_points"][:2].tolist() == [[1, 2], [3, 4]]
    assert dataset[0]["handle_points"][2].isnan().all() and dataset[1]["target_points"].isnan().all()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_webdataset_reads_the_shards(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    gc.collect()
    assert len(urls) == 3 and len(samples) == 10
    assert [sample["__key__"] for sample in samples] == list(PairDataset(folder, None).manifest["key"])
    assert samples[0]["source.jpg"].shape == (32, 48, 3)
    assert samples[1]["json"]["identity"] == "person1"


def test_an_item_is_fast(tmp_path: Path, make_pair) -> None:
    small = make_pair(1)
    grown = {name: np.kron(getattr(small, name), np.ones((8, 6), np.uint8)) for name in ("mask", "valid")}
    frame = np.kron(small.source, np.ones((8, 6, 1), np.uint8))
    flow = np.kron(small.flow, np.ones((1, 8, 6), np.float32))
    pair = Pair("big", frame, frame, grown["mask"], grown["mask"], flow, grown["valid"], info=small.info)
    with ShardWriter(tmp_path) as writer:
        writer.write(pair)
    dataset, times = PairDataset(tmp_path), []
    for _ in range(20):
        start = time.process_time()
        dataset[0]
        times.append(time.process_time() - start)
    assert min(times) < 0.016  # seconds of the processor; half of that is usual


def test_refused_pairs(make_pair) -> None:
    pair = make_pair(0)
    parts = (pair.source, pair.target, pair.mask, pair.target_mask, pair.flow, pair.valid)
    with pytest.raises(ValueError, match="without dot and slash"):
        Pair("a.b", *parts)
    with pytest.raises((TypeError, ValueError)):
        Pair("a", *parts[:4], pair.flow[:, :8], pair.valid)
