"""An edit as a job: its threads, its memory, its own LoRA."""

import sys

import cv2
import numpy as np
import pytest
import torch

from dragstudy.metrics.editing import fixed_arithmetic
from dragstudy.metrics.memory import peak_memory, weights_size
from dragstudy.pipelines.image_lora import LoraSettings, forgotten_loras, lora_file

from ..tiny import tiny_instantdrag


def test_arithmetic_is_given_back():
    before = torch.get_num_threads(), cv2.getNumThreads(), cv2.ipp.useIPP()
    with pytest.raises(RuntimeError), fixed_arithmetic(before[0] + 1):
        assert torch.get_num_threads() == cv2.getNumThreads() == before[0] + 1
        assert not cv2.ipp.useIPP()
        raise RuntimeError
    assert (torch.get_num_threads(), cv2.getNumThreads(), cv2.ipp.useIPP()) == before


def test_distances_do_not_depend_on_threads_or_on_where_they_lie_in_memory():
    free = np.ones((256, 256), np.uint8)
    free[tuple(np.random.default_rng(0).integers(0, 256, (2, 68)))] = 0
    found, held = set(), []
    for k in range(40):
        held.append(np.empty(1000 + 777 * k, np.uint8))
        with fixed_arithmetic(1 + k % 2):
            found.add(cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).tobytes())
    assert len(found) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process' peak")
def test_the_peak_is_that_of_the_work_alone():
    held = torch.ones(2**24)  # 64 MiB, before
    with peak_memory() as none:
        held.sum()
    with peak_memory() as peak:
        torch.ones(3 * 2**22).sum()  # 48 MiB, gone again
    if peak() != peak():
        pytest.skip("this container forbids to reset the peak")
    assert none() / 2**20 < 16 and 44 < peak() / 2**20 < 64


def test_weights_are_counted_in_bytes():
    pipe = tiny_instantdrag()
    size = weights_size(pipe)
    assert size > 4 * sum(weight.numel() for weight in pipe.unet.parameters())
    pipe.unet.half()
    assert weights_size(pipe) < size


def test_a_measured_edit_trains_its_own_lora(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAGSTUDY_CACHE", str(tmp_path))
    pipe, latents = tiny_instantdrag(), torch.zeros(1, 4, 8, 8)
    unet = pipe.unet
    prompts = pipe.null_prompt(1)
    given = unet, latents, prompts, pipe.scheduler, LoraSettings(1, 1e-4)
    known = lora_file(*given)
    with forgotten_loras():
        inside = lora_file(*given)
        assert inside.name == known.name and inside.parent != known.parent
        assert inside.parent.is_dir()
    assert not inside.parent.exists() and lora_file(*given) == known
