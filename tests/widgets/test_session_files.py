import json

import numpy as np
import pytest
import torch
from PIL import Image

from dragstudy.cli import main
from dragstudy.drags import DragInstruction
from dragstudy.widgets.code import as_code
from dragstudy.widgets.edits import Round
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.session_files import load_session, replay, save_session
from dragstudy.widgets.sketch import Sketch

from ..tiny import picture


@pytest.fixture
def session(tmp_path):
    """Two rounds, the first with a mask, and a drag that is not carried out yet."""
    photo = tmp_path / "photo.png"
    picture(96, 64).save(photo)
    session = DragSession(photo, method="warp", seed=3)
    session.drag((30, 30), (40, 32))
    session.drag((60, 20), (60, 20))
    session.brush((20, 30), (60, 30), radius=25)
    session.edit()
    session.wait(60)
    session.continue_from(1)
    session.clear("mask")
    session.drag((40, 32), (44.25, 40.5))
    session.use("warp", rounds=2)
    session.edit()
    session.wait(60)
    session.continue_from(2)
    session.drag((10, 10), (12, 10))
    session.use("instantdrag", detail="compose")
    return session


def test_a_session_comes_back_as_it_was(session, tmp_path):
    session.undo()
    files = save_session(session, tmp_path / "kept" / "mine.json")
    assert [file.name for file in files] == ["mine.json", "mine-0.png", "mine-1.png", "mine-2.png"]
    again = load_session(tmp_path / "kept" / "mine.json")
    assert [one.tobytes() for one in again.pictures] == [one.tobytes() for one in session.pictures]
    for name in ("rounds", "history", "names", "method", "seed", "weights", "settings_by_method"):
        assert getattr(again, name) == getattr(session, name), name
    again.redo()
    assert again.sketch.drags == (((10.0, 10.0), (12.0, 10.0)),)


def test_the_file_is_one_of_drags_too(session, tmp_path):
    session.brush((10, 10), radius=8)
    save_session(session, tmp_path / "mine.json")
    assert DragInstruction.from_json(tmp_path / "mine.json") == session.sketch.instruction((96, 64))
    fields = json.loads((tmp_path / "mine.json").read_text())
    del fields["session"]
    assert set(fields) == set(json.loads(session.sketch.instruction((96, 64)).to_json()))


def test_a_saved_session_can_be_edited_by_the_command_line(session, tmp_path, capsys):
    save_session(session, tmp_path / "mine.json")
    out = tmp_path / "out.png"
    arguments = [
        "edit",
        str(tmp_path / "mine-2.png"),
        "--drags",
        str(tmp_path / "mine.json"),
        "--method",
        "warp",
    ]
    assert main([*arguments, "-o", str(out)]) == 0
    session.use("warp", rounds=None)
    session.edit()
    session.wait(60)
    assert Image.open(out).tobytes() == session.pictures[3].tobytes()


def test_a_replay_gives_the_same_bytes(session, tmp_path, capsys):
    save_session(session, tmp_path / "mine.json")
    threads = torch.get_num_threads()
    assert [(one.number, one.same) for one in replay(tmp_path / "mine.json")] == [(1, True), (2, True)]
    assert torch.get_num_threads() == threads
    assert main(["replay", str(tmp_path / "mine.json"), "-o", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.count("the same bytes") == 2
    for name in ("mine-1.png", "mine-2.png"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_replay_tells_what_is_different(session, tmp_path, capsys):
    save_session(session, tmp_path / "mine.json")
    other = np.array(session.pictures[1])
    other[0, 0, 0] ^= 1
    Image.fromarray(other).save(tmp_path / "mine-1.png")
    assert main(["replay", str(tmp_path / "mine.json")]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "DIFFERENT" in first and "same bytes" in second, "the second goes on from what came now"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: fields.pop("session"),
        lambda fields: fields["session"].pop("rounds"),
        lambda fields: fields["session"]["pictures"].pop(),
        lambda fields: fields["session"].update(method="wrap"),
        lambda fields: fields["session"]["settings"].update(warp={"speed": 3}),
        lambda fields: fields["session"]["rounds"][0].update(result=9),
        lambda fields: fields["session"]["rounds"][0].update(result=2),
        lambda fields: fields["session"]["rounds"][0]["edit"]["sketch"].update(picture=1),
        lambda fields: fields["session"]["rounds"][0].update(seconds="long"),
        lambda fields: fields["session"]["rounds"][0]["edit"].update(settings={"speed": 3}),
        lambda fields: fields["session"]["rounds"][0]["edit"].update(seed=None),
        lambda fields: fields["session"]["mask_operations"].clear(),
        lambda fields: fields["session"]["history"]["present"].pop("drags"),
        lambda fields: fields["session"]["pictures"][0].update(file="../photo-of-somebody-else.png"),
    ],
)
def test_a_spoilt_file_is_refused_in_one_line(session, tmp_path, capsys, spoil):
    path = tmp_path / "mine.json"
    save_session(session, path)
    fields = json.loads(path.read_text())
    spoil(fields)
    path.write_text(json.dumps(fields))
    picture(8, 8).save(tmp_path.parent / "photo-of-somebody-else.png")
    with pytest.raises(ValueError, match="cannot be read"):
        load_session(path)
    assert main(["replay", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_none_is_refused(tmp_path):
    for name in ("none.json", "binary.json"):
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
        with pytest.raises(ValueError, match="cannot be read"):
            load_session(tmp_path / name)
    with pytest.raises(ValueError, match="open a photograph first"):
        save_session(DragSession(method="warp"), tmp_path / "empty.json")
    assert not (tmp_path / "empty.json").exists()


def run(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(code, "copied", "exec"), {})
    return Image.open(folder / "edited.png").tobytes()


def test_the_copied_code_gives_the_same_bytes(session, tmp_path, monkeypatch):
    assert run(as_code(session, 2), tmp_path, monkeypatch) == session.pictures[2].tobytes()
    assert run(as_code(session, 1), tmp_path, monkeypatch) == session.pictures[1].tobytes()


def test_the_copied_code_of_what_is_drawn_gives_what_the_edit_gives(session, tmp_path, monkeypatch):
    session.use("warp", rounds=None)
    made = run(as_code(session), tmp_path, monkeypatch)
    session.edit()
    session.wait(60)
    assert made == session.pictures[3].tobytes()


def test_code_names_settings_and_the_photograph_once(session, tmp_path):
    code = as_code(session)
    assert code.count("dragstudy.load('warp')") == 1 and code.count("dragstudy.load('instantdrag')") == 1
    assert f"image = {str(tmp_path / 'photo.png')!r}" in code
    assert "detail='compose'" in code and "manual_seed(3)" in code and "rounds=2" in code


def test_code_needs_an_edit_and_says_where_a_photograph_has_no_file():
    session = DragSession(picture(96, 64), method="warp")
    with pytest.raises(ValueError, match="is a photograph"):
        as_code(session)
    session.drag((30, 30), (40, 32))
    assert "has no file" in as_code(session)


@pytest.mark.parametrize("name", ["photo.png", "session", "folder/"])
def test_a_session_is_never_written_over_a_file_of_another_kind(session, tmp_path, name):
    with pytest.raises(ValueError, match="such as session.json"):
        save_session(session, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_what_was_saved_before_is_whole_if_saving_fails(session, tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    save_session(session, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(self, target, **options):
        target.write_bytes(b"half of")
        raise OSError("the disk is full")

    session.undo()
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="full"):
        save_session(session, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_settings_come_back_in_the_types_that_they_had(session, tmp_path):
    blocks = {"mutual_attention_blocks": ("up_blocks.1",)}
    session.use("dragdiffusion", **blocks)
    edit = session.present_edit()
    session.rounds = (*session.rounds, Round(edit, session._add(session.pictures[2]), 1.0))
    save_session(session, tmp_path / "mine.json")
    again = load_session(tmp_path / "mine.json")
    assert again.rounds == session.rounds and again.rounds[-1].edit.settings == blocks
    assert again.settings_by_method == session.settings_by_method


def test_a_long_history_takes_little_room(tmp_path):
    session = DragSession(picture(96, 64), method="warp")
    for k in range(150):
        session.brush(*((x, k % 64) for x in range(30)), radius=2)
    save_session(session, tmp_path / "mine.json")
    assert (tmp_path / "mine.json").stat().st_size < 500_000, "each stroke is written once"
    assert load_session(tmp_path / "mine.json").history == session.history


def test_a_session_is_saved_as_of_one_moment(session, tmp_path, monkeypatch):
    """An edit that ends meanwhile is in the file as a whole, or not at all."""
    raster = Sketch.raster

    def slowly(sketch, size):
        session.rounds = (*session.rounds, Round(session.present_edit(), session._add(session.image), 1.0))
        return raster(sketch, size)

    monkeypatch.setattr(Sketch, "raster", slowly)
    save_session(session, tmp_path / "mine.json")
    again = load_session(tmp_path / "mine.json")
    assert (len(again.rounds), len(again.pictures)) == (2, 3) and len(session.rounds) == 3
