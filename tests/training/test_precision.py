"""The precision that a machine is quick in."""

import pytest
import torch

from dragstudy.training import precision
from dragstudy.training.precision import fast_autocast, fast_precision


@pytest.mark.parametrize(
    "found, expected", [({"avx2": True}, "no"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")]
)
def test_half_precision_is_for_cpus_with_instructions_for_it(found, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert fast_precision("cpu") == expected and fast_precision("meta") == "no"
    with fast_autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected == "bf16" else torch.float32)


def test_this_cpu_says_what_it_has():
    found = torch.cpu.get_capabilities()
    assert found["architecture"] != "x86_64" or set(precision.CPU_BF16) <= set(found)
