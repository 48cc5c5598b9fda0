import itertools
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from dragstudy.drags import DragInstruction
from dragstudy.widgets.session import DragSession
from dragstudy.widgets.sketch import Sketch

from ..tiny import picture, tiny_instantdrag

PHOTO = picture(96, 64)


@pytest.fixture
def session():
    return DragSession(PHOTO, method="warp")


@pytest.fixture(scope="module")
def tiny():
    return tiny_instantdrag()


@pytest.fixture
def slow(tiny):
    """A session whose edits take as many steps as they are told to."""
    session = DragSession(
        PHOTO, "instantdrag", settings={"num_inference_steps": 3}, pipelines={"instantdrag": tiny}
    )
    session.drag((30, 30), (40, 32))
    return session


def step_reached(session, step):
    """An event that is set once the running edit has done so many steps."""
    reached = threading.Event()

    def look(what):
        if what == "progress" and session.progress and session.progress.step >= step:
            reached.set()

    session.on_update(look)
    return reached


def test_an_edit_gives_what_the_pipeline_gives(slow, tiny):
    slow.seed = 7
    slow.brush((20, 30), (60, 30), radius=25)
    slow.edit()
    slow.wait(60)
    expected = tiny(
        PHOTO,
        [[30, 30]],
        [[40, 32]],
        slow.sketch.raster(PHOTO.size),
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(7),
    )
    (made,) = slow.rounds
    assert slow.pictures[made.result].tobytes() == expected.images[0].tobytes() != PHOTO.tobytes()
    assert made.edit.seed == 7 and made.seconds > 0 and slow.progress is None and not slow.busy


def test_progress_counts_every_step_and_shows_what_is_there(slow, monkeypatch):
    monkeypatch.setattr("dragstudy.widgets.session.SHOW_EVERY", 0)
    seen = []
    slow.on_update(lambda what: seen.append(slow.progress) if what == "progress" else None)
    slow.edit()
    slow.wait(60)
    assert seen.pop() is None
    assert [(one.step, one.total) for one in seen] == [(0, 0), (1, 3), (2, 3), (3, 3)]
    assert seen[0].image is None and seen[1].image.size == (64, 64)
    assert seen[1].image.tobytes() != seen[3].image.tobytes()


def test_cancel_ends_a_long_edit_within_a_step(slow):
    slow.use(num_inference_steps=900)
    steps = []
    slow.on_update(lambda _: steps.append(slow.progress.step) if slow.progress else None)
    reached = step_reached(slow, 2)
    slow.edit()
    assert reached.wait(60)
    slow.cancel()
    at = slow.progress.step
    slow.wait(60)
    assert slow.rounds == () and len(slow.pictures) == 1
    assert at < 900 and steps[-1] <= at + 1
    slow.use(num_inference_steps=1)
    slow.edit()
    slow.wait(60)
    assert len(slow.rounds) == 1, "the next edit runs through"


def test_the_newest_edit_wins(slow):
    slow.use(num_inference_steps=900)
    reached = step_reached(slow, 1)
    slow.edit()
    assert reached.wait(60)
    slow.use(num_inference_steps=2)
    for seed in (1, 2, 3):
        slow.seed = seed
        slow.edit()
    slow.wait(60)
    assert [one.edit.seed for one in slow.rounds] == [3]


def test_the_newest_preview_wins(slow):
    slow.request_preview()
    slow.wait(60)
    first = slow.preview
    shown = []
    slow.on_update(lambda what: shown.append(slow.preview) if what == "preview" else None)
    for x in range(41, 60):
        slow.request_preview(slow.sketch.apply({"type": "move", "index": 0, "end": "target", "to": [x, 32]}))
    slow.wait(60)
    assert 1 <= len(shown) < 19 and shown[-1].flow.equal(slow.preview.flow)
    assert slow.preview.image.tobytes() != first.image.tobytes()
    slow.move(0, target=(59, 32))
    slow.request_preview()
    slow.wait(60)
    assert slow.preview.flow.equal(shown[-1].flow), "the last one shown is of the last position"


def test_previews_go_on_during_an_edit_and_leave_it_as_it_is(slow):
    slow.use(num_inference_steps=40)
    slow.edit()
    slow.wait(60)
    shown, counts = [], iter(range(41, 80))

    def look(what):
        if what == "progress" and slow.progress and slow.progress.step in (3, 9, 15):
            to = [next(counts), 32]
            slow.request_preview(slow.sketch.apply({"type": "move", "index": 0, "end": "target", "to": to}))
        if what == "preview":
            shown.append((slow.progress.step, slow.preview.sketch.drags[0][1][0]))

    slow.on_update(look)
    slow.edit()
    slow.wait(60)
    assert shown == [(3, 41), (9, 42), (15, 43)], "at the next step, of the newest position"
    first, second = slow.rounds
    assert slow.pictures[first.result].tobytes() == slow.pictures[second.result].tobytes()


def test_nothing_is_lost_where_a_cell_and_the_browser_draw_at_once(session):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        numbers = []

        def draw(y):
            for x in range(90):
                session.drag((x, y), (x, y + 1))
                numbers.append(session._add(PHOTO))

        threads = [threading.Thread(target=draw, args=(y,)) for y in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(session.sketch.drags) == 180 == len(session.history.past)
    assert sorted(numbers) == list(range(1, 181)), "each picture has a number of its own"


def test_a_listener_that_fails_does_not_end_the_session(session, capsys):
    main = threading.current_thread()

    def fail(what):
        if threading.current_thread() is not main:
            raise RuntimeError("of the listener")

    stop = session.on_update(fail)
    session.drag((30, 30), (40, 32))
    session.edit()
    with pytest.raises(RuntimeError, match="of the listener"):
        session.wait(60)
    stop()
    session.edit()
    session.wait(60)
    assert session.rounds and session.error is None and "of the listener" in capsys.readouterr().err


def test_without_drags_there_is_no_preview(session):
    session.drag((10, 10), (20, 10))
    session.request_preview()
    session.wait(60)
    assert session.preview.image.size[0] > session.preview.image.size[1]
    session.clear()
    session.request_preview()
    session.wait(60)
    assert session.preview is None


def test_what_a_worker_raises_is_told_raised_by_wait_and_gone_with_the_next_edit(session):
    told = []
    session.on_update(told.append)
    session.show(Sketch(drags=(((10.0, 10.0), (500.0, 10.0)),)))  # a canvas would not let this happen
    session.request_preview()
    with pytest.raises(ValueError, match="must lie inside the 96x64 image"):
        session.wait(60)
    assert "error" in told
    session.undo()
    session.drag((10, 10), (20, 10))
    session.request_preview()
    session.wait(60)
    assert session.error is None, "the next preview is fine"
    session.edit()
    session.wait(60)
    assert len(session.rounds) == 1


def test_an_edit_that_cannot_be_made_is_refused_at_once(session):
    with pytest.raises(ValueError, match="At least one drag"):
        session.edit()
    with pytest.raises(ValueError, match="open a photograph first"):
        DragSession(method="warp").edit()
    session.drag((10, 10), (20, 10))
    with pytest.raises(ValueError, match="method must be one of"):
        session.edit("warp", "wrap")
    assert session.rounds == () and not session.busy


def test_several_methods_edit_the_same_drags_and_one_that_fails_does_not_stop_the_others(session, tiny):
    failing = tiny_instantdrag()
    failing.unet.conv_in.weight.data = failing.unet.conv_in.weight.data[:, :3]  # cannot see its conditions
    session = DragSession(PHOTO, "warp", pipelines={"instantdrag": failing})
    session.drag((30, 30), (40, 32))
    session.edit("warp", "instantdrag", "warp")
    with pytest.raises(RuntimeError):
        session.wait(60)
    assert [one.edit.method for one in session.rounds] == ["warp", "warp"]
    assert session.pictures[1].tobytes() == session.pictures[2].tobytes()


UNSAVABLE = {"flow": torch.zeros(1, 2, 8, 8)}, {"callback_on_step_end": print}


def test_settings_are_checked_and_kept_by_method(session):
    session.use("instantdrag", detail="compose", num_inference_steps=5)
    session.use("warp")
    assert session.settings == {}
    session.use("instantdrag", detail=None)
    assert session.settings == {"num_inference_steps": 5}
    for wrong in (
        {"steps": 5},
        {"num_inference_steps": "five"},
        {"generator": None, "output_type": "np"},
        *UNSAVABLE,
    ):
        with pytest.raises(ValueError):
            session.use("instantdrag", **wrong)
    with pytest.raises(ValueError, match="method must be one of"):
        session.use("instadrag")
    assert session.method == "instantdrag" and session.settings == {"num_inference_steps": 5}


def test_going_on_from_a_result_keeps_the_mask_and_can_be_undone(session):
    session.drag((30, 30), (40, 32))
    session.brush((35, 31), radius=30)
    session.edit()
    session.wait(60)
    before = session.sketch
    session.continue_from(1)
    assert session.image is session.pictures[1] and session.sketch == Sketch(1, (), before.mask)
    session.drag((40, 32), (45, 32))
    session.edit()
    session.wait(60)
    assert session.rounds[1].edit.sketch.picture == 1 and len(session.pictures) == 3
    session.undo()
    session.undo()
    assert session.sketch == before and session.image is session.pictures[0]
    with pytest.raises(ValueError, match="pictures 0 to 2"):
        session.continue_from(3)


def test_another_photograph_can_be_opened_and_left_again(session, tmp_path):
    session.drag((30, 30), (40, 32))
    drawn = session.sketch
    picture(40, 90).save(tmp_path / "tall.png")
    number = session.open(tmp_path / "tall.png")
    assert session.image.size == (40, 90) and session.sketch == Sketch(number)
    assert session.names == {number: str(tmp_path / "tall.png")}
    session.undo()
    assert session.sketch == drawn and session.image.size == (96, 64)
    for wrong, message in ((tmp_path / "none.png", "cannot be read"), (picture(340, 20), "16:1")):
        with pytest.raises(ValueError, match=message):
            session.open(wrong)
    assert len(session.pictures) == 2, "what cannot be opened leaves the session as it was"


def test_drags_of_a_file_are_taken(session):
    mask = np.zeros((64, 96))
    mask[10:30] = 1
    drags = DragInstruction([[1, 2], [3, 4]], [[1, 2], [9, 4]], mask)
    session.set_drags(drags)
    assert session.sketch.instruction(PHOTO.size) == drags
    session.set_mask(None)
    assert session.sketch.mask == () and len(session.sketch.drags) == 2
    with pytest.raises(ValueError, match="must be of \\(64, 96\\)"):
        session.set_mask(mask.T)
    with pytest.raises(ValueError, match="of \\(64, 64\\)"):
        session.set_drags(DragInstruction([[1, 2]], [[3, 4]], image_size=(64, 64)))


def test_a_canvas_is_followed_only_to_pictures_that_there_are(session):
    session.drag((30, 30), (40, 32))
    session.follow(Sketch())
    assert session.history.future, "an undo in the browser is one here"
    with pytest.raises(ValueError, match="no picture 4"):
        session.follow(Sketch(picture=4))


def test_a_callback_can_be_taken_back(session):
    told = []
    stop = session.on_update(told.append)
    session.drag((30, 30), (40, 32))
    stop()
    session.undo()
    assert told == ["sketch"]


coordinates = st.tuples(st.integers(0, 95), st.integers(0, 63))
radii = st.integers(0, 40).map(
    lambda radius: radius + 0.3137
)  # no pixel lies on the rim, where rounding decides
operations = st.one_of(
    st.tuples(st.just("drag"), coordinates, coordinates),
    st.tuples(st.just("move"), st.integers(0, 3), coordinates),
    st.tuples(st.just("remove"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["brush", "erase"]), coordinates, coordinates, radii),
    st.tuples(st.just("fill"), st.sampled_from([0, 1])),
    st.tuples(st.sampled_from(["invert", "undo", "redo", "clear", "clear_mask", "open", "continue"])),
)


class Model:
    """What a session should do, written down plainly: lists of points and arrays of pixels, each a copy."""

    def __init__(self):
        self.states, self.place = [(0, [], None)], 0

    def do(self, name, *args):
        if name in ("undo", "redo"):
            self.place = min(max(self.place + (1 if name == "redo" else -1), 0), len(self.states) - 1)
            return
        number, drags, mask = self.states[self.place]
        drags = list(drags)
        mask = None if mask is None else mask.copy()
        if name == "drag":
            drags.append(args)
        elif name == "move" and args[0] < len(drags):
            drags[args[0]] = (drags[args[0]][0], args[1])
        elif name == "remove" and args[0] < len(drags):
            drags.pop(args[0])
        elif name == "clear":
            drags = []
        elif name == "clear_mask":
            mask = None
        elif name in ("brush", "erase"):
            mask = np.full((64, 96), name == "erase") if mask is None else mask
            mask[self.near(*args)] = name == "brush"
        elif name == "fill":
            mask = np.full((64, 96), bool(args[0]))
        elif name == "invert":
            mask = np.zeros((64, 96), bool) if mask is None else ~mask
        elif name == "open":
            number, drags, mask = args[0], [], None
        elif name == "continue":
            number, drags = 0, []
        after = number, drags, mask
        if name in ("brush", "erase", "fill", "invert") or not same(after, self.states[self.place]):
            self.states = [*self.states[: self.place + 1], after]
            self.place += 1

    @staticmethod
    def near(a, b, radius):
        """Pixels within a radius of a segment, by the sine and cosine of its direction."""
        y, x = np.mgrid[:64, :96].astype(float)
        along = np.array([b[0] - a[0], b[1] - a[1]], float)
        length = np.hypot(*along)
        u, v = along / length if length else (1.0, 0.0)
        ahead = np.clip((x - a[0]) * u + (y - a[1]) * v, 0, length)
        distance = np.hypot(x - a[0] - ahead * u, y - a[1] - ahead * v)
        return distance <= radius


def same(one, other):
    return one[:2] == other[:2] and equal_masks(one[2], other[2])


def equal_masks(one, other):
    return one is other if one is None or other is None else (one == other).all()


def carry_out(session, name, *args):
    if name == "move":
        session.move(args[0], target=args[1])
    elif name in ("brush", "erase"):
        getattr(session, name)(*args[:2], radius=args[2])
    elif name == "clear_mask":
        session.clear("mask")
    elif name == "continue":
        session.continue_from(0)
    elif name == "open":
        return session.open(picture(96, 64))
    else:
        getattr(session, name)(*args)
    return None


@settings(max_examples=20, phases=[Phase.generate])  # to shrink 200 operations would take minutes
@given(st.lists(operations, min_size=200, max_size=200))
def test_two_hundred_random_operations_do_what_a_plain_model_does(sequence):
    session, model = DragSession(PHOTO, method="warp"), Model()
    for name, *args in sequence:
        opened = carry_out(session, name, *args)
        model.do(name, *(args if opened is None else [opened]))
        number, drags, mask = model.states[model.place]
        assert session.sketch.picture == number
        assert list(session.sketch.drags) == drags
        assert equal_masks(session.sketch.raster(session.image.size), mask)
    states = [session.sketch]
    while session.history.past:
        session.undo()
        states.append(session.sketch)
    for state in itertools.islice(reversed(states), 1, None):
        session.redo()
        assert session.sketch == state


def test_a_session_without_a_photograph_takes_one_later():
    session = DragSession(method="warp")
    assert session.open(Image.new("L", (50, 40), 128)) == 0
    assert session.image.mode == "RGB"
