"""What every test shares: a seed, tiny notebooks in a clone of their own, assets where they were fetched."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch
from hypothesis import settings

from dragstudy import assets
from dragstudy._torchvision import require

os.environ["DRAGSTUDY_HEADLESS"] = "1"  # kernels that tests and nbval start draw no progress bars
matplotlib.use("agg")
settings.register_profile("dragstudy", deadline=None, derandomize=True, database=None)  # the same everywhere
settings.load_profile("dragstudy")
require()


@pytest.fixture
def generator() -> torch.Generator:
    """The source of randomness of a test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _same_everywhere() -> Iterator[None]:
    """Weights of networks that tests make do not depend on the tests before; figures do not pile up."""
    torch.manual_seed(0)
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def asset() -> Callable[[str, str], Path]:
    """`asset(name, file)`: a fetched asset's file; the test is skipped, with the reason, where it is not."""

    def find(name: str, file: str) -> Path:
        try:
            return assets.locate(name, file)
        except assets.AssetMissing as missing:
            pytest.skip(str(missing))

    return find


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """An empty clone with the profiles smoke, tiny and full."""
    profiles = tmp_path / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "smoke.yaml").write_text("all: {profile: smoke}\n")
    (profiles / "tiny.yaml").write_text("all: {profile: tiny}\n")
    (profiles / "full.yaml").write_text("extends: tiny\nall: {profile: full}\n")
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def write_notebook(clone: Path) -> Callable[..., Path]:
    """`write_notebook(name, parameters, *code_cells)` puts a notebook into the clone."""

    def write(name: str, parameters: str, *code: str) -> Path:
        new = nbformat.v4
        tagged = new.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        first = new.new_markdown_cell(f"# {name}\n\n**Question** Does {name} run?\n\n**Answer** Yes.")
        cells = [first, tagged, *map(new.new_code_cell, code)]
        path = clone / "notebooks" / f"{name}.ipynb"
        nbformat.write(new.new_notebook(cells=cells), path)
        return path

    return write
