import threading

import pytest
import torch
from torch import nn

from dragstudy._edit import load_silently


@pytest.mark.parametrize("method", ["instantdrag-splat", "lightningdrag", "dragdiffusion"])
def test_networks_that_another_thread_makes_while_weights_are_loaded_have_values(method):
    made, stop = [], threading.Event()

    def make():
        while not stop.is_set():
            made.append(nn.Linear(2, 2))

    other = threading.Thread(target=make)
    other.start()
    try:
        load_silently(method, "tiny")
    finally:
        stop.set()
        other.join()
    assert len(made) > 10 and not any(one.weight.is_meta for one in made)


def test_several_threads_load_the_same_weights():
    found = [None] * 3

    def load(k):
        found[k] = load_silently("instantdrag", "tiny")

    threads = [threading.Thread(target=load, args=[k]) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = (one.unet.state_dict() for one in found)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
