"""The comparison: a row a sample, whatever the order, the processes, the errors, and whoever is killed."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dragstudy import cli
from dragstudy.data.edit_benchmarks import Sample, open_benchmark
from dragstudy.drags import DragInstruction
from dragstudy.metrics.comparison import Settings, compare
from dragstudy.metrics.comparison_folder import edited_file
from dragstudy.metrics.comparison_tables import MACHINE, paired, set_distances, summary
from dragstudy.metrics.measures import Tools
from dragstudy.metrics.rows import ROWS, Row, find_rows

from ..tiny import picture

SIZE = 64
CHEAP = find_rows(["do-nothing", "warp"])
WITHOUT_MACHINE = dict.fromkeys(MACHINE, 0.0)


class Colours:
    """Features that need no weights: means of the four quarters of a picture."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def quick_tools() -> Tools:
    return Tools(inception=Colours())


@dataclass(frozen=True)
class Waves:
    """A benchmark of waves, moved to the right by three pixels; some ids cannot be loaded."""

    ids: tuple[str, ...] = ("a", "b/c", "d")
    name: str = "waves"
    shift: int = 3
    broken: tuple[str, ...] = ()

    def sample(self, id: str) -> Sample:
        if id in self.broken:
            raise ValueError(f"{id} is broken")
        whole = picture(SIZE + self.shift, SIZE, phase=float(ord(id[0])))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[8:56, 8:56] = 1
        handles = np.array([[20.0, 20.0], [40.0, 44.0]])
        drags = DragInstruction(handles, handles + (self.shift, 0), mask, (SIZE, SIZE))
        return Sample(
            id,
            whole.crop((self.shift, 0, SIZE + self.shift, SIZE)),
            drags,
            whole.crop((0, 0, SIZE, SIZE)),
            flow=torch.tensor([float(self.shift), 0.0]).view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE),
            person=torch.ones(1, 1, SIZE, SIZE),
        )


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """What must not differ from run to run."""
    return frame.assign(**WITHOUT_MACHINE)


def same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    pd.testing.assert_frame_equal(table(first), table(second), check_exact=True)
    return True


def backwards(function, jobs):
    for name, job in list(jobs)[::-1]:
        yield name, function(pickle.loads(pickle.dumps(job)))


# Rows


def test_each_sample_has_one_row_a_method_and_its_numbers(tmp_path):
    frame = compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    assert list(zip(frame["method"], frame["key"], strict=True)) == [
        (method, key) for method in ("do nothing", "warp") for key in Waves().ids
    ]
    still, warp = (frame[frame["method"] == name] for name in ("do nothing", "warp"))
    assert (frame["error"] == "").all() and (frame["drags"] == 2).all() and not frame["masked"].any()
    assert np.isinf(still["psnr_origin"]).all() and (still["seconds"] == 0).all()
    assert (warp["psnr_edit"].to_numpy() > still["psnr_edit"].to_numpy() + 3).all()
    assert (warp["seconds"] > 0).all() and (warp["flow_error"] < 2).all()
    assert same(pd.read_parquet(tmp_path / "rows.parquet"), frame)
    with Image.open(edited_file(tmp_path, "do nothing", "b/c")) as kept:
        assert kept.tobytes() == Waves().sample("b/c").image.tobytes()


def test_a_mask_goes_to_the_rows_whose_papers_have_one(tmp_path):
    masked = replace(ROWS["warp"], name="masked", mask=True)
    frame = compare([ROWS["warp"], masked], Waves(("a",)), tmp_path, tools=Tools).set_index("method")
    assert frame["masked"].to_dict() == {"warp": False, "masked": True}
    assert frame["inputs"].to_dict() == {"warp": "drags", "masked": "drags, mask"}
    pictures = [np.asarray(Image.open(edited_file(tmp_path, name, "a"))) for name in ("warp", "masked")]
    photo = np.asarray(Waves().sample("a").image)
    assert (pictures[1][:8] == photo[:8]).all() and (pictures[0][:8] != photo[:8]).any()


def test_what_raises_is_a_row_with_its_error_and_not_the_end(tmp_path):
    wrong = Row("wrong", "warp", {"flow": torch.zeros(3)}, random=False)
    frame = compare([*CHEAP, wrong], Waves(broken=("d",)), tmp_path, tools=quick_tools)
    assert len(frame) == 9 and (frame["key"] == "d").sum() == 3
    for row in frame.itertuples():
        if row.key == "d":
            assert row.error == "sample: ValueError: d is broken"
        else:
            assert row.error == ("" if row.method != "wrong" else row.error)
    failed = frame[frame["error"] != ""]
    assert failed.loc[failed["method"] == "wrong", "error"].str.contains("flow must have the shape").any()
    assert failed[["psnr_edit", "seconds"]].isna().all(axis=None)
    sums = summary(frame, ["psnr_edit"]).set_index("method")
    assert sums["errors"].to_dict() == {"do nothing": 1, "warp": 1, "wrong": 3}
    assert sums["n"].to_dict() == {"do nothing": 2, "warp": 2, "wrong": 0}


def test_a_row_that_cannot_be_loaded_is_no_error_of_its_samples(tmp_path):
    settings = Settings(weights={"instantdrag": "no/folder"})
    with pytest.raises(ValueError, match="weights must be"):
        compare([ROWS["instantdrag"]], Waves(), tmp_path, settings=settings, tools=Tools)
    assert not list(tmp_path.glob("edits/*/*"))


def test_one_that_measures_may_raise_too(tmp_path):
    class Broken:
        def __call__(self, images):
            raise RuntimeError("no numbers today")

    frame = compare(CHEAP, Waves(("a",)), tmp_path, tools=lambda: Tools(inception=Broken()))
    assert (frame["error"] == "measuring: RuntimeError: no numbers today").all()
    assert frame["seconds"].notna().all()


# The same table


def test_a_second_call_makes_nothing_again(tmp_path):
    first = compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*")}

    def nothing(function, jobs):
        assert not list(jobs)
        yield from ()

    again = compare(CHEAP, Waves(), tmp_path, tools=quick_tools, mapper=nothing)
    pd.testing.assert_frame_equal(first, again, check_exact=True)  # seconds and memory too
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*")}


def test_the_table_grows_by_rows_samples_and_seeds(tmp_path):
    compare(CHEAP[1:], Waves(("a",)), tmp_path / "grown", tools=quick_tools)
    grown = compare(CHEAP, Waves(), tmp_path / "grown", tools=quick_tools)
    assert same(grown, compare(CHEAP, Waves(), tmp_path / "whole", tools=quick_tools))


@pytest.mark.slow
def test_order_and_what_ran_before_do_not_matter_and_seeds_do(tmp_path):
    rows = find_rows(["warp", "instantdrag", "instantdrag-splat"])
    given = {"settings": Settings(options={"num_inference_steps": 1}), "tools": quick_tools, "seeds": [0, 1]}
    benchmark = Waves(("a", "d"))
    frame = compare(rows, benchmark, tmp_path / "forwards", **given)
    assert len(frame) == 2 * (1 + 2 + 2)  # the warp is not random: it is made once
    assert same(compare(rows, benchmark, tmp_path / "backwards", mapper=backwards, **given), frame)
    seeds = frame[frame["method"] == "instantdrag"].groupby("seed")["psnr_edit"].mean()
    assert seeds[0] != seeds[1]


def test_other_settings_weights_or_samples_are_refused_or_made_anew(tmp_path):
    compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    other = {"settings": Settings(threads=2), "tools": quick_tools}
    with pytest.raises(ValueError, match="of do nothing, warp that were made otherwise .threads changed"):
        compare(CHEAP, Waves(), tmp_path, **other)
    edits = {path: path.stat().st_mtime_ns for path in tmp_path.glob("edits/*/*")}
    frame = compare(CHEAP, Waves(), tmp_path, anew=True, **other)
    assert len(frame) == 6 and all(path.stat().st_mtime_ns != edits[path] for path in edits)
    with pytest.raises(ValueError, match="holds other samples or drags"):
        compare(CHEAP, Waves(shift=4), tmp_path, **other)


def test_pictures_are_measured_again_when_the_measures_change(tmp_path):
    compare(CHEAP, Waves(), tmp_path, tools=Tools)
    edits = {path: path.stat().st_mtime_ns for path in tmp_path.glob("edits/*/*")}
    assert not list(tmp_path.glob("features/*/*"))
    compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    assert edits == {path: path.stat().st_mtime_ns for path in tmp_path.glob("edits/*/*")}
    assert len(list(tmp_path.glob("features/*/*"))) == 2 * 3 + 2 * 3


def test_two_do_not_write_to_one_folder(tmp_path):
    def again(function, jobs):
        with pytest.raises(ValueError, match="another process is writing"):
            compare(CHEAP, Waves(), tmp_path, tools=Tools)
        return ((name, function(job)) for name, job in jobs)

    assert len(compare(CHEAP, Waves(), tmp_path, tools=Tools, mapper=again)) == 6


# Sums


def test_sums_hold_methods_against_doing_nothing_and_each_other(tmp_path):
    frame = compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    sums = summary(frame).set_index(["method", "metric"])
    gain = sums.loc[("warp", "psnr_edit"), "gain"]
    assert gain == pytest.approx(sums["mean"]["warp", "psnr_edit"] - sums["mean"]["do nothing", "psnr_edit"])
    assert sums["gain_low"]["warp", "psnr_edit"] > 0 and (sums["n"]["warp"] == 3).all()
    assert np.isnan(sums["gain"]["do nothing", "psnr_edit"]) and np.isnan(sums["gain"]["warp", "psnr_origin"])
    pairs = paired(frame, "psnr_edit").set_index(["method", "baseline"])
    assert pairs["mean"]["warp", "do nothing"] == pytest.approx(gain) and pairs["sure"].all()
    assert pairs["mean"]["do nothing", "warp"] == pytest.approx(-gain)
    alone = summary(frame[frame["method"] == "warp"])
    assert "gain" not in alone and paired(frame[frame["method"] == "warp"], "psnr_edit").empty


def test_distances_of_sets_are_of_any_part_of_the_table(tmp_path):
    frame = compare(CHEAP, Waves(), tmp_path, tools=quick_tools)
    sets = set_distances(frame, tmp_path).set_index(["images", "reference"])
    assert sets["fid"]["do nothing", "photograph"] == pytest.approx(0, abs=1e-9)
    assert sets["fid"]["do nothing", "target"] > 0 and (sets["n"] == 3).all()
    some = set_distances(frame[frame["key"] != "d"], tmp_path)
    assert (some["n"] == 2).all() and (some["n_reference"] == 2).all()


# The command, killed


@pytest.fixture(scope="module")
def dragbench(tmp_path_factory) -> Path:
    """Forty samples in DragBench's layout."""
    root = tmp_path_factory.mktemp("dragbench")
    mask = np.ones((SIZE, SIZE), np.uint8)
    for k in range(40):
        folder = root / "waves" / f"JH_{k:02d}"
        folder.mkdir(parents=True)
        picture(SIZE, SIZE, phase=k / 7).save(folder / "original_image.png")
        meta = {"prompt": "waves", "points": [[20, 20], [28, 20 + k % 8]], "mask": mask}
        (folder / "meta_data.pkl").write_bytes(pickle.dumps(meta))
    return root


@pytest.fixture(scope="module")
def uninterrupted(dragbench, tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return compare(CHEAP, open_benchmark("dragbench", path=dragbench), folder, tools=Tools)


def start(dragbench: Path, out: Path, *options: str) -> subprocess.Popen:
    command = ["evaluate", "--methods", "do-nothing", "warp", "--benchmark", f"dragbench:{dragbench}"]
    command += ["--out", str(out), "--pixels", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "dragstudy.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_edits(process: subprocess.Popen, out: Path, count: int) -> None:
    while len(list(out.glob("edits/*/*.json"))) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)


def kill(process: subprocess.Popen, out: Path) -> dict[Path, int]:
    """End a process without a word; the edits that it leaves behind."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = {path: path.stat().st_mtime_ns for path in out.glob("edits/*/*.json")}
    assert 0 < len(left) < 80 and not (out / "rows.parquet").exists()
    return left


def finish(process: subprocess.Popen, out: Path, left: dict[Path, int]) -> pd.DataFrame:
    """Wait for a resumed process: it has kept what was there."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert printed.decode().startswith("| method | inputs | n | errors |")
    assert left.items() <= {path: path.stat().st_mtime_ns for path in out.glob("edits/*/*.json")}.items()
    return pd.read_parquet(out / "rows.parquet")


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on_to_the_same_table(dragbench, uninterrupted, tmp_path):
    killed = start(dragbench, tmp_path)
    wait_for_edits(killed, tmp_path, 45)
    frame = finish(start(dragbench, tmp_path), tmp_path, kill(killed, tmp_path))
    assert not frame.duplicated(["method", "key", "seed"]).any()
    assert same(frame, uninterrupted)


@pytest.mark.slow
def test_so_does_one_whose_worker_is_killed_and_then_itself(dragbench, uninterrupted, tmp_path):
    import psutil

    workers = ["--workers", "2"]
    killed = start(dragbench, tmp_path, *workers)
    wait_for_edits(killed, tmp_path, 10)
    below = [
        child
        for child in psutil.Process(killed.pid).children(recursive=True)
        if "spawn_main" in str(child.cmdline())
    ]
    os.kill(below[-1].pid, signal.SIGKILL)
    wait_for_edits(killed, tmp_path, 45)
    frame = finish(start(dragbench, tmp_path, *workers), tmp_path, kill(killed, tmp_path))
    assert not frame.duplicated(["method", "key", "seed"]).any()
    assert same(frame, uninterrupted)


def test_the_command_writes_table_and_sums_and_says_what_made_them(dragbench, tmp_path, capsys):
    command = ["evaluate", "--methods", "do-nothing", "warp", "--benchmark", f"dragbench:{dragbench}"]
    command += ["--count", "3", "--out", str(tmp_path), "--pixels"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and "| warp | drags | 3 | 0 |" in printed[3]
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == 6
    assert {"mean", "gain"} <= set(pd.read_csv(tmp_path / "summary.csv").columns)
    made_by = json.loads((tmp_path / "manifest.json").read_text())["rows"]["warp"]
    assert {"code", "weights_sha256", "versions", "threads", "options"} <= set(made_by)
    assert cli.main([*command, "--set", "rounds=2"]) == 2
    assert "options changed" in capsys.readouterr().err
