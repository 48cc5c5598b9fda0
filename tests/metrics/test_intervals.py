"""The slope of a line through noisy points, with its interval."""

import pytest
import torch
from torch.testing import assert_close

from dragstudy.metrics.intervals import bootstrap_slope


def points(slope: float, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(40) % 8
    return x, 3 + slope * x + noise * torch.randn(40, generator=generator)


def test_without_noise_the_slope_and_its_interval_are_the_line_s(generator):
    found = bootstrap_slope(*points(-0.5, 0.0, generator), generator=generator)
    assert_close(torch.tensor(found), torch.full((3,), -0.5))


def test_the_interval_covers_the_truth_about_as_often_as_it_says(generator):
    covered = 0
    for _ in range(100):
        found, low, high = bootstrap_slope(
            *points(0.2, 1.0, generator), generator=generator, confidence=0.8, resamples=300
        )
        assert low <= found <= high
        covered += low <= 0.2 <= high
    assert 65 <= covered <= 92


def test_resamples_that_a_line_has_no_slope_through_are_left_out(generator):
    assert bootstrap_slope([0, 1], [0, 2], generator=generator) == (2.0, 2.0, 2.0)


def test_one_place_has_no_slope(generator):
    with pytest.raises(ValueError, match="two different x"):
        bootstrap_slope([1, 1, 1], [0, 1, 2], generator=generator)
