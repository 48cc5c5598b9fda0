"""FlowGen's errors in the pixels of the pairs, at whatever size the network works."""

import pytest
import torch

from dragstudy.ablations.flowgen_errors import errors_of
from dragstudy.ablations.training import seen_and_unseen
from dragstudy.data.pairs import PairDataset
from dragstudy.models.flowgen import FlowGen
from dragstudy.models.flowgen_variants import FixedFlowGen
from dragstudy.training.flowgen import FlowGenTask
from dragstudy.training.loop import LoopSettings, train_loop
from dragstudy.training.subsets import Resized

from ..tiny import tiny_flowgen
from .pairs import write_pairs


def shifted(*displacement: float) -> dict:
    """A pair of 128 x 128 that moves as a whole."""
    flow = torch.tensor(displacement).view(2, 1, 1).expand(2, 128, 128)
    generator = torch.Generator().manual_seed(0)
    landmarks = 30 + 60 * torch.rand(68, 2, generator=generator)
    ones = torch.ones(1, 128, 128)
    picture = torch.rand(3, 128, 128, generator=generator)
    item = {"key": "shifted", "source": picture, "flow": flow.clone(), "mask": ones, "valid": ones}
    return item | {"landmarks": landmarks}


@pytest.mark.parametrize("cls", [FlowGen, FixedFlowGen])
def test_errors_are_in_pixels_of_the_pairs_at_whatever_size_the_network_works(cls):
    """An untrained network with a prior is the thin plate, the same surface at any size."""
    flowgen = cls(base_channels=8, num_downs=3, norm_groups=4, prior=True).eval()
    with torch.no_grad():
        sizes, item = (0, 64, 128, 256), shifted(6.0, -2.0)
        rows = {size: next(errors_of(flowgen, [item], 17, size, [])) for size in sizes}
    assert 0 < rows[0]["epe"] < rows[0]["motion"] == pytest.approx(40**0.5)
    assert rows[0]["epe"] == rows[128]["epe"]
    for row in rows.values():
        assert row["epe"] == pytest.approx(rows[0]["epe"], rel=0.05)
        assert row["slope"] == pytest.approx(rows[0]["slope"], rel=0.05)
        assert row["given"] == row["drags"] == 17


def test_rescaling_by_the_demo_s_rules_doubles_and_stretches():
    with torch.no_grad():
        rows = list(errors_of(tiny_flowgen(), [shifted(6.0, -2.0)], 5, 64, ["magnitude", "static"]))
    own, magnitude, static = rows
    assert [row["rescaling"] for row in rows] == ["", "magnitude", "static"]
    assert static["slope"] == pytest.approx(2 * magnitude["slope"], rel=1e-4)
    assert len({row["largest"] for row in rows}) == 1 and 0 < own["largest"] < 1
    assert magnitude["epe"] != own["epe"]


def test_drags_that_leave_the_frame_are_not_given():
    item = shifted(60.0, 0.0)
    with torch.no_grad():
        (row,) = errors_of(tiny_flowgen(prior=True), [item], 68, 0, [])
    assert row["given"] == int((item["landmarks"][:, 0].round() + 60 <= 127.5).sum()) < 68


def test_what_was_seen_is_told_from_what_was_not(tmp_path):
    data = write_pairs(tmp_path)

    def seen(count=9, **training):
        return seen_and_unseen(data, {"batch_size": 1, "steps": 9, "seed": 1} | training, count)

    parts = [seen(2, subset=3, seed=seed) for seed in range(6)]
    assert all(len(chosen) == 2 for part in parts for _, chosen in part.values())
    assert len({tuple(part["train"][1]) for part in parts}) > 1
    assert len({tuple(part["val"][1]) for part in parts}) == 1
    keys = [PairDataset(data, split)[0]["key"].split("-")[0] for split in ("train", "val")]
    assert keys == ["train", "val"] == list(parts[0])
    small, large = (set(seen(subset=n)["train"][1]) for n in (3, 5))
    assert len(small) == 3 and len(large) == 5 and small < large


def test_pairs_that_a_training_never_came_to_are_not_seen(tmp_path):
    """The loop's own order: a dataset that notes who asks."""
    data, asked = write_pairs(tmp_path / "data"), []

    class Noting(PairDataset):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    changed = {"steps": 2, "batch_size": 2, "seed": 3}
    settings = LoopSettings(out=tmp_path / "run", learning_rate=1e-3, **changed)
    task = FlowGenTask(FlowGen(base_channels=8, num_downs=3, norm_groups=4), None)
    train_loop(task, Resized(Noting(data, "train"), 64), settings)
    assert seen_and_unseen(data, changed, 9)["train"][1] == list(dict.fromkeys(asked))
