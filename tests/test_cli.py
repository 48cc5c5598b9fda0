import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dragstudy import __version__, cli
from dragstudy.data import curate
from dragstudy.drags import DragInstruction

EVALUATE = ["evaluate", "--out", "table"]


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).resize((96, 72)).save(path)
    return path


def read(path):
    with Image.open(path) as image:
        return np.asarray(image, int)


def edit(photo, *arguments):
    return cli.main(["edit", str(photo), "--method", "warp", *map(str, arguments)])


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys, dragstudy, dragstudy.cli; dragstudy.cli._parser().format_help(); "
        "sys.exit(', '.join({'torch', 'numpy', 'pandas', 'yaml'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"dragstudy {__version__}\n"


def test_edit_writes_a_picture_and_its_flow_and_the_same_again(photo, tmp_path, capsys):
    out, again, flow = (tmp_path / name for name in ("out.png", "again.png", "flow.png"))
    drags = ["--drag", "20,30:30,30", "--drag", "70,60:70,60"]
    assert edit(photo, *drags, "-o", out, "--flow-out", flow) == 0
    assert edit(photo, *drags, "-o", again, "--steps", 1) == 0
    assert capsys.readouterr().out == f"{out}\n{again}\n"
    assert out.read_bytes() == again.read_bytes()
    assert read(out).shape == read(flow).shape == (72, 96, 3)
    assert np.abs(read(out) - read(photo)).max() > 20


def test_edit_takes_drags_and_mask_from_files(photo, tmp_path):
    mask = np.zeros((72, 96), np.uint8)
    mask[:, :48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    drags = DragInstruction([[20, 30]], [[30, 30]], image_size=(96, 72))
    drags.to_json(tmp_path / "drags.json")
    options = (
        "--drags",
        tmp_path / "drags.json",
        "--mask",
        tmp_path / "mask.png",
        "-o",
        tmp_path / "out.png",
    )
    assert edit(photo, *options) == 0
    before, after = read(photo), read(tmp_path / "out.png")
    assert (before[:, 48:] == after[:, 48:]).all() and (before != after).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--drag", "20,30"], "A drag must look like 120,90:140,90"),
        (["--drag", "20,30:200,30"], "must lie inside the 96x72 image"),
        (["--drag", "nan,3:4,5"], "must be finite"),
        (["--drag", "1,2:3,4", "--mask", "{photo}/no.png"], "cannot be read"),
        (["--drags", "{photo}"], "cannot be read"),
        (["--drag", "1,2:3,4", "-o", "no/folder/out.png"], "the folder of no/folder/out.png does not exist"),
        (["--drag", "1,2:3,4", "-o", "out.nothing"], "out.nothing"),
        (["--drag", "1,2:3,4", "-o", "out.psd"], "out.psd must end as a picture does"),
        (["--drag", "1,2:3,4", "--set", "strength=2"], "--set cannot give warp 'strength', only flow"),
        (["--drag", "1,2:3,4", "--set", "strength"], "expected NAME=VALUE"),
        (["--drag", "1,2:3,4", "--set", "flow=[3"], "the value of flow cannot be read, got '[3'"),
        (["--drag", "1,2:3,4", "--set", "mask=1"], "--set cannot give warp 'mask'"),
        (["--drag", "1,2:3,4", "--set", "output_type=np"], "--set cannot give warp 'output_type'"),
        (
            ["--drag", "1,2:3,4", "--method", "instantdrag", "--set", "flow_guidance_scale=strong"],
            "flow_guidance_scale must be float, got 'strong'",
        ),
        (["--drag", "1,2:3,4", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["--drag", "1,2:3,4", "--method", "instantdrag", "--weights", "no/folder"], "weights must be"),
        (["--drag", "1,2:3,4", "--method", "magic"], "method must be one of"),
        (["--drag", "1,2:3,4", "--finetuned", "no/folder"], "warp cannot use fine-tuned weights"),
    ],
)
def test_what_the_user_gets_wrong_is_one_line_and_exit_code_2(
    arguments, sentence, photo, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert edit(photo, *(argument.format(photo=photo) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["edit", "no.png", "--drag", "1,2:3,4"], "no.png"),
        (["fetch", "no-such-asset"], "no-such-asset"),
        (["study", "--profile", "no-such-profile"], "no profile 'no-such-profile'"),
        (["curate", "--out", "pairs"], "give either clips or --recipe"),
        (["curate", "a.mp4", "--out", "pairs", "--set", "speed=3"], "there is no setting 'speed', only fps"),
        (["curate", "a.mp4", "--out", "pairs", "--fps", "fast"], "fps must be"),
        (["curate", "a.mp4", "--out", "pairs"], "a.mp4"),
        (["train", "gan", "--data", "pairs", "--out", "weights"], "model must be one of"),
        (
            ["train", "backbone", "--data", "pairs", "--out", "weights", "--set", "momentum=1"],
            "backbone has no option 'momentum'",
        ),
        (
            ["train", "flowgen", "--data", "pairs", "--out", "weights", "--set", "momentum=1"],
            "flowgen has no option 'momentum'",
        ),
        (
            ["train", "flowgen", "--data", "pairs", "--out", "weights", "--set", "seed=1"],
            "flowgen has no option 'seed'",
        ),
        (
            ["train", "flowgen", "--data", "pairs", "--out", "weights", "--set", "steps=many"],
            "steps must be int, got 'many'",
        ),
        (
            ["train", "flowdiffusion", "--data", "pairs", "--out", "weights"],
            "flowdiffusion needs --set autoencoder=... and --set backbone=...",
        ),
        (["train", "flowgen", "--data", "pairs", "--out", "weights"], "no manifest.parquet in pairs"),
        (["finetune", "a.mp4", "--out", "parrot"], "no clip at a.mp4"),
        (["finetune", "a.mp4", "--out", "parrot", "--set", "speed=3"], "there is no setting 'speed', only"),
        (["finetune", "a.mp4", "--out", "parrot", "--set", "rank=low"], "rank must be int, got 'low'"),
        ([*EVALUATE, "--methods", "warp", "magic"], "a method must be one of do-nothing, warp"),
        ([*EVALUATE, "--set", "rounds=many"], "rounds must be int, got 'many'"),
        (
            [*EVALUATE, "--methods", "instantdrag", "warp", "--set", "flow_guidance_scale=2"],
            "--set cannot give warp 'flow_guidance_scale'",
        ),
        ([*EVALUATE, "--benchmark", "moon"], "benchmark must be one of"),
        ([*EVALUATE, "--benchmark", "dragbench"], "needs the path of a folder"),
        ([*EVALUATE, "--benchmark", "dragbench:no/folder"], "no/folder holds no"),
        ([*EVALUATE, "--points", "3"], "points must be one of"),
        ([*EVALUATE, "--count", "0"], "count must be at least 1"),
        ([*EVALUATE, "--workers", "0"], "--workers must be at least 1, got 0"),
        ([*EVALUATE, "--weights", "magic=here"], "method must be one of"),
        ([*EVALUATE, "--weights", "here"], "expected NAME=VALUE, got 'here'"),
    ],
)
def test_the_other_commands_refuse_alike(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_names_of_people_are_text_even_where_they_look_like_numbers(monkeypatch, tmp_path):
    """As YAML 0012 is ten and `no` is false: the split of such a name would silently go astray."""
    given = {}
    monkeypatch.setattr(curate, "curate_clips", lambda *_, **people: given.update(people) or Counter())
    names = ["--identity", "a=0012", "--identity", "b=no", "--split", "0012=test", "--split", "no=val"]
    assert cli.main(["curate", "a.mp4", "b.mp4", "--out", str(tmp_path), *names]) == 0
    assert given == {"identities": {"a": "0012", "b": "no"}, "splits": {"0012": "test", "no": "val"}}


def test_usage_errors_are_one_line_too(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["edit", "photo.png"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "dragstudy edit: one of the arguments --drag --drags is required (see dragstudy edit --help)\n"
    )


def test_the_asset_list_names_every_asset(capsys):
    from dragstudy.assets import list_assets

    assert cli.main(["fetch", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in list_assets())
