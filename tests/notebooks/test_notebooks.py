"""What every notebook keeps to, read from its file; nbval runs them (see `make test`)."""

import ast
import json
import re

import pytest

from dragstudy._notebooks import (
    notebook_paths,
    parameters,
    profile_overrides,
    with_overrides,
)
from dragstudy._provenance import ROOT

from .rules import MACHINE_PATH, MAX_CELL_LINES, MAX_FUNCTION_LINES

NOTEBOOKS = notebook_paths(ROOT)
PROFILES = sorted(path.stem for path in (ROOT / "notebooks" / "profiles").glob("*.yaml"))
MAX_BYTES = 500_000
FORBIDDEN = re.compile(r"^\s*[!%]\s*pip|os\.chdir|sys\.path|\.cuda\(\)", re.MULTILINE)


@pytest.fixture(params=NOTEBOOKS.values(), ids=NOTEBOOKS)
def path(request):
    return request.param


def test_profiles_are_the_four_of_the_study():
    assert PROFILES == ["full", "paper", "smoke", "tiny"]


def test_the_parameters_come_first_and_default_to_smoke(path, notebook, code):
    assert code[0].metadata.get("tags") == ["parameters"], "the first code cell is the parameters cell"
    defaults = {name: parameter.default for name, parameter in parameters(notebook).items()}
    assert defaults["profile"] == "smoke" and defaults["out_dir"] == "" and "seed" in defaults
    lines = code[0].source.splitlines()
    for node in ast.parse(code[0].source).body:
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        assert "  # " in text, f"this parameter has no comment: {text}"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_fits_the_parameters(path, notebook, profile):
    params = with_overrides(notebook, profile_overrides(profile, path.stem, ROOT))
    assert params["profile"] == profile
    if profile == "smoke":
        assert params == with_overrides(notebook, {}), "smoke is what the notebook's own defaults say"


def test_the_first_cell_asks_a_question(path, notebook):
    head = notebook.cells[0]
    assert head.cell_type == "markdown" and head.source.startswith(f"# {path.stem[:2]} · ")
    assert "**Question" in head.source and "**Answer" in head.source


def test_the_last_sections_are_the_fixed_ones(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for heading in ("## Summary", "## Exercises"):
        assert heading in text


def test_the_record_is_started_under_the_notebooks_name(path, code):
    text = "\n".join(cell.source for cell in code)
    assert re.search(rf"runs\.start\((notebook=)?[\"']{path.stem}[\"']", text) and "run.finish()" in text


def test_cells_are_short_and_define_next_to_nothing(code):
    for cell in code:
        assert len(cell.source.splitlines()) <= MAX_CELL_LINES, cell.source
        for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.MULTILINE))):
            assert not isinstance(node, ast.ClassDef), f"class {node.name} belongs in the library"
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= MAX_FUNCTION_LINES, f"{node.name} belongs in the library"


def test_the_file_is_small_and_was_run_from_top_to_bottom(path, code):
    assert path.stat().st_size < MAX_BYTES
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error", output.get("evalue")
        assert output.get("name") != "stderr", output.get("text")


def test_some_numbers_are_checked(code):
    tags = {tag for cell in code for tag in cell.metadata.get("tags", [])}
    assert "nbval-check-output" in tags


def test_nothing_of_a_machine_or_a_widget_is_kept(path, notebook):
    assert "widgets" not in notebook.metadata and "widget-view" not in path.read_text(encoding="utf-8")
    cells = [(cell.source, json.dumps(_texts(cell))) for cell in notebook.cells]
    for source, outputs in cells:
        assert not MACHINE_PATH.search(source), source
        assert not MACHINE_PATH.search(outputs), outputs
        assert not FORBIDDEN.search(source), source


def _texts(cell):
    """The outputs of a cell without its pictures."""
    outputs = cell.get("outputs", [])
    data = [
        text for out in outputs for kind, text in out.get("data", {}).items() if not kind.startswith("image/")
    ]
    return data + [out.get("text", "") for out in outputs]
