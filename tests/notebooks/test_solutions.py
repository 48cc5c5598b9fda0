"""The solutions of the exercises, read from their files; nbval runs them too (see `make test`)."""

import ast
import json
import re

import pytest

from dragstudy._notebooks import notebook_paths, read_notebook
from dragstudy._provenance import ROOT

from .rules import MACHINE_PATH, MAX_CELL_LINES, MAX_FUNCTION_LINES

NOTEBOOKS = notebook_paths(ROOT)
SOLUTIONS = {path.stem: path for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))}
MAX_BYTES = 300_000
EXERCISE = re.compile(r"^(\d+)\. (.+)$", re.MULTILINE)


@pytest.fixture(params=SOLUTIONS.values(), ids=SOLUTIONS)
def path(request):
    return request.param


def exercises(name):
    """The exercises of a notebook of the study, by number."""
    cells = read_notebook(NOTEBOOKS[name]).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {int(number): asked for number, asked in EXERCISE.findall(text.split("## Exercises")[1])}


def answers(notebook):
    """The exercise that a section quotes and the cells after it, by number."""
    found = {}
    for cell in notebook.cells:
        if heading := re.match(r"## Exercise (\d+)\n\n> (.+)$", cell.source):
            found[int(heading[1])] = (heading[2], [])
        elif found:
            found[max(found)][1].append(cell)
    return found


def test_solutions_belong_to_a_notebook_and_are_none_themselves(path, notebook):
    assert path.stem in NOTEBOOKS and path not in NOTEBOOKS.values()
    assert notebook.cells[0].source.startswith(f"# Solutions: {path.stem[:2]} · ")
    assert f"(../{path.name})" in notebook.cells[0].source


def test_every_exercise_is_answered_as_it_is_asked(path, notebook):
    asked, found = exercises(path.stem), answers(notebook)
    assert asked and {number: text for number, (text, _) in found.items()} == asked
    for number, (_, cells) in found.items():
        kinds = [cell.cell_type for cell in cells]
        assert "code" in kinds and kinds[-1] == "markdown", f"exercise {number}"
        assert cells[-1].source.startswith("**What one sees.** "), f"exercise {number}"
        assert any(cell.get("outputs") for cell in cells), f"exercise {number} shows nothing"


def test_cells_are_short_and_define_next_to_nothing(code):
    for cell in code:
        source = re.sub(r"^\s*[!%].*$", "pass", cell.source, flags=re.MULTILINE)
        assert len(source.splitlines()) <= MAX_CELL_LINES, source
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef), f"class {node.name} belongs in the library"
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is long"


def test_nothing_is_recorded(code):
    for cell in code:
        assert "parameters" not in cell.metadata.get("tags", []) and "runs.start" not in cell.source


def test_the_file_is_small_and_was_run_from_top_to_bottom(path, code):
    assert path.stat().st_size < MAX_BYTES
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error", output.get("evalue")
        assert output.get("name") != "stderr", output.get("text")


def test_nothing_of_a_machine_or_a_widget_is_kept(notebook):
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        kept = [
            text
            for output in cell.get("outputs", [])
            for kind, text in [*output.get("data", {}).items(), ("text", output.get("text", ""))]
            if not kind.startswith("image/")
        ]
        assert not MACHINE_PATH.search(cell.source) and not MACHINE_PATH.search(json.dumps(kept))
