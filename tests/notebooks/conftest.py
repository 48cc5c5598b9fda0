"""A notebook as its file has it; each test module says by `path` which ones."""

import pytest

from dragstudy._notebooks import read_notebook


@pytest.fixture
def notebook(path):
    return read_notebook(path)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
