import base64
import contextlib
import io
import threading

import numpy as np
import pytest
import torch
from comm.base_comm import BaseComm
from PIL import Image

from dragstudy.drags import DragInstruction
from dragstudy.widgets.editor import DragEditor
from dragstudy.widgets.files import picture_names
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.sketch import Sketch

from ..tiny import picture, tiny_instantdrag

PHOTO, OTHER = picture(96, 64), picture(80, 60, phase=2.0)
DRAG = [[30, 30], [40, 32]]


class Wire(BaseComm):
    """A connection that keeps what is sent."""

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.__dict__.setdefault("messages", []).append((data, buffers))

    def values(self, trait):
        """What was sent of a trait, apart from the echo of what came from the browser."""
        states = [data["state"] for data, _ in self.messages if data.get("method") == "update"]
        return [state[trait] for state in states if trait in state]


@pytest.fixture(scope="module")
def tiny():
    return tiny_instantdrag()


@pytest.fixture
def editor():
    editor = DragEditor(PHOTO, method="warp", variables={})
    yield editor
    editor.close()


@pytest.fixture
def slow(tiny):
    """An editor whose edits take as many steps as they are told to."""
    session = DragSession(
        PHOTO, "instantdrag", settings={"num_inference_steps": 3}, pipelines={"instantdrag": tiny}
    )
    editor = DragEditor(session=session, variables={})
    draw(editor, DRAG)
    yield editor
    session.cancel()
    editor.close()


def draw(editor, *drags, picture=0, mask=(), live=False):
    """What a browser sends when a gesture has ended, or while it goes on."""
    sketch = {"picture": picture, "drags": list(drags), "mask": list(mask)}
    editor.canvas.set_state({"live": sketch} if live else {"sketch": sketch, "live": {}})


def command(editor, name):
    message = {"method": "custom", "content": {"type": "command", "name": name}}
    editor.canvas._handle_msg({"content": {"data": message}, "buffers": []})


def done(editor):
    """Wait for the session, whatever it raised."""
    with contextlib.suppress(Exception):
        editor.session.wait(60)


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def buttons(card):
    show, proceed = card.children[1].children
    return show, proceed


# What is drawn


def test_what_is_drawn_in_the_browser_reaches_the_session_and_does_not_come_back(editor):
    editor.canvas.comm = wire = Wire()
    draw(editor, DRAG, mask=[{"op": "fill", "value": 1}, {"op": "invert"}])
    assert editor.session.sketch == Sketch.from_dict(editor.canvas.sketch)
    assert editor.session.sketch.drags == (((30, 30), (40, 32)),)
    assert wire.values("sketch") == []
    done(editor)


def test_merged_changes_and_undo_in_the_browser_are_followed(editor):
    draw(editor, DRAG)
    first = editor.session.sketch
    draw(editor, DRAG, [[5, 5], [5, 5]])
    draw(editor, DRAG)
    assert editor.session.sketch == first
    assert len(editor.session.history.past) == 1 and len(editor.session.history.future) == 1
    done(editor)


def test_what_is_drawn_in_python_reaches_the_browser(editor):
    editor.canvas.comm = wire = Wire()
    editor.session.drag((10, 10), (20, 10))
    editor.session.brush((20, 20), radius=6)
    assert editor.canvas.sketch == editor.session.sketch.to_dict()
    editor.session.undo()
    assert editor.canvas.sketch["mask"] == [] and len(wire.values("sketch")) == 3
    assert wire.values("picture") == [], "the picture is the same"
    done(editor)


def test_what_no_session_can_follow_is_told_and_taken_back(editor):
    draw(editor, DRAG)
    draw(editor, DRAG, picture=7)
    assert editor.status.kind == "error" and "no picture 7" in editor.status.text
    assert editor.canvas.sketch == editor.session.sketch.to_dict()
    draw(editor, DRAG, DRAG)
    assert len(editor.session.sketch.drags) == 2 and editor.status.text == ""
    done(editor)


def test_both_stay_in_step_while_cells_the_browser_and_the_worker_run_at_once(editor):
    def browser():
        for x in range(40):
            draw(editor, [[30, 30], [30 + x, 30]], live=x % 2)

    thread = threading.Thread(target=browser)
    thread.start()
    for x in range(40):
        editor.session.drag((x, 5), (x, 9))
        editor.session.undo()
    thread.join()
    draw(editor, DRAG)
    done(editor)
    assert editor.error is None
    assert Sketch.from_dict(editor.canvas.sketch) == editor.session.sketch
    wanted = editor.session.preview
    editor.session.request_preview()
    done(editor)
    assert editor.session.preview.flow.equal(wanted.flow), "the last preview is of the last sketch"


# Previews


def test_previews_follow_the_hand_and_stop_with_it(editor):
    draw(editor, DRAG, live=True)
    done(editor)
    first = editor.canvas.preview
    assert decoded(first["data"]).shape[1] > decoded(first["data"]).shape[0]
    assert (first["arrows"], first["flow"]) == ([], None)
    draw(editor, [[30, 30], [60, 50]], live=True)
    done(editor)
    assert editor.canvas.preview["data"] != first["data"]
    assert editor.session.sketch.drags == (), "nothing is drawn yet"
    editor.canvas.set_state({"live": {}})  # the gesture was given up
    done(editor)
    assert editor.canvas.preview == {}


def test_the_flow_is_sent_only_where_it_is_looked_at(editor):
    draw(editor, DRAG)
    done(editor)
    editor.canvas.set_state({"flow_view": "arrows"})
    arrows = np.array(editor.canvas.preview["arrows"])
    assert arrows.shape[1] == 4 and editor.canvas.preview["flow"] is None
    assert arrows[:, 0].max() > 80 and np.abs(arrows[:, 2:]).max() > 3, "in pixels of the photograph"
    editor.canvas.set_state({"flow_view": "colour"})
    assert editor.canvas.preview["arrows"] == []
    assert decoded(editor.canvas.preview["flow"]).std() > 5


def test_a_preview_that_fails_is_told_and_the_next_one_comes(editor):
    draw(editor, [[30, 30], [400, 30]])
    done(editor)
    assert editor.status.kind == "error" and editor.canvas.preview == {}
    assert editor.error is editor.session.error
    draw(editor, DRAG)
    done(editor)
    assert editor.status.text == "" and editor.canvas.preview["data"]


# Edits


def test_an_edit_is_shown_described_and_ready_to_be_compared(editor):
    draw(editor, DRAG)
    editor.run_panel.edit.click()
    done(editor)
    (made,) = editor.session.rounds
    assert editor.result.picture == made.result == 1
    assert "Round 1: warp" in editor.result.figure.value and editor.result.layout.display is None
    assert editor.status.text.startswith("Round 1: warp, ") and editor.run_panel.progress.value == ""
    after = editor.canvas.after
    assert after["label"] == "Round 1: warp"
    np.testing.assert_array_equal(decoded(after["data"]), np.asarray(editor.session.pictures[1]))


def test_enter_and_escape_on_the_canvas_edit_and_cancel(slow):
    slow.session.use(num_inference_steps=900)
    begun, words = threading.Event(), []

    def look(what):
        if what == "progress" and slow.session.progress and slow.session.progress.step > 1:
            words.append(slow.run_panel.progress.value)
            begun.set()

    slow.session.on_update(look)
    command(slow, "edit")
    assert begun.wait(60)
    command(slow, "cancel")
    done(slow)
    assert slow.session.rounds == () and slow.status.text == "Cancelled"
    assert "instantdrag: step 2 of 900, 0." in words[0] and 'value="2" max="900"' in words[0]
    assert slow.run_panel.progress.value == "" and slow.result.layout.display == "none"


def test_what_the_edit_holds_so_far_stands_where_the_result_will(slow, monkeypatch):
    monkeypatch.setattr("dragstudy.widgets.session.SHOW_EVERY", 0)
    seen = []
    slow.session.on_update(lambda what: seen.append((slow.result.figure.value, slow.result.layout.display)))
    slow.run_panel.edit.click()
    done(slow)
    assert any("So far: instantdrag" in text and not display for text, display in seen)
    assert "Round 1" in slow.result.figure.value


def test_buttons_are_answered_so_that_they_work_while_a_cell_runs(editor):
    editor.run_panel.cancel.comm = wire = Wire()
    draw(editor, DRAG, live=True)
    draw(editor, DRAG, live=True)
    assert wire.values("tooltip") == ["End the edit (Escape)"], "once a gesture"
    command(editor, "edit")
    assert len(wire.values("tooltip")) == 2
    done(editor)


@pytest.mark.parametrize("way", ["button", "several", "command"])
def test_an_edit_of_nothing_is_one_sentence_and_nothing_is_dead_afterwards(editor, way):
    editor.methods_panel.methods.value = ("warp",)
    press = {
        "button": editor.run_panel.edit.click,
        "several": editor.methods_panel.button.click,
        "command": lambda: command(editor, "edit"),
    }[way]
    press()
    assert editor.status.kind == "error" and isinstance(editor.error, ValueError)
    assert editor.status.text.count(".") == 1
    draw(editor, DRAG)
    press()
    done(editor)
    assert len(editor.session.rounds) == 1 and editor.error is None and editor.status.kind == "info"


def test_a_surprise_says_its_type_and_how_to_see_more():
    broken = tiny_instantdrag()
    broken.unet = None
    session = DragSession(PHOTO, "instantdrag", pipelines={"instantdrag": broken})
    editor = DragEditor(session=session, variables={})
    draw(editor, DRAG)
    editor.run_panel.edit.click()
    done(editor)
    assert editor.status.kind == "error"
    assert editor.status.text.startswith(f"{type(editor.error).__name__}: ")
    assert "raise editor.error" in editor.status.text and editor.error.__traceback__
    editor.close()


# Rounds


def test_a_round_goes_on_from_the_result(editor):
    draw(editor, DRAG, mask=[{"op": "fill", "value": 1}])
    command(editor, "edit")
    done(editor)
    editor.result.button.click()
    assert editor.session.sketch.picture == editor.canvas.sketch["picture"] == 1
    assert editor.canvas.picture["id"] == 1
    assert editor.canvas.sketch["drags"] == [] and len(editor.canvas.sketch["mask"]) == 1
    assert editor.canvas.after == {} and editor.result.layout.display == "none"
    draw(editor, DRAG, picture=1)
    command(editor, "edit")
    done(editor)
    assert [(one.edit.sketch.picture, one.result) for one in editor.session.rounds] == [(0, 1), (1, 2)]
    draw(editor, DRAG, picture=0, mask=[{"op": "fill", "value": 1}])  # undone in the browser
    assert editor.canvas.picture["id"] == 0 and editor.session.image.tobytes() == PHOTO.tobytes()
    assert editor.canvas.after["label"] == "Round 2: warp"


def test_the_strip_shows_every_picture_and_goes_back_to_it(editor):
    assert editor.strip.layout.display == "none"
    draw(editor, DRAG)
    editor.session.seed = 5
    for target in ([40, 32], [50, 40]):
        draw(editor, [[30, 30], target])
        command(editor, "edit")
        done(editor)
    cards = editor.strip.cards.children
    texts = [card.children[0].value for card in cards]
    assert ["Photograph" in text for text in texts] == [True, False, False]
    assert "Round 2: warp" in texts[2] and "1 drag, seed 5" in texts[2]
    buttons(cards[1])[0].click()
    assert editor.result.picture == 1 and editor.canvas.after["label"] == "Round 1: warp"
    assert "dragstudy-shown" in cards[1]._dom_classes and "dragstudy-shown" not in cards[2]._dom_classes
    buttons(cards[2])[1].click()
    assert editor.session.sketch.picture == 2
    assert editor.strip.cards.children == cards, "no card is made twice"


def test_several_methods_stand_side_by_side(slow):
    slow.methods_panel.methods.value = ("instantdrag", "warp")
    slow.methods_panel.button.click()
    assert slow.status.text == "Editing by instantdrag, warp" or slow.session.rounds
    done(slow)
    assert [one.edit.method for one in slow.session.rounds] == ["instantdrag", "warp"]
    grid = slow.strip.methods.value
    assert grid.count("<figure") == 2 and grid.index("instantdrag") < grid.index("warp")
    draw(slow, [[10, 10], [20, 20]])
    slow.run_panel.edit.click()
    done(slow)
    assert slow.strip.methods.value == "", "these are other drags"
    buttons(slow.strip.cards.children[1])[0].click()
    assert slow.strip.methods.value.count("<figure") == 2


# Methods and settings


def test_the_method_changes_its_controls_and_each_keeps_its_settings(editor):
    panel = editor.method_panel
    panel.method.value = "instantdrag"
    panel.settings.controls["num_inference_steps"].set_state({"value": 7})
    panel.settings.controls["detail"].set_state({"index": 2})
    chosen = {"num_inference_steps": 7, "detail": "compose"}
    assert editor.session.method == "instantdrag" and editor.session.settings == chosen
    panel.method.value = "warp"
    assert editor.session.settings == {} and "detail" not in panel.settings.controls
    panel.method.value = "instantdrag"
    assert editor.session.settings == chosen and panel.settings.controls["detail"].value == "compose"
    panel.settings.reset.click()
    assert editor.session.settings == {} and panel.settings.controls["num_inference_steps"].value == 20


def test_what_python_sets_is_shown(editor):
    editor.session.use("sdedrag", lora_steps=35, num_inference_steps=300)
    panel = editor.method_panel
    assert panel.method.value == "sdedrag"
    assert panel.settings.controls["lora_steps"].value == 35
    assert editor.session.settings == {"lora_steps": 35, "num_inference_steps": 300}


def test_seeds_are_typed_or_drawn(editor):
    editor.method_panel.seed.set_state({"value": 11})
    assert editor.session.seed == 11
    seeds = set()
    for _ in range(8):
        editor.method_panel.new_seed.click()
        seeds.add(editor.session.seed)
    assert len(seeds) > 1 and editor.session.seed == editor.method_panel.seed.value


# Files


def test_an_editor_without_a_picture_waits_for_one(tmp_path):
    PHOTO.save(tmp_path / "photo.png")
    editor = DragEditor(method="warp", variables={})
    assert editor.tabs.value == "Open" and editor.canvas.picture == {}
    command(editor, "edit")
    assert editor.status.text == "Open a photograph first."
    editor.open_panel.path.value = str(tmp_path / "photo.png")
    message = {"method": "custom", "content": {"event": "submit"}}  # the Enter key
    editor.open_panel.path._handle_msg({"content": {"data": message}, "buffers": []})
    assert (editor.canvas.picture["width"], editor.canvas.picture["height"]) == PHOTO.size
    assert editor.tabs.value == "Method" and "96 x 64" in editor.status.text
    draw(editor, DRAG)
    command(editor, "edit")
    done(editor)
    assert len(editor.session.rounds) == 1
    editor.close()


def test_another_photograph_can_be_undone(editor, tmp_path):
    draw(editor, DRAG)
    OTHER.save(tmp_path / "other.png")
    editor.open_panel.path.value = f" {tmp_path / 'other.png'} "
    editor.open_panel.path_button.click()
    assert editor.canvas.picture["id"] == 1
    assert editor.canvas.sketch == {"picture": 1, "drags": [], "mask": []}
    assert editor.session.names == {1: str(tmp_path / "other.png")}
    editor.session.undo()
    assert editor.canvas.picture["id"] == 0 and editor.canvas.sketch["drags"] == [DRAG]
    done(editor)


@pytest.mark.parametrize("path", ["", "nowhere.png", "broken.png", "broken.json", "list.json"])
def test_what_cannot_be_opened_is_one_sentence(editor, tmp_path, path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    editor.open_panel.path.value = str(tmp_path / path) if path else ""
    editor.open_panel.path_button.click()
    assert editor.status.kind == "error" and isinstance(editor.error, ValueError)
    assert editor.canvas.picture["id"] == 0


def upload(editor, *paths):
    files = [
        {"name": path.name, "type": "", "size": 1, "last_modified": 0, "content": path.read_bytes()}
        for path in paths
    ]
    editor.open_panel.upload.set_state({"value": files})


def test_photographs_are_uploaded_at_any_size(editor, tmp_path):
    picture(2600, 260).save(tmp_path / "wide.jpg")
    upload(editor, tmp_path / "wide.jpg")
    assert editor.session.image.size == (2600, 260) and editor.canvas.picture["width"] == 2600
    assert decoded(editor.canvas.picture["data"]).shape[1] == 2048, "a screen shows no more"
    assert editor.session.names == {}, "it has no path here"
    upload(editor, tmp_path / "wide.jpg")
    assert editor.session.sketch.picture == 2, "the same file once more"


def test_pictures_come_from_variables():
    tensor = torch.zeros(3, 8, 8)
    variables = {
        **{"photo": PHOTO, "array": np.zeros((8, 8, 4), np.uint8), "tensor": tensor, "_hidden": PHOTO},
        **{"latents": torch.zeros(4, 8, 8), "noise": tensor - 1, "flow": np.zeros((2, 8, 8)), "n": 4},
    }
    assert picture_names(variables) == ["photo", "array", "tensor"]
    editor = DragEditor(method="warp", variables=variables)
    panel = editor.open_panel
    assert panel.names.value == "photo"
    variables["later"] = OTHER
    panel.refresh.click()
    panel.names.value = "later"
    panel.refresh.click()
    assert panel.names.value == "later"
    panel.name_button.click()
    assert editor.session.image.tobytes() == OTHER.tobytes()
    variables["later"] = None
    panel.name_button.click()
    assert editor.status.kind == "error" and editor.session.image.tobytes() == OTHER.tobytes()
    editor.close()


def made(editor, folder):
    """A session of one round, saved by the editor."""
    draw(editor, DRAG, mask=[{"op": "fill", "value": 1}])
    command(editor, "edit")
    done(editor)
    editor.keep_panel.path.value = str(folder / "session.json")
    editor.keep_panel.save.click()
    return folder / "session.json"


def test_a_session_is_saved_and_loaded_onto_a_canvas_of_its_own(editor, tmp_path):
    path = made(editor, tmp_path)
    assert editor.status.text == f"Saved {path} and 2 pictures beside it"
    before, canvas = editor.session, editor.canvas
    editor.session.open(OTHER)
    editor.keep_panel.load.click()
    assert editor.error is None and editor.session is not before and editor.canvas is not canvas
    assert editor.session.rounds == before.rounds and editor.canvas.sketch["drags"] == [DRAG]
    assert editor.canvas in editor.children[0].children[0].children
    assert editor.result.picture == 1 and len(editor.strip.cards.children) == 2
    draw(editor, DRAG, DRAG)
    assert len(editor.session.sketch.drags) == 2
    before.drag((1, 1), (2, 2))
    assert len(editor.canvas.sketch["drags"]) == 2, "the old session is no longer listened to"
    done(editor)


def test_a_session_is_uploaded_with_its_pictures(editor, tmp_path):
    path = made(editor, tmp_path)
    other = DragEditor(method="warp", variables={})
    upload(other, *sorted(tmp_path.iterdir(), reverse=True))
    assert [one.size for one in other.session.pictures] == [PHOTO.size, PHOTO.size]
    assert other.canvas.sketch == editor.canvas.sketch
    upload(other, path)
    assert other.status.kind == "error", "its pictures are missing"
    assert len(other.session.pictures) == 2
    other.close()


def test_drags_of_the_command_line_are_taken(editor, tmp_path):
    mask = np.zeros((64, 96))
    mask[:, 48:] = 1
    drags = DragInstruction([[50, 20]], [[60, 22]], mask)
    drags.to_json(tmp_path / "drags.json")
    editor.keep_panel.path.value = str(tmp_path / "drags.json")
    editor.keep_panel.load.click()
    assert editor.canvas.sketch["drags"] == [[[50, 20], [60, 22]]]
    assert editor.session.sketch.instruction(PHOTO.size) == drags
    editor.session.undo()
    assert editor.canvas.sketch["drags"] == []
    done(editor)


def test_the_result_is_exported_in_full_and_offered_to_the_browser(editor, tmp_path):
    path = made(editor, tmp_path)
    for file in tmp_path.glob("*.png"):
        file.unlink()
    editor.canvas.comm = wire = Wire()
    editor.keep_panel.export.click()
    data, (buffer,) = next(one for one in wire.messages if one[0].get("method") == "custom")
    assert data["content"] == {"type": "download", "name": "session-1.png", "mime": "image/png"}
    assert (path.parent / "session-1.png").read_bytes() == bytes(buffer)
    np.testing.assert_array_equal(decoded(buffer), np.asarray(editor.session.pictures[1]))
    assert editor.status.text == f"Wrote {path.parent / 'session-1.png'}"


def test_the_code_is_copied_and_shown(editor):
    editor.keep_panel.copy.click()
    assert editor.status.kind == "error" and editor.keep_panel.code.layout.display == "none"
    draw(editor, DRAG)
    editor.canvas.comm = wire = Wire()
    editor.keep_panel.copy.click()
    (copied,) = [data["content"] for data, _ in wire.messages if data.get("method") == "custom"]
    assert copied == {"type": "copy", "text": editor.keep_panel.code.value}
    assert "handle_points=[[30.0, 30.0]]" in copied["text"]
    done(editor)


def test_what_cannot_be_written_is_one_sentence(editor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    editor.keep_panel.path.value = str(tmp_path / "file" / "session.json")
    for button in (editor.keep_panel.save, editor.keep_panel.export):
        button.click()
        assert editor.status.kind == "error" and str(tmp_path / "file") in editor.status.text
        assert "Error" not in editor.status.text, "no surprise: this happens to users"
        editor.status.say("")
    editor.keep_panel.path.value = str(tmp_path / "new" / "session.json")
    editor.keep_panel.export.click()
    assert (tmp_path / "new" / "session-0.png").is_file()


# Around it


def test_a_saved_notebook_says_what_it_is_and_shows_the_photograph(editor):
    data = editor._repr_mimebundle_()
    assert data["text/plain"] == "DragEditor of 1 picture with 0 drags and 0 rounds; run the notebook to draw"
    assert decoded(base64.b64decode(data["image/jpeg"])).shape == (64, 96, 3)
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_closed_editor_no_longer_listens():
    session = DragSession(PHOTO, method="warp")
    editor = DragEditor(session=session, variables={})
    canvas = editor.canvas
    editor.close()
    editor.close()
    session.drag((1, 1), (5, 5))
    assert canvas.sketch["drags"] == []


def test_what_is_wrong_from_the_start_is_raised():
    with pytest.raises(ValueError, match="no such|must be one of"):
        DragEditor(PHOTO, method="magic")
    with pytest.raises(ValueError, match="cannot be read"):
        DragEditor("nowhere.png", method="warp")


def test_captions_are_text_and_never_markup(editor, tmp_path):
    path = tmp_path / "<b>.png"
    PHOTO.save(path)
    editor.open_panel.path.value = str(path)
    editor.open_panel.path_button.click()
    draw(editor, DRAG, picture=1)
    command(editor, "edit")
    done(editor)
    shown = editor.strip.cards.children[0].children[0].value
    assert "&lt;b&gt;.png" in shown and "<b>" not in shown


def test_the_brush_suits_the_picture_and_stays_while_its_size_does(editor):
    assert editor.canvas.radius == 9
    editor.canvas.set_state({"radius": 20.0})
    draw(editor, DRAG)
    command(editor, "edit")
    done(editor)
    editor.result.button.click()
    assert editor.canvas.radius == 20
    editor.session.open(picture(800, 600))
    assert editor.canvas.radius == 75
    done(editor)


def test_a_preview_says_of_which_picture_it_is(editor):
    draw(editor, DRAG)
    done(editor)
    assert editor.canvas.preview["picture"] == 0
    old = editor.session.preview
    editor.session.open(OTHER)
    editor.session.drag((10, 10), (20, 20))
    done(editor)
    assert editor.canvas.preview["picture"] == 1
    editor.canvas.set_state({"flow_view": "arrows"})
    editor.session.preview = old  # one that comes late
    editor._on_update("preview")
    assert editor.canvas.preview["picture"] == 0
    assert np.array(editor.canvas.preview["arrows"])[:, 0].max() > 85, "in pixels of its own picture"


def test_cancelling_nothing_says_so(editor):
    command(editor, "cancel")
    assert editor.status.text == "There is no edit to cancel"


def test_a_session_that_is_loaded_during_an_edit_takes_its_place(slow, tmp_path):
    slow.keep_panel.path.value = str(tmp_path / "session.json")
    slow.keep_panel.save.click()
    slow.session.use(num_inference_steps=900)
    begun = threading.Event()
    slow.session.on_update(lambda what: begun.set() if what == "progress" else None)
    slow.run_panel.edit.click()
    assert begun.wait(60)
    old, canvas, stage = slow.session, slow.canvas, slow.children[0]
    slow.keep_panel.load.click()
    old.wait(60)
    assert slow.session is not old and slow.run_panel.progress.value == ""
    assert slow.children[0] is stage and stage.children[0].children == (slow.canvas, slow.result)
    assert canvas.comm is None, "the old canvas and its photograph have left the browser"


def test_nobody_elses_file_is_written_over_unasked(editor, tmp_path):
    path = made(editor, tmp_path)
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    editor.keep_panel.save.click()
    assert editor.error is None, "it is its own"
    other = DragEditor(OTHER, method="warp", variables={})
    other.keep_panel.path.value = str(path)
    for button in (other.keep_panel.save, other.keep_panel.export):
        button.click()
        assert "is there already: press once more" in other.status.text
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept
    other.keep_panel.export.click()
    assert other.error is None
    np.testing.assert_array_equal(decoded((tmp_path / "session-0.png").read_bytes()), np.asarray(OTHER))
    other.keep_panel.save.click()
    assert path.read_bytes() == kept[path], "the one that was asked for was another"
    other.keep_panel.save.click()
    assert other.error is None and path.read_bytes() != kept[path]
    other.close()


def test_a_path_that_is_none_is_one_sentence(editor):
    for text in ("", "  ", "session", "photo.png"):
        editor.keep_panel.path.value = text
        editor.keep_panel.save.click()
        assert editor.status.kind == "error" and isinstance(editor.error, ValueError), text
    editor.keep_panel.path.value = ""
    for button in (editor.keep_panel.load, editor.keep_panel.export):
        button.click()
        assert editor.status.text == "Type the path of a file first."
