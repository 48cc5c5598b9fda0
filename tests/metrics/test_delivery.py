"""Delivery: the target delivers what was asked, the source nothing and stays itself, and a tint is seen."""

import numpy as np
import pytest
import torch

from dragstudy.metrics.delivery import DELIVERY, colour_shift, landmark_motion, measure_delivery


@pytest.fixture
def pair(generator):
    source = torch.rand(3, 64, 64, generator=generator)
    begin = torch.rand(68, 2, generator=generator, dtype=torch.float64) * 20 + 20
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    item = {"source": source, "target": source.roll(3, dims=-1), "mask": mask, "target_mask": mask}
    return item | {"landmarks": begin, "target_landmarks": begin + torch.tensor([3.0, 0.0])}


@pytest.fixture
def faces(pair):
    """A detector that knows the two frames of the pair, and a descriptor that is the mean colour."""
    known = {
        (pair[image] * 255).round().byte().permute(1, 2, 0).numpy().tobytes(): pair[name].numpy()
        for image, name in (("source", "landmarks"), ("target", "target_landmarks"))
    }
    return lambda frame: known.get(frame.tobytes()), lambda frame: frame.mean(axis=(0, 1))


def never(images, references):
    """In place of LPIPS: the mean difference."""
    return (images - references).abs().mean(dim=(1, 2, 3)).view(-1, 1, 1, 1)


@pytest.fixture
def lpips():
    model = torch.nn.Module()
    model.forward = never
    return model


def test_the_source_delivers_nothing_and_the_target_all_of_it(pair, faces, lpips):
    nothing = measure_delivery(pair["source"][None], pair, *faces, lpips)
    everything = measure_delivery(pair["target"][None], pair, *faces, lpips)
    assert tuple(nothing) == tuple(everything) == DELIVERY
    assert nothing["motion"] == 0 and nothing["landmark_distance"] == pytest.approx(3)
    assert nothing["identity"] == nothing["changed"] == nothing["colour"] == nothing["background_change"] == 0
    assert everything["motion"] == pytest.approx(9) and everything["landmark_distance"] == 0
    assert everything["lpips"] == 0 and everything["changed"] == pytest.approx(nothing["lpips"])


def test_without_a_face_the_rest_is_still_known(pair, faces, lpips):
    measured = measure_delivery(pair["source"][None] / 2, pair, *faces, lpips)
    unknown = [name for name, value in measured.items() if np.isnan(value)]
    assert unknown == ["motion", "landmark_distance", "identity"]


def test_the_share_of_the_motion_is_its_slope(generator):
    asked = torch.randn(68, 2, generator=generator).numpy()
    across = asked[:, ::-1] * (1, -1)  # at right angles to what was asked
    for slope in (0.0, 0.7, 2.0):
        delivered = landmark_motion(slope * asked + 3 * across, asked)
        assert delivered == pytest.approx(slope * landmark_motion(asked, asked), abs=1e-6)


def test_colour_shift_sees_a_tint_inside_the_mask_and_no_motion_in_it(generator):
    image, mask = torch.rand(2, 3, 16, 16, generator=generator), torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    inside = image.clone()
    inside[..., :8] = image[..., :8].roll(3, dims=-2)
    assert torch.allclose(colour_shift(inside, image, mask), torch.zeros(2), atol=1e-4)
    outside = image.clone()
    outside[..., 8:] += 0.1
    assert torch.equal(colour_shift(outside, image, mask), torch.zeros(2))
    tinted = image + torch.tensor([6.0, 0.0, 0.0]).view(1, 3, 1, 1) / 255
    assert torch.allclose(colour_shift(tinted, image, mask), torch.full((2,), 2.0), atol=1e-3)
