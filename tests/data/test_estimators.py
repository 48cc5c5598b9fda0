"""Known translations bound every estimator's end-point error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dragstudy.data import estimators
from dragstudy.data.estimators import estimate_flow
from dragstudy.data.spynet import SPyNet, load_spynet


@pytest.fixture
def shifted(textured) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`shifted(dx, dy, size=96)`: two windows of one texture; its content moves by `(dx, dy)` px."""

    def make(dx: int, dy: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
        scene, margin = textured(size + 40, size + 40), 20
        source = scene[margin : margin + size, margin : margin + size]
        return source, scene[margin - dy : margin - dy + size, margin - dx : margin - dx + size]

    return make


def end_point_error(flow: np.ndarray, dx: int, dy: int) -> float:
    """Mean end-point error in px, without the border that leaves the image."""
    inner = flow[:, 16:-16, 16:-16]
    return float(np.hypot(inner[0] - dx, inner[1] - dy).mean())


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (-2, 5), (12, -6)])
def test_dis_finds_translations(shifted, shift: tuple[int, int]) -> None:
    flow = estimate_flow(*shifted(*shift))
    assert flow.shape == (2, 96, 96) and flow.dtype == np.float32
    assert end_point_error(flow, *shift) < 0.2


@pytest.mark.parametrize("shift", [(0, 0), (-2, 3)])
def test_tvl1_finds_translations(shifted, shift: tuple[int, int]) -> None:
    assert end_point_error(estimate_flow(*shifted(*shift), "tvl1"), *shift) < 0.1


@pytest.mark.parametrize(("shift", "bound"), [((0, 0), 0.1), ((3, -1), 0.15), ((6, 4), 0.25)])
def test_spynet_finds_translations(shifted, shift: tuple[int, int], bound: float, asset) -> None:
    asset("spynet", "BasicVSR_REDS4.pth")
    assert end_point_error(estimate_flow(*shifted(*shift), "spynet"), *shift) < bound


def test_spynet_takes_any_size_and_has_its_parameters() -> None:
    model = SPyNet()
    assert sum(p.numel() for p in model.parameters()) == 1_440_300
    assert model(torch.rand(1, 3, 45, 70), torch.rand(1, 3, 45, 70)).shape == (1, 2, 45, 70)


def test_spynet_refuses_other_checkpoints(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no entries named spynet\.basic_module\."):
        load_spynet(tmp_path / "other.pth")


def test_raft_without_weights_is_one_sentence(
    shifted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRAGSTUDY_RAFT", str(tmp_path / "absent.pth"))
    estimators._raft.cache_clear()
    with pytest.raises(FileNotFoundError, match="needs torchvision's raft_large weights"):
        estimate_flow(*shifted(0, 0), "raft")


@pytest.mark.slow
def test_raft_runs_on_any_size(shifted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_large

    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    monkeypatch.setenv("DRAGSTUDY_RAFT", str(tmp_path / "raft.pth"))
    estimators._raft.cache_clear()
    assert estimate_flow(*shifted(1, 1, size=130), "raft").shape == (2, 130, 130)
    estimators._raft.cache_clear()


def test_refused_frames(textured) -> None:
    frame = textured(32, 32)
    with pytest.raises(ValueError, match="method must be one of"):
        estimate_flow(frame, frame, "farneback")
    with pytest.raises((TypeError, ValueError)):
        estimate_flow(frame, frame[:24])
    with pytest.raises(ValueError, match="at least 16 pixels"):
        estimate_flow(frame[:8], frame[:8])
