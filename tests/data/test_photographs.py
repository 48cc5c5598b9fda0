"""The photographs without people."""

import numpy as np
import pytest

from dragstudy import assets
from dragstudy.data.photographs import Photographs, open_photographs
from dragstudy.data.samples import Benchmark


def test_each_is_a_square_with_drags_inside_of_it_and_a_box_around_them():
    opened = open_photographs()
    assert isinstance(opened, Benchmark)
    for key in opened.ids:
        if key == "cockatoo" and not assets.list_assets()["cockatoo"].present:
            continue
        sample = opened.sample(key)
        assert sample.image.size == (256, 256) and sample.target is None and opened.asks(key)
        x, y = np.concatenate([sample.drags.handle_points, sample.drags.target_points]).round().astype(int).T
        assert (sample.drags.mask[y, x] == 1).all() and sample.drags.mask.min() == 0
        assert (np.linalg.norm(sample.drags.displacements, axis=1) > 8).any()


def test_a_part_is_spread_and_strangers_are_refused():
    assert open_photographs(2).ids == ("cat", "rocket")
    with pytest.raises(ValueError, match="no sample 'dog'"):
        Photographs("photographs", ("cat",)).sample("dog")
