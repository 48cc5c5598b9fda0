import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from dragstudy import runs
from dragstudy._record import FIGURE_BYTES, encode
from dragstudy._results import markdown_table
from dragstudy.progress import progress

PARAMETERS = """\
profile: str = "smoke"  # smoke: seconds
seed: int = 3  # every random draw below comes from this
scale: float = 2.0  # what the numbers are multiplied by
train: bool = False  # train again
out_dir: str = ""  # where the run writes; empty keeps everything in memory
"""
START = "from dragstudy import runs\nrun = runs.start('{name}', globals())\nrun"
WORK = """\
import matplotlib.pyplot as plt
import pandas as pd
fig, ax = plt.subplots()
ax.plot([0, scale])
run.figure("{id}", fig, "A line rises")
run.table("{id}", pd.DataFrame({{"method": ["warp"], "score": [scale]}}), "One number")
run.metric("score", scale)
run.finish()
"""


def write_working(write_notebook, name="01_line", id="line"):
    return write_notebook(name, PARAMETERS, START.format(name=name), WORK.format(id=id))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"scal": 1.0}, "unknown parameter 'scal': the notebook has profile: str, seed: int"),
        ({"seed": "1"}, "parameter seed must be int, got '1'"),
        ({"seed": True}, "parameter seed must be int, got True"),
        ({"seed": 1.0}, "parameter seed must be int"),
        ({"train": 1}, "parameter train must be bool, got 1"),
        ({"scale": "1e-4"}, "parameter scale must be float"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(overrides, sentence, clone, write_notebook):
    write_working(write_notebook)
    with pytest.raises(ValueError, match=sentence):
        runs.execute("01_line", "tiny", overrides, root=clone)
    assert not (clone / "results").exists()


def test_unknown_notebooks_profiles_and_sections_are_refused(clone, write_notebook):
    write_working(write_notebook)
    with pytest.raises(ValueError, match=r"no notebook '02_line'.*it has 01_line"):
        runs.execute("02_line", root=clone)
    with pytest.raises(ValueError, match=r"no profile 'huge'.*has full, smoke, tiny"):
        runs.execute("01_line", "huge", root=clone)
    (clone / "notebooks" / "profiles" / "tiny.yaml").write_text("01_lime: {seed: 1}\n")
    with pytest.raises(ValueError, match="sections that are no notebook: 01_lime"):
        runs.execute("01_line", "tiny", root=clone)


@pytest.mark.parametrize("cell", ["seed = 0", "seed: int = 1 + x", "import os", "seed: int"])
def test_a_parameters_cell_holds_typed_literals_only(cell, clone, write_notebook):
    write_notebook("01_bad", cell)
    with pytest.raises(ValueError, match="a parameters cell has only lines `name: type = literal`"):
        runs.execute("01_bad", root=clone)


def test_any_type_that_annotations_can_say_is_checked(clone, write_notebook):
    from dragstudy._notebooks import parameters, read_notebook

    cell = 'kind: Literal["a", "b"] = "a"\nsizes: list[int] = [1]\nlimit: float | None = None'
    known = parameters(read_notebook(write_notebook("01_types", cell)))
    assert known["kind"].check("b") == "b"
    assert known["limit"].check(2) == 2.0 and isinstance(known["limit"].check(2), float)
    for name, value in (("kind", "c"), ("sizes", ["1"]), ("limit", "2")):
        with pytest.raises(ValueError, match=f"parameter {name} must be"):
            known[name].check(value)


def test_profiles_extend_each_other_and_overrides_come_first(clone, write_notebook):
    from dragstudy._notebooks import profile_overrides

    write_working(write_notebook)
    profiles = clone / "notebooks" / "profiles"
    (profiles / "tiny.yaml").write_text("all: {profile: tiny}\n01_line: {seed: 5, scale: 7.0}\n")
    (profiles / "full.yaml").write_text("extends: tiny\nall: {profile: full}\n01_line: {seed: 6}\n")
    assert profile_overrides("full", "01_line", clone) == {"profile": "full", "seed": 6, "scale": 7.0}


def test_a_study_runs_records_publishes_and_then_skips(clone, write_notebook, monkeypatch):
    path = write_working(write_notebook)
    inputs = runs._inputs(clone)  # once: somebody may be editing the library while the tests run
    monkeypatch.setattr(runs, "_inputs", lambda root: inputs)
    lines = []

    def report(text, end="\n", flush=False):
        lines.append(text + end)

    (first,) = runs.study("tiny", overrides={"scale": 4}, root=clone, report=report)
    assert first.status == "finished", first.exception
    manifest = json.loads((first.folder / "manifest.json").read_text())
    assert manifest["params"] == {"profile": "tiny", "seed": 3, "scale": 4.0, "train": False}
    assert manifest["status"] == "finished" and manifest["profile"] == "tiny" and manifest["seed"] == 3
    assert {"torch", "diffusers", "python"} <= set(manifest["versions"])
    assert {"library", "assets", "weights"} <= set(manifest["inputs"])
    assert {"commit", "dirty", "device", "started", "ended", "notebook_sha256"} <= set(manifest)
    assert set(manifest["outputs"]) == {"figures/line.png", "tables/line.csv", "tables/line.md"}
    assert json.loads((first.folder / "metrics.json").read_text()) == {"score": 4.0}
    assert first.folder.parent == clone / "results" / "runs" / "01_line" / "tiny"

    record = json.loads((clone / "results" / "figures" / "line.json").read_text())
    assert record["run"] == manifest and record["message"] == "A line rises"
    index = (clone / "results" / "README.md").read_text()
    for text in ("Does 01_line run?", "![A line rises](figures/line.png)", "| warp | 4 |", manifest["id"]):
        assert text in index, text
    executed = nbformat.read(first.folder / "executed.ipynb", as_version=4)
    assert set(executed.metadata) == {"kernelspec", "language_info"}
    assert "tiny" in executed.cells[3].outputs[0]["data"]["text/plain"]

    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "\n\nMore words."
    nbformat.write(notebook, path)
    (second,) = runs.study("tiny", overrides={"scale": 4}, root=clone, report=report)
    assert second.status == "skipped" and second.folder == first.folder
    assert len("".join(lines).splitlines()) == 4 and "[1/1] 01_line" in lines[1]
    assert (clone / "results" / "README.md").read_text() == index.replace("More words.", "")


def test_relative_paths_are_the_notebook_s(clone, write_notebook):
    parameters = 'profile: str = "smoke"  # which\nseed: int = 0  # none\nout_dir: str = ""  # where'
    write_notebook("01_place", parameters, "from pathlib import Path\nPath('../here.txt').touch()")
    before = Path.cwd()
    assert runs.execute("01_place", root=clone).status == "finished"
    assert (clone / "here.txt").is_file() and Path.cwd() == before


def test_a_failed_notebook_is_kept_and_does_not_stop_the_others(clone, write_notebook):
    write_notebook("01_fails", PARAMETERS, START.format(name="01_fails"), "1 / 0")
    write_notebook("02_works", PARAMETERS, "print(seed)")
    failed, finished = runs.study("tiny", root=clone, report=lambda *_, **__: None)
    assert (failed.status, finished.status) == ("failed", "finished")
    assert failed.exception == "ZeroDivisionError: division by zero"
    manifest = json.loads((failed.folder / "manifest.json").read_text())
    assert manifest["status"] == "failed" and manifest["exception"] == failed.exception
    assert (failed.folder / "executed.ipynb").is_file()
    assert "**Failed:**" in (clone / "results" / "README.md").read_text()


def test_the_folder_depends_on_code_parameters_and_weights_only(clone, write_notebook):
    from dragstudy.runs import _inputs, _plan

    def folder(**overrides):
        return _plan("01_line", "tiny", overrides, _inputs(clone), clone).folder

    path = write_working(write_notebook)
    before = folder()
    assert folder(out_dir="elsewhere") == before
    assert folder(seed=4) != before
    (clone / "data" / "weights").mkdir()
    (clone / "data" / "weights" / "a.safetensors").write_bytes(b"1")
    trained = folder()
    assert trained != before
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source += "\n1"
    nbformat.write(notebook, path)
    assert folder() != trained


def test_publishing_drops_what_is_no_longer_made_and_refuses_a_second_maker(clone):
    def finished(name, id):
        folder = clone / "results" / "runs" / name / "tiny" / "0"
        run = runs.Run({"notebook": name, "id": f"{name}/tiny/0"}, folder)
        run.table(id, pd.DataFrame({"n": [1]}))
        run.finish()
        return folder

    from dragstudy._results import publish

    first = finished("01_a", "numbers")
    publish(first, clone / "results")
    for path in (first / "tables").iterdir():
        path.rename(path.with_stem("others"))
    publish(first, clone / "results")
    assert sorted(p.name for p in (clone / "results" / "tables").iterdir()) == [
        "others.csv",
        "others.json",
        "others.md",
    ]
    with pytest.raises(ValueError, match="01_a and 02_b both make tables/others"):
        publish(finished("02_b", "others"), clone / "results")


def test_refresh_keeps_outputs_in_the_notebook_and_nothing_else(clone, write_notebook):
    path = write_notebook("01_print", PARAMETERS, "print(seed)", "from tqdm.auto import tqdm")
    runs.refresh("01", root=clone)
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[2].outputs[0]["text"] == "3\n"
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3]
    assert "widgets" not in notebook.metadata and not notebook.cells[2].metadata
    before = path.read_bytes()
    runs.refresh("01", root=clone)
    assert path.read_bytes() == before


def test_refresh_keeps_a_widgets_text_but_not_what_only_a_running_kernel_can_show(clone, write_notebook):
    path = write_notebook("01_slider", PARAMETERS, "from ipywidgets import IntSlider\nIntSlider(value=seed)")
    runs.refresh("01", root=clone)
    (output,) = nbformat.read(path, as_version=4).cells[2].outputs
    assert set(output["data"]) == {"text/plain"} and "IntSlider(value=3" in output["data"]["text/plain"]
    before = path.read_bytes()
    runs.refresh("01", root=clone)
    assert path.read_bytes() == before


def test_a_run_by_hand_stays_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.start("01_line", {"seed": 1, "out_dir": "", "_i": "x", "In": [], "module": os})
    assert run.folder is None and run.manifest["params"] == {"seed": 1}
    fig, _ = plt.subplots()
    run.figure("line", fig, "A line")
    run.metric("score", np.float32(0.5))
    run.finish()
    assert run.figures == {"line": fig} and run.metrics == {"score": 0.5}
    assert "kept in memory" in repr(run) and "torch" in repr(run)
    assert not list(tmp_path.iterdir())


def test_records_have_proper_names_and_messages(tmp_path):
    run = runs.start("01_line", {"out_dir": str(tmp_path)})
    fig, _ = plt.subplots()
    for bad in ("Line", "a b", "../a", "", "a--b"):
        with pytest.raises(ValueError, match="an id has lower-case letters"):
            run.figure(bad, fig, "A line")
    with pytest.raises(ValueError, match="needs a message"):
        run.figure("line", fig, " ")
    (tmp_path / "weights.bin").write_bytes(b"1")
    run.input(tmp_path / "weights.bin")
    assert len(run.manifest["inputs"]["weights.bin"]) == 64


def test_large_figures_are_stored_as_small_jpegs():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    assert encode(fig)[0] == ".png" and encode(fig) == encode(fig)
    ax.imshow(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8), aspect="auto")
    suffix, content = encode(fig)
    assert suffix == ".jpg" and len(content) <= FIGURE_BYTES


def test_markdown_tables():
    frame = pd.DataFrame({"a|b": [1.23456, 2.0], "n": [3, 4]})
    assert markdown_table(frame) == "| a\\|b | n |\n| --- | --- |\n| 1.235 | 3 |\n| 2 | 4 |\n"
    assert markdown_table(frame.set_index("n")).startswith("| n | a\\|b |")


def test_progress_is_silent_where_nobody_watches(capfd):
    assert list(progress(range(3), description="steps")) == [0, 1, 2]
    with progress(total=2) as bar:
        bar.update()
    assert capfd.readouterr() == ("", "")


def test_several_notebooks_run_at_a_time(clone, write_notebook, monkeypatch):
    """Each waits for a file that the other writes: one after the other they would not end."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = """
import os, pathlib, time
home = pathlib.Path({home!r})
(home / "{mine}").write_text(os.environ["OMP_NUM_THREADS"])
began = time.monotonic()
while not (home / "{other}").exists():
    assert time.monotonic() - began < 60
    time.sleep(0.05)
"""
    for mine, other in (("a", "b"), ("b", "a")):
        number = "01" if mine == "a" else "02"
        write_notebook(
            f"{number}_{mine}", 'profile: str = "smoke"', code.format(home=str(clone), mine=mine, other=other)
        )
    outcomes = runs.study("tiny", root=clone, jobs=2, report=lambda *_, **__: None)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert int((clone / "a").read_text()) == max(1, (os.cpu_count() or 1) // 2)
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_longest_notebook_begins_first_and_outcomes_keep_their_order(clone, write_notebook):
    for name in ("01_short", "02_long", "03_new"):
        write_working(write_notebook, name, name[3:])
    lines = []
    runs.study("tiny", root=clone, jobs=1, report=lambda *_, **__: None)
    for path in (clone / "results" / "tables").glob("*.json"):
        record = json.loads(path.read_text())
        record["run"]["seconds"] = {"short": 1.0, "long": 9.0, "new": 5.0}[record["id"]]
        path.write_text(json.dumps(record))
    for path in (clone / "results" / "figures").glob("*"):
        path.unlink()
    again = runs.study("tiny", root=clone, jobs=1, force=True, report=lambda text, **_: lines.append(text))
    assert [outcome.notebook for outcome in again] == ["01_short", "02_long", "03_new"]
    assert [line.split()[1] for line in lines[1:]] == ["02_long", "03_new", "01_short"]
