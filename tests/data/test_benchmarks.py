"""Flow files and the folders of FlyingChairs and Sintel."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dragstudy.data.benchmarks import flying_chairs, load_benchmark_pair, sintel, write_benchmark
from dragstudy.data.flow_files import read_flo, read_flow, read_flow_png, read_frame, write_flo
from dragstudy.data.pairs import PairDataset


@pytest.fixture
def flow() -> np.ndarray:
    return np.random.default_rng(0).uniform(-9, 9, (2, 24, 40)).astype(np.float32)


@pytest.fixture
def chairs(tmp_path: Path, flow: np.ndarray, textured) -> Path:
    """Three FlyingChairs pairs, the second for validation."""
    (tmp_path / "data").mkdir()
    for k in (1, 2, 3):
        for image in (1, 2):
            cv2.imwrite(str(tmp_path / "data" / f"{k:05d}_img{image}.ppm"), textured(24, 40, 10 * k + image))
        write_flo(tmp_path / "data" / f"{k:05d}_flow.flo", flow * k)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n")
    return tmp_path


def test_flo_round_trip(tmp_path: Path, flow: np.ndarray) -> None:
    write_flo(tmp_path / "a.flo", flow)
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), flow)


def test_flo_layout(tmp_path: Path) -> None:
    """The format as published: magic, width, height, then x and y of each pixel, row by row."""
    values = np.arange(12, dtype="<f4")
    (tmp_path / "a.flo").write_bytes(b"PIEH" + np.array([3, 2], "<i4").tobytes() + values.tobytes())
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo")[:, 1, 2], [10, 11])


def test_damaged_flo(tmp_path: Path, flow: np.ndarray) -> None:
    (tmp_path / "a.flo").write_bytes(b"nothing like a flow")
    with pytest.raises(ValueError, match="PIEH"):
        read_flo(tmp_path / "a.flo")
    write_flo(tmp_path / "b.flo", flow)
    (tmp_path / "b.flo").write_bytes((tmp_path / "b.flo").read_bytes()[:-4])
    with pytest.raises(ValueError, match="40 x 24 vectors"):
        read_flo(tmp_path / "b.flo")


def test_unknown_pixels(tmp_path: Path, flow: np.ndarray) -> None:
    flow[:, 3, 4] = 1e10
    write_flo(tmp_path / "a.flo", flow)
    read, known = read_flow(tmp_path / "a.flo")
    assert known.sum() == known.size - 1 and known[3, 4] == 0 and (read[:, 3, 4] == 0).all()


def test_png_flow(tmp_path: Path, flow: np.ndarray, textured) -> None:
    stored = np.zeros((24, 40, 3), np.uint16)  # OpenCV writes B, G, R: known, y, x
    stored[:, :, 2], stored[:, :, 1] = (np.round(channel * 64 + 2**15) for channel in flow)
    stored[:, :, 0] = 1
    stored[0, 0, 0] = 0
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    read, known = read_flow_png(tmp_path / "a.png")
    assert known[0, 0] == 0 and known.sum() == known.size - 1
    np.testing.assert_allclose(read[:, 1:], flow[:, 1:], atol=1 / 128 + 1e-4)
    cv2.imwrite(str(tmp_path / "b.png"), textured(8, 8))
    with pytest.raises(ValueError, match="16-bit"):
        read_flow_png(tmp_path / "b.png")


def test_frames_are_rgb(tmp_path: Path) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[..., 0] = 200
    for name in ("a.ppm", "a.png"):
        cv2.imwrite(str(tmp_path / name), frame[:, :, ::-1])
        np.testing.assert_array_equal(read_frame(tmp_path / name), frame)
    with pytest.raises(ValueError, match="cannot read frame"):
        read_frame(tmp_path / "absent.png")


def test_flying_chairs(chairs: Path, flow: np.ndarray, tmp_path: Path) -> None:
    assert [pair.split for pair in flying_chairs(chairs)] == ["train", "val", "train"]
    assert write_benchmark(flying_chairs(chairs), tmp_path / "out") == {"": 3}
    assert write_benchmark(flying_chairs(chairs), tmp_path / "out") == {}
    train = PairDataset(tmp_path / "out", "train")
    assert len(train) == 2 and train.pair(1).info["clip"] == "chairs_00003"
    np.testing.assert_allclose(train.pair(1).flow, flow * 3, atol=0.2)


def test_a_missing_file_is_a_row(chairs: Path, tmp_path: Path) -> None:
    (chairs / "data" / "00003_img2.ppm").unlink()
    assert write_benchmark(flying_chairs(chairs), tmp_path / "out") == {"": 2, "unreadable": 1}


def test_resized_flow_keeps_its_meaning(chairs: Path) -> None:
    item = flying_chairs(chairs)[0]
    whole, half = load_benchmark_pair(item), load_benchmark_pair(item, (12, 20))
    assert half.source.shape == (12, 20, 3) and half.flow.shape == (2, 12, 20)
    np.testing.assert_allclose(half.flow.mean(), whole.flow.mean() / 2, atol=1e-5)


def test_sintel(tmp_path: Path, flow: np.ndarray, textured) -> None:
    root = tmp_path / "training"
    for part in ("clean", "flow", "occlusions"):
        (root / part / "alley_1").mkdir(parents=True)
    for k in (1, 2, 3):
        cv2.imwrite(str(root / "clean" / "alley_1" / f"frame_{k:04d}.png"), textured(24, 40, k))
    for k in (1, 2):
        write_flo(root / "flow" / "alley_1" / f"frame_{k:04d}.flo", flow)
        occluded = np.zeros((24, 40), np.uint8)
        occluded[:, :10] = 255
        cv2.imwrite(str(root / "occlusions" / "alley_1" / f"frame_{k:04d}.png"), occluded)
    first, second = sintel(tmp_path, validation=("alley_1",))
    assert (first.split, second.source_index) == ("val", 2)
    pair = load_benchmark_pair(first)
    assert (pair.valid[:, :10] == 0).all() and (pair.valid[:, 10:] == 1).all()


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no FlyingChairs pairs"):
        flying_chairs(tmp_path)
    with pytest.raises(ValueError, match="no Sintel flows"):
        sintel(tmp_path)


def test_wrong_split_file(chairs: Path) -> None:
    (chairs / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match="splits 2 pairs"):
        flying_chairs(chairs)
