"""Pseudo drag instructions: counts, masks, bonuses, determinism, and drags written into flows."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.sparse import (
    FACE_23,
    NOSE,
    SAMPLER_CONFIGS,
    SamplerConfig,
    drags_from_sparse,
    sample_drags,
    sample_watershed,
    sampler_config,
    sparse_flow,
)

H, W = 60, 80


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense_flow() -> Tensor:
    """Nowhere zero, and different everywhere."""
    return torch.rand(2, H, W, generator=seeded(7)) + 1


def disc() -> Tensor:
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return ((x - 40) ** 2 + (y - 30) ** 2 < 20**2).float()[None]


def face(spread: float = 15.0) -> np.ndarray:
    """68 distinct points on the disc."""
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.stack([40 + spread * np.cos(angles), 30 + spread * np.sin(angles)], axis=1)


def drawn(sparse: Tensor) -> Tensor:
    return (sparse != 0).any(dim=0)


def pixels_of(points: np.ndarray) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for x, y in np.floor(points + 0.5)}


def chosen(sparse: Tensor) -> set[tuple[int, int]]:
    return {tuple(pixel) for pixel in drawn(sparse).nonzero().tolist()}


# The four published configurations


@pytest.mark.parametrize(
    ("name", "grid_size", "max_points", "special", "always"),
    [("config1", 100, 10, 1, True), ("config2", 100, 50, 23, False), ("config3", 100, 100, 0, False)]
    + [("config4", 900, 900, 0, False)],
)
def test_published_configurations(name, grid_size, max_points, special, always):
    config = sampler_config(name)
    assert (config.grid_size, config.max_points) == (grid_size, max_points)
    assert len(set(config.special_points)) == len(config.special_points) == special
    assert config.special_always == always
    assert config is SAMPLER_CONFIGS[name]


@pytest.mark.parametrize("name", SAMPLER_CONFIGS)
@pytest.mark.parametrize("weighting", ["uniform", "magnitude"])
@pytest.mark.parametrize("seed", range(5))
def test_points_are_in_range_inside_the_mask_and_carry_the_flow(name, weighting, seed):
    flow, mask = dense_flow(), disc()
    sparse = sample_drags(flow, mask, name, generator=seeded(seed), landmarks=face(), weighting=weighting)
    points = drawn(sparse)
    assert 1 <= points.sum() <= SAMPLER_CONFIGS[name].max_points
    assert mask[0][points].all()
    assert torch.equal(sparse[:, points], flow[:, points])
    assert not sparse[:, ~points].any()


def test_the_number_of_points_is_uniform_from_one_to_max_points():
    config = SamplerConfig(grid_size=4, max_points=6)
    generator = seeded()
    counts = [
        int(drawn(sample_drags(dense_flow(), disc(), config, generator=generator)).sum()) for _ in range(600)
    ]
    shares = np.bincount(counts, minlength=7) / 600
    assert shares[0] == 0
    assert len(shares) == 7
    assert np.abs(shares[1:] - 1 / 6).max() < 0.06


@pytest.mark.parametrize("k", [1, 7, 400])
def test_k_points_are_drawn_when_asked(k):
    assert drawn(sample_drags(dense_flow(), disc(), "config3", generator=seeded(), k=k)).sum() == k


def test_never_more_points_than_the_mask_has():
    mask = torch.zeros(1, H, W)
    mask[0, 5, 5:8] = 1
    assert drawn(sample_drags(dense_flow(), mask, "config4", generator=seeded(), k=50)).sum() == 3


def test_an_empty_mask_gives_an_empty_flow():
    nothing = torch.zeros(1, H, W)
    assert not sample_drags(dense_flow(), nothing, "config1", generator=seeded(), landmarks=face()).any()
    assert not sample_watershed(dense_flow(), nothing).any()


def test_the_generator_decides_everything():
    def draw(seed):
        return sample_drags(dense_flow(), disc(), "config2", generator=seeded(seed), landmarks=face())

    torch.rand(3)  # the global state has no say
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    generator = seeded(3)
    twice = [sample_drags(dense_flow(), disc(), "config2", generator=generator) for _ in range(2)]
    assert not torch.equal(*twice)  # fresh drags for every update of FlowGen


# Bonuses


@pytest.mark.parametrize("seed", range(10))
def test_the_nose_is_always_there_in_the_first_configuration(seed):
    sparse = sample_drags(dense_flow(), disc(), "config1", generator=seeded(seed), landmarks=face())
    assert pixels_of(face()[list(NOSE)]) <= chosen(sparse)


@pytest.mark.parametrize("k", [5, 23, 40])
def test_special_points_come_first(k):
    sparse = sample_drags(dense_flow(), disc(), "config2", generator=seeded(), landmarks=face(), k=k)
    special = pixels_of(face()[list(FACE_23)])
    assert len(special & chosen(sparse)) == min(k, len(special))


def test_special_points_that_must_come_raise_the_least_number():
    config = SamplerConfig(grid_size=100, max_points=30, special_points=FACE_23, special_always=True)
    for seed in range(5):
        sparse = sample_drags(dense_flow(), disc(), config, generator=seeded(seed), landmarks=face())
        assert pixels_of(face()[list(FACE_23)]) <= chosen(sparse)


def test_landmarks_that_cannot_be_chosen_are_passed_over():
    points = face()
    points[30] = np.nan
    points[0], points[4], points[8] = (-5, 3), (W + 4, 3), (1, 1)  # outside, outside, background
    sparse = sample_drags(dense_flow(), disc(), "config2", generator=seeded(), landmarks=points, k=19)
    usable = [index for index in FACE_23 if index not in (30, 0, 4, 8)]
    assert chosen(sparse) == pixels_of(points[usable])
    nobody = torch.full((68, 2), torch.nan)
    assert drawn(sample_drags(dense_flow(), disc(), "config1", generator=seeded(), landmarks=nobody)).any()


@pytest.mark.parametrize("grid_points", ["random", "centre"])
@pytest.mark.parametrize(
    ("h", "w", "rows", "columns"), [(60, 60, 10, 10), (60, 240, 5, 20), (240, 60, 20, 5)]
)
def test_grid_points_come_first_one_a_cell(grid_points, h, w, rows, columns):
    config = SamplerConfig(grid_size=100, max_points=100, grid_points=grid_points)
    sparse = sample_drags(torch.ones(2, h, w), None, config, generator=seeded(), k=100)
    cells = {(y * rows // h, x * columns // w) for y, x in chosen(sparse)}
    assert len(cells) == 100
    again = sample_drags(torch.ones(2, h, w), None, config, generator=seeded(1), k=100)
    assert torch.equal(sparse, again) == (grid_points == "centre")


def test_grids_larger_than_the_frame_are_every_pixel():
    assert drawn(sample_drags(torch.ones(2, 3, 5), None, "config4", generator=seeded(), k=900)).all()


def test_weighting_by_magnitude_prefers_what_moves_far():
    flow = torch.full((2, H, W), 0.1)
    flow[:, 20:40, 30:50] = 5.0
    config = SamplerConfig(grid_size=1, max_points=50)

    def share(weighting):
        sparse = sample_drags(flow, None, config, generator=seeded(), weighting=weighting, k=50)
        return (sparse[0] == 5).sum().item() / 50

    assert share("uniform") < 0.3
    assert share("magnitude") > 0.95


def test_weighting_by_magnitude_where_nothing_moves_still_draws():
    assert not sample_drags(torch.zeros(2, H, W), disc(), generator=seeded(), weighting="magnitude").any()


# Errors


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grid_size": 0}, "grid_size and max_points must be at least 1, got 0 and 5."),
        ({"max_points": 0}, "grid_size and max_points must be at least 1, got 4 and 0."),
        ({"special_points": (68,)}, "special_points must be dlib landmarks 0..67, got (68,)."),
        (
            {"special_points": FACE_23, "special_always": True},
            "special_always needs max_points >= 23, got 5.",
        ),
    ],
)
def test_configurations_are_checked(settings, sentence):
    with pytest.raises(ValueError) as error:
        SamplerConfig(**{"grid_size": 4, "max_points": 5, **settings})
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("function", "settings", "sentence"),
    [
        (
            sample_drags,
            {"config": "config5"},
            "must be one of config1, config2, config3, config4, got 'config5'",
        ),
        (sample_drags, {"k": 0}, "k must be at least 1 point, got 0"),
        (sample_drags, {"weighting": "flow"}, "weighting must be 'uniform' or 'magnitude', got 'flow'"),
        (sample_watershed, {"k": 0}, "k must be at least 1 point, got 0"),
        (sample_watershed, {"spacing": 4}, "spacing must be an odd positive number of pixels, got 4"),
    ],
)
def test_samplers_refuse_nonsense(function, settings, sentence):
    unchecked = inspect.unwrap(function)  # past the checker of types that only tests use
    with pytest.raises(ValueError, match=f"{sentence}[.]$"):
        unchecked(dense_flow(), disc(), generator=seeded(), **settings)


# Watershed


def test_watershed_finds_the_hearts_of_moving_parts():
    flow = torch.zeros(2, 64, 64)
    flow[0, 8:25, 8:25] = 3.0
    flow[1, 30:61, 30:61] = -3.0
    mask = (flow != 0).any(dim=0, keepdim=True).float()
    assert chosen(sample_watershed(flow, mask)) == {(16, 16), (45, 45)}
    assert chosen(sample_watershed(flow, mask, k=1)) == {(45, 45)}  # the larger part


def test_watershed_points_keep_their_distance_and_the_mask():
    points = drawn(sample_watershed(dense_flow(), disc(), edge_threshold=0.8, spacing=9)).nonzero()
    assert len(points) > 3
    gaps = torch.cdist(points.double(), points.double(), p=torch.inf) + torch.eye(len(points)) * 99
    assert gaps.min() > 4
    assert all(disc()[0, y, x] for y, x in points)


def test_watershed_draws_from_its_peaks_by_the_generator():
    settings = {"edge_threshold": 0.8, "spacing": 5, "k": 4}
    first, same, other = (
        sample_watershed(dense_flow(), disc(), generator=seeded(seed), **settings) for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert drawn(first).sum() == 4


def test_watershed_of_one_motion_is_the_middle():
    assert chosen(sample_watershed(torch.ones(2, 21, 31), spacing=31)) <= {(10, x) for x in range(10, 21)}


# Drags in a flow


def test_drags_are_written_at_their_handles():
    drags = DragInstruction([[10, 20], [30.4, 5.6]], [[13, 16], [30.4, 9.6]], image_size=(W, H))
    flow = sparse_flow(drags, (H, W))
    assert flow.shape == (1, 2, H, W)
    assert flow[0, :, 20, 10].tolist() == [3, -4]
    assert flow[0, :, 6, 30].tolist() == [0, 4]
    assert drawn(flow[0]).sum() == 2


@pytest.mark.parametrize("scale", [2, 4])
def test_drags_follow_the_size_of_the_flow(scale):
    drags = DragInstruction([[10, 20]], [[16, 28]], image_size=(W, H))
    flow = sparse_flow(drags, (H // scale, W // scale))
    assert flow[0, :, 20 // scale, 10 // scale].tolist() == [6 / scale, 8 / scale]
    assert drawn(flow[0]).sum() == 1


def test_the_later_drag_wins_a_pixel():
    drags = DragInstruction([[1, 1], [1.2, 0.9]], [[4, 1], [1.2, 3.9]], image_size=(8, 8))
    assert sparse_flow(drags, (8, 8))[0, :, 1, 1].tolist() == [0, 3]


def test_points_on_the_rim_stay_inside():
    drags = DragInstruction([[-0.5, -0.5], [7.5, 7.5]], [[1, 1], [5, 5]], image_size=(8, 8))
    assert chosen(sparse_flow(drags, (8, 8))[0]) == {(0, 0), (7, 7)}


def test_drags_of_unknown_size_are_in_pixels_of_the_flow():
    drags = DragInstruction([[2, 1]], [[5, 1]])
    assert sparse_flow(drags, (4, 8))[0, 0, 1, 2] == 3
    with pytest.raises(
        ValueError, match=r"^target_points must lie inside the 4x4 image, .* got \(5\.0, 1\.0\)\.$"
    ):
        sparse_flow(drags, (4, 4))


def test_sparse_flows_become_drags_and_come_back():
    sparse = sample_drags(dense_flow(), disc(), "config2", generator=seeded())
    drags = drags_from_sparse(sparse)
    assert drags.image_size == (W, H)
    assert torch.equal(sparse_flow(drags, (H, W))[0], sparse)


def test_drags_that_leave_the_frame_are_left_out():
    sparse = torch.zeros(2, 8, 8)
    sparse[:, 1, 1], sparse[:, 6, 6] = 2, 5
    assert drags_from_sparse(sparse).handle_points.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match=r"^At least one drag is needed, got no handle_points\.$"):
        drags_from_sparse(torch.zeros(1, 2, 8, 8))


def test_golden_number():
    sparse = sample_drags(dense_flow(), disc(), "config2", generator=seeded(), landmarks=face())
    rows, columns = drawn(sparse).nonzero().T
    assert (len(rows), int(rows.sum()), int(columns.sum())) == (43, 1325, 1661)
