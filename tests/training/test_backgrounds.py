"""Trainings with composites: the same pairs, another background, and a pipeline that keeps its network."""

import pytest
import torch

from dragstudy.training.backgrounds import composite_latents, train_on
from dragstudy.training.loop import LoopSettings
from tests.tiny import tiny_instantdrag


@pytest.fixture
def pairs(generator):
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    drawn = torch.rand(4, 2, 3, 64, 64, generator=generator)
    flow = torch.zeros(2, 64, 64)
    known = {"mask": mask, "target_mask": mask, "valid": mask, "flow": flow}
    landmarks = dict.fromkeys(("landmarks", "target_landmarks"), torch.zeros(68, 2))
    return [{"source": one, "target": other} | known | landmarks for one, other in drawn]


def test_only_what_is_composed_differs(pairs):
    pipe = tiny_instantdrag("splat")
    latents = composite_latents(pairs, pipe.autoencoder)

    def same(part, one, other):
        return torch.equal(latents[one].tensors[part], latents[other].tensors[part])

    assert same("source_latents", 2, 3) and not same("source_latents", 1, 3)
    assert same("target_latents", 1, 3) and not same("target_latents", 2, 3)
    assert all(same("flow", one, 3) for one in (1, 2))


def test_a_copy_is_trained(pairs, tmp_path):
    pipe = tiny_instantdrag("splat")
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    latents = composite_latents(pairs, pipe.autoencoder, [3])[3]
    settings = LoopSettings(out=tmp_path, steps=2, batch_size=2, learning_rate=1e-3, warmup=1)
    trained = train_on(pipe, latents, settings)
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert not trained.training and not any(value.requires_grad for value in trained.parameters())
