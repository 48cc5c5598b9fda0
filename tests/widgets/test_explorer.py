import base64
import shutil
import threading
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from dragstudy.widgets import explorer as explorer_module
from dragstudy.widgets.explorer import Explorer

AXES = {"level": [0, 100, 250], "colour": ["grey", "red"]}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SCRIPT = Path(explorer_module.__file__).with_suffix(".js")


class Painter:
    """A picture of one colour, and the positions it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, level, colour):
        self.asked.append((level, colour))
        picture = Image.new("RGB", (16, 8), (level, level, level) if colour == "grey" else (level, 0, 0))
        return picture, f"{colour} of {level}"


@pytest.fixture
def paint():
    return Painter()


def move(explorer, *places):
    """What a browser sends when its sliders come to stand at these places."""
    explorer.set_state({"_places": list(places)})


def shown(explorer):
    return np.asarray(Image.open(BytesIO(explorer._image))).astype(int)


def test_the_picture_follows_the_sliders_and_is_made_once(paint):
    explorer = Explorer(AXES, paint)
    assert explorer.values == (0, "grey") and shown(explorer).max() < 5
    move(explorer, 1, 0)
    assert explorer.values == (100, "grey") and explorer.sentence == "grey of 100"
    assert shown(explorer).shape == (8, 16, 3) and abs(shown(explorer) - 100).max() < 5
    assert explorer._alt == "level 100, colour grey. grey of 100"
    move(explorer, 0, 0)
    move(explorer, 1, 0)
    assert paint.asked == [(0, "grey"), (100, "grey")]


def test_python_moves_the_sliders_too(paint):
    explorer = Explorer(AXES, paint, start=(250, "red"))
    explorer.show(100, "red")
    assert explorer._places == [1, 1] and paint.asked == [(250, "red"), (100, "red")]
    for values in ((50, "red"), (100,), (100, "red", 1)):
        with pytest.raises(ValueError, match="level"):
            explorer.show(*values)
    assert explorer.values == (100, "red")


def test_pictures_made_before_are_handed_in_by_position():
    explorer = Explorer({"level": [0, 200, 250]}, {0: np.zeros((4, 4)), 200: np.full((4, 4), 200 / 255)})
    explorer.show(200)
    assert abs(shown(explorer) - 200).max() < 5
    move(explorer, 2)
    assert explorer._problem == "No picture for level 250: it was not made beforehand."
    both = Explorer(AXES, {(0, "grey"): (np.zeros((4, 4)), "dark")})
    assert both.sentence == "dark"


def test_what_fails_is_said_and_the_sliders_stay_alive():
    broken = True

    def inverse(level):
        if broken and not level:
            raise ZeroDivisionError("division by zero")
        return Image.new("L", (4, 4), level)

    explorer = Explorer({"level": [100, 0]}, inverse)
    move(explorer, 1)
    assert explorer._problem == "No picture for level 0: division by zero."
    assert explorer._image == b"" and isinstance(explorer.error, ZeroDivisionError) and not explorer._busy
    move(explorer, 0)
    assert explorer._problem == "" and explorer.error is None and explorer._image
    with pytest.raises(ZeroDivisionError):  # a script that asks for it is not told in silence
        explorer.show(0)
    assert explorer.values == (100,)
    broken = False
    move(explorer, 1)  # what failed is tried again
    assert explorer._problem == "" and explorer._image
    move(explorer, 5)
    assert explorer._problem == "No picture for an unknown position: list index out of range."


def test_only_the_newest_position_waits():
    started, go_on, asked = threading.Event(), threading.Event(), []

    def slow(level):
        asked.append(level)
        if level == 1:
            started.set()
            go_on.wait(10)
        return Image.new("L", (4, 4), level)

    explorer = Explorer({"level": list(range(10))}, slow)
    threads = [threading.Thread(target=move, args=(explorer, 1))]
    threads[0].start()
    assert started.wait(10) and explorer._busy
    for place in (2, 3, 4):
        threads.append(threading.Thread(target=move, args=(explorer, place)))
        threads[-1].start()
        threads[-1].join(0.05)  # until it waits
        assert explorer._places == [place]
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert asked == [0, 1, 4] and explorer.values == (4,) and not explorer._busy


@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_on_or_off_as_in_the_cell_that_made_it(wanted):
    seen = []

    def look(level):
        seen.append(torch.is_grad_enabled())
        return Image.new("L", (4, 4), level)

    with torch.set_grad_enabled(wanted):
        explorer = Explorer({"level": [0, 1]}, look)
    thread = threading.Thread(target=move, args=(explorer, 1))  # where callbacks run: torch forgets there
    thread.start()
    thread.join()
    assert seen == [wanted, wanted]


def test_figures_are_drawn_and_closed():
    def figure(level):
        fig, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, level])
        return fig

    explorer = Explorer({"level": [1, 2]}, figure)
    assert shown(explorer).shape[1] == 2 * plt.rcParams["figure.dpi"] and not plt.get_fignums()


@pytest.mark.parametrize("axes", [{}, {"level": []}, {"level": [1, 1.0]}])
def test_axes_without_a_choice_are_refused(axes, paint):
    with pytest.raises(ValueError, match="axis"):
        Explorer(axes, paint)


def test_a_function_that_returns_no_picture_is_told_so():
    with pytest.raises(TypeError, match="must return an image or a figure, got NoneType"):
        Explorer({"level": [1]}, lambda level: None)


def test_a_saved_notebook_keeps_a_line_and_a_still_picture(paint):
    explorer = Explorer(AXES, paint)
    data, metadata = explorer._repr_mimebundle_()
    assert data["text/plain"] == (
        "Explorer of 6 pictures over level, colour; run the notebook to move its sliders"
    )
    assert base64.b64decode(data["image/jpeg"]) == explorer._image
    assert metadata["image/jpeg"]["alt"] == explorer._alt


PAGE = """
const listeners = {};
const state = {};
const take = (sent) => {
  const bytes = Uint8Array.from(atob(sent._image), (letter) => letter.charCodeAt(0));
  Object.assign(state, sent, { _image: new DataView(bytes.buffer) });
  for (const name of Object.keys(sent)) (listeners[`change:${name}`] ?? []).forEach((call) => call());
};
const model = {
  get: (name) => state[name],
  set: (name, value) => (state[name] = value),
  save_changes: async () => take(await window.toPython({ _places: state._places })),
  on: (name, call) => (listeners[name] ??= []).push(call),
  off: (name, call) => (listeners[name] = listeners[name].filter((other) => other !== call)),
};
take(await window.toPython({}));
const url = URL.createObjectURL(new Blob([window.source], { type: "text/javascript" }));
const widget = (await import(url)).default;
window.leave = widget.render({ model, el: document.querySelector("main") });
window.listening = () => Object.values(listeners).flat().length;
"""


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def test_a_browser_moves_it_by_keyboard_and_by_name(browser, paint):
    explorer = Explorer(AXES, paint)

    def to_python(sent):
        explorer.set_state(sent)
        state = {name: explorer.get_state()[name] for name in explorer.keys if not name.startswith("_view")}
        return state | {"_image": base64.b64encode(explorer._image).decode(), "layout": None}

    page = browser.new_page()
    page.expose_function("toPython", to_python)
    page.set_content("<main></main>")
    page.evaluate("(text) => (window.source = text)", SCRIPT.read_text())
    page.add_script_tag(content=PAGE, type="module")
    slider, listed = page.get_by_role("slider", name="level"), page.get_by_role("combobox", name="colour")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("img", name="level 100, colour grey").wait_for()
    assert explorer.values == (100, "grey") and slider.get_attribute("aria-valuetext") == "100"
    page.keyboard.press("End")
    page.keyboard.press("Tab")  # leaves the slider for the list
    page.keyboard.press("ArrowDown")
    page.get_by_role("img", name="level 250, colour red. red of 250").wait_for()
    assert page.locator("figcaption").inner_text() == "red of 250" and explorer.values == (250, "red")
    assert listed.input_value() == "1"
    assert page.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 16
    for control in (slider, listed):
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.evaluate("leave()")
    assert page.evaluate("listening()") == 0
    page.close()
