"""Correspondence: good features find everything, blind ones nothing, and chance is what it says."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from dragstudy.flow import backward_warp
from dragstudy.metrics.correspondence import chance_distance, frame_pairs, measure_correspondence
from dragstudy.metrics.evaluate import summarize

SIZE = 64
SHIFT = torch.tensor([6.0, -4.0])


def speckle(seed: int = 0) -> torch.Tensor:
    """A smooth random texture `(3, SIZE, SIZE)` in [0, 1], different everywhere."""
    noise = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 5, stride=1, padding=2)[0]


def item(seed: int = 0, shift: torch.Tensor = SHIFT) -> dict:
    """A pair whose target is the source moved by `shift`, 68 landmarks in its middle."""
    generator = torch.Generator().manual_seed(seed + 100)
    source = speckle(seed)
    landmarks = 16 + 32 * torch.rand(68, 2, generator=generator)
    flow = -shift.view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE).contiguous()
    return {
        "source": source,
        "target": backward_warp(source[None], flow)[0],
        "landmarks": landmarks,
        "target_landmarks": landmarks + shift,
        "target_mask": torch.ones(1, SIZE, SIZE),
        "key": f"pair-{seed}",
    }


def neighbourhoods(image: torch.Tensor) -> torch.Tensor:
    """Colours of a neighbourhood, at half the resolution."""
    return F.avg_pool2d(F.unfold(image - 0.5, 9, padding=4).view(1, -1, *image.shape[-2:]), 2)


def places(image: torch.Tensor) -> torch.Tensor:
    """Features that know where they are and not what is there."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    y, x = (3 * (a / SIZE - 0.5) for a in (y, x))
    return torch.stack([x, y, torch.ones_like(x)])[None]


def distances(frame: pd.DataFrame) -> dict[str, float]:
    return frame.groupby("method")["distance"].mean().to_dict()


def test_features_of_what_is_there_find_what_moved_and_features_of_places_stay():
    found = distances(
        measure_correspondence({"what": neighbourhoods, "where": places}, [item(k) for k in range(3)])
    )
    length = SHIFT.norm().item()
    assert found["what"] < 1.5
    assert found["where"] == pytest.approx(length, abs=1)
    assert found["no motion"] == pytest.approx(length, abs=1e-5)
    assert found["chance"] > 20


def test_a_frame_matches_itself_to_half_a_cell():
    still = item(shift=torch.zeros(2))
    found = distances(measure_correspondence({"what": neighbourhoods, "where": places}, [still]))
    assert found["what"] < 1 and found["where"] < 1 and found["no motion"] == 0


def test_only_the_chosen_landmarks_inside_both_frames_count():
    pair = item()
    pair["target_landmarks"][3] = torch.tensor([SIZE + 5.0, 10.0])
    pair["landmarks"][5] = torch.nan
    table = measure_correspondence({"what": neighbourhoods}, [pair], points=[2, 3, 4, 5])
    assert table["points"].unique().tolist() == [2]
    pair["landmarks"][:] = torch.nan
    assert measure_correspondence({"what": neighbourhoods}, [pair]).empty


def test_the_table_can_be_summed_up():
    table = measure_correspondence({"what": neighbourhoods}, [item(k) for k in range(4)])
    summary = summarize(table, metrics=["distance"])
    assert summary["method"].tolist() == ["chance", "no motion", "what"] and set(summary["n"]) == {4}


def test_chance_is_the_mean_over_random_pixels_of_the_mask():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 30)) > 0.7
    targets = rng.uniform(0, 20, (3, 2))
    y, x = np.nonzero(mask)
    drawn = rng.integers(len(x), size=20_000)
    guesses = np.stack([x, y], axis=1)[drawn].astype(float)
    expected = np.linalg.norm(guesses[:, None] - targets, axis=2).mean(axis=0)
    assert np.allclose(chance_distance(targets, mask.astype(float)), expected, rtol=0.02)
    everywhere = chance_distance(targets, np.ones(mask.shape))
    assert np.array_equal(chance_distance(targets, np.zeros(mask.shape)), everywhere)


class Frames(list):
    """Pairs in memory, with the columns of a manifest that are asked for."""

    def __init__(self, clips: dict[str, list[int]]):
        rows = [(clip, index) for clip, indices in clips.items() for index in indices]
        super().__init__({**item(k), "mask": torch.ones(1, SIZE, SIZE)} for k in range(len(rows)))
        self.manifest = pd.DataFrame(rows, columns=["clip", "source_index"])


def test_frames_are_paired_within_clips_in_turn_and_none_twice(generator):
    frames = Frames({"a": [0, 0, 1, 2, 3, 4], "b": [7, 8, 9, 10]})
    pairs = frame_pairs(frames, 4, generator=generator)
    assert [pair["clip"] for pair in pairs] == ["a", "b", "a", "b"]
    used = [(pair["clip"], index) for pair in pairs for index in pair["key"].split("-")[1:]]
    assert len(set(used)) == len(used) == 8
    assert len(frame_pairs(frames, 99, generator=generator)) == 4


def test_a_frame_pair_is_two_sources_with_their_own_landmarks(generator):
    frames = Frames({"a": [0, 1]})
    (pair,) = frame_pairs(frames, 1, generator=generator)
    first, second = map(int, pair["key"].split("-")[1:])
    assert {first, second} == {0, 1}
    assert torch.equal(pair["target"], frames[second]["source"])
    assert torch.equal(pair["target_landmarks"], frames[second]["landmarks"])
    frames[0]["landmarks"][:] = torch.nan
    assert frame_pairs(frames, 1, generator=generator) == []
