"""The rating form: blind, saved as it goes, resumed where it was left, and worked by keyboard."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dragstudy.drags import DragInstruction
from dragstudy.metrics.ratings import CRITERIA, RatedEdit
from dragstudy.widgets import rating as rating_module
from dragstudy.widgets.rating import RatingForm

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SCRIPT = Path(rating_module.__file__).with_suffix(".js")
BYTES = ("_photograph", "_edit")


def picture(level):
    return Image.new("RGB", (32, 16), (level, 100, 50))


@pytest.fixture
def edits():
    drags = DragInstruction([[4.0, 5.0]], [[20.0, 6.0]])
    methods = ("secretwarp", "secretdrag")
    return [
        RatedEdit(key, method, picture(9 * k), drags, picture(100 + 9 * k))
        for k, (key, method) in enumerate((key, method) for key in ("k1", "k2") for method in methods)
    ]


def marks(value):
    return dict.fromkeys(CRITERIA, value)


def press(form, **content):
    """What a browser sends."""
    form._handle_custom_msg(content, [])


def state(form):
    names = [name for name in form.keys if name.startswith("_") and not name.startswith("_view")]
    known = {
        name: getattr(form, name) for name in names if not name.startswith(("_model", "_dom", "_anywidget"))
    }
    return {name: value for name, value in known.items() if name not in ("_esm", "_css")} | {
        "place": form.place
    }


def test_what_the_browser_gets_never_names_a_method(edits, tmp_path):
    form = RatingForm(edits, tmp_path / "r.csv", rater="ann")
    seen = []
    while form.shown:
        sent = state(form)
        seen.append(sent["_edit"])
        text = json.dumps({name: value for name, value in sent.items() if name not in BYTES})
        assert "secret" not in text and "k1" not in text
        assert b"secret" not in sent["_edit"] + sent["_photograph"]
        form.rate(**marks(3))
    assert len(set(seen)) == 4 and form.place == 4 and form._edit == b""


def test_it_goes_on_where_it_was_left(edits, tmp_path):
    path = tmp_path / "r.csv"
    form = RatingForm(edits, path, rater="ann")
    first = form.shown
    press(form, type="rate", place=0, marks=marks(2))
    assert form.place == 1 and len(form.results) == 1 and form.results.loc[0, "method"] == first.method
    again = RatingForm(edits, path, rater="ann")
    assert again.place == 1 and again.shown.method == form.shown.method
    assert repr(again).startswith("RatingForm of ann: 1 of 4 edits rated")
    assert RatingForm(edits, path, rater="ben").place == 0
    press(again, type="back", place=1)
    assert again.place == 0 and again._marks == marks(2)
    press(again, type="rate", place=0, marks=marks(5))
    assert len(again.results) == 1 and again.results.loc[0, "overall"] == 5


def test_what_comes_too_late_changes_nothing(edits, tmp_path):
    form = RatingForm(edits, tmp_path / "r.csv", rater="ann")
    press(form, type="rate", place=0, marks=marks(2))
    press(form, type="rate", place=0, marks=marks(4))  # the button was pressed twice
    press(form, type="back", place=0)
    assert form.place == 1 and list(form.results["overall"]) == [2]


def test_a_rating_that_cannot_be_saved_is_said_and_may_be_tried_again(edits, tmp_path):
    folder = tmp_path / "ratings"
    form = RatingForm(edits, folder / "r.csv", rater="ann")
    folder.write_text("a file where the folder should be")
    press(form, type="rate", place=0, marks=marks(2))
    assert (
        form.place == 0
        and isinstance(form.error, OSError)
        and form._problem.startswith("This rating was not")
    )
    with pytest.raises(OSError):
        form.rate(**marks(2))
    folder.unlink()
    press(form, type="rate", place=0, marks={"overall": 9})
    assert "from 1 to 5" in form._problem and form.place == 0
    press(form, type="rate", place=0, marks=marks(2))
    assert form.place == 1 and form.error is None and form._problem == ""


def test_nothing_to_rate_and_nobody_are_refused(edits, tmp_path):
    with pytest.raises(ValueError, match="no edit"):
        RatingForm([], tmp_path / "r.csv", rater="ann")
    for name in ("", " ", "a\nb"):
        with pytest.raises(ValueError, match="a name or a number"):
            RatingForm(edits, tmp_path / "r.csv", rater=name)
    form = RatingForm(edits[:1], tmp_path / "r.csv", rater="ann")
    form.rate(**marks(1))
    with pytest.raises(ValueError, match="all 1 edits are rated"):
        form.rate(**marks(1))


PAGE = """
const listeners = {};
const state = {};
const call = (name, ...given) => (listeners[name] ?? []).forEach((one) => one(...given));
const take = (sent) => {
  for (const name of ["_photograph", "_edit"]) {
    const bytes = Uint8Array.from(atob(sent[name]), (letter) => letter.charCodeAt(0));
    sent[name] = new DataView(bytes.buffer);
  }
  Object.assign(state, sent);
  Object.keys(sent).forEach((name) => call(`change:${name}`));
};
const model = {
  get: (name) => state[name],
  send: async (content) => {
    const before = state.place;
    take(await window.toPython(content));
    if (state.place === before) call("msg:custom", { type: "refused" });
  },
  on: (name, one) => (listeners[name] ??= []).push(one),
  off: (name, one) => (listeners[name] = listeners[name].filter((other) => other !== one)),
};
take(await window.toPython(null));
const url = URL.createObjectURL(new Blob([window.source], { type: "text/javascript" }));
const { default: widget } = await import(url);
window.outside = [];
document.addEventListener("keydown", (event) => window.outside.push(event.key));
const leave = widget.render({ model, el: document.querySelector("main") });
window.leave = leave;
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


def test_a_browser_rates_all_of_it_by_keyboard(browser, edits, tmp_path):
    form = RatingForm(edits[:2], tmp_path / "r.csv", rater="ann")

    def to_python(content):
        if content:
            press(form, **content)
        sent = state(form)
        return sent | {name: base64.b64encode(sent[name]).decode() for name in BYTES}

    page = browser.new_page()
    page.expose_function("toPython", to_python)
    page.set_content("<main></main>")
    page.evaluate("(text) => (window.source = text)", SCRIPT.read_text())
    page.add_script_tag(content=PAGE, type="module")
    page.get_by_text("Edit 1 of 2").wait_for()
    size = "image => image.decode().then(() => image.naturalWidth)"
    assert page.get_by_role("img", name="edit 1 of 2").evaluate(size) == 32
    drawn = page.locator("svg line.light").evaluate(
        "line => ['x1', 'y1', 'x2', 'y2'].map((n) => line.getAttribute(n))"
    )
    assert np.allclose([float(value) for value in drawn], [4.5, 5.5, 20.5, 6.5])
    save = page.get_by_role("button", name="Save and go on")
    assert save.is_disabled() and page.get_by_role("button", name="Back").is_disabled()
    page.get_by_role("radio").first.focus()
    for key in "452":  # answers one question after the other, and stands on the button then
        page.keyboard.press(key)
    assert save.evaluate("button => button === document.activeElement") and save.is_enabled()
    page.keyboard.press("Enter")
    page.get_by_text("Edit 2 of 2").wait_for()
    assert dict(form.results.loc[0, list(CRITERIA)]) == {"instruction": 4, "identity": 5, "overall": 2}
    assert (
        page.evaluate("document.activeElement.type") == "radio" and page.locator("input:checked").count() == 0
    )
    page.keyboard.press("3")
    page.keyboard.press("ArrowRight")  # the radio buttons' own keys
    page.keyboard.press("Tab")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("All 2 edits are rated").wait_for()
    assert list(form.results.loc[1, list(CRITERIA)])[0] == 3 and form.results.loc[1, "overall"] == 1
    assert page.evaluate("document.activeElement.textContent") == "Back"
    page.keyboard.press("Enter")
    page.get_by_text("Edit 2 of 2").wait_for()
    assert page.locator("input:checked").count() == 3
    assert not {"1", "2", "3", "4", "5"} & set(page.evaluate("window.outside"))
    for control in page.locator("input, button").all():
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.evaluate("leave()")
    assert page.evaluate("listening()") == 0
    page.close()
