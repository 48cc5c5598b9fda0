"""The pictures of a session: the result that is looked at, all of them in a row, and methods side by side."""

from collections.abc import Callable, Sequence

import ipywidgets
from PIL import Image

from dragstudy.widgets.controls import in_words
from dragstudy.widgets.display import counted, figure
from dragstudy.widgets.edits import Progress, Round
from dragstudy.widgets.session import DragSession

OnPicture = Callable[[int], None]


def describe(session: DragSession, picture: int) -> str:
    """What a picture of the session is: a line for its name, and for a result how it was made."""
    found = [(number, one) for number, one in enumerate(session.rounds, start=1) if one.result == picture]
    if not found:
        return f"Photograph\n{session.names.get(picture, '')}".strip()
    ((number, made),) = found
    drags = counted(len(made.edit.sketch.drags), "drag")
    settings = ", ".join(filter(None, [drags, f"seed {made.edit.seed}", in_words(made.edit.settings)]))
    return f"Round {number}: {made.edit.method}\n{settings}\n{made.seconds:.1f} s"


def newest_by_method(rounds: Sequence[Round], result: int | None) -> list[Round]:
    """What each method, in the order of their coming, made last of the drags that led to `result`."""
    drawn = [one.edit.sketch for one in rounds if one.result == result]
    return list({one.edit.method: one for one in rounds if one.edit.sketch in drawn}.values())


class ResultPane(ipywidgets.VBox):
    """The result that is looked at, or what an edit holds so far.

    Args:
        on_continue: Called with the number of the picture.
    """

    def __init__(self, on_continue: OnPicture):
        self.picture: int | None = None
        self._shown: Image.Image | None = None
        self.figure = ipywidgets.HTML()
        self.button = ipywidgets.Button(
            description="Continue from this result", icon="pencil", tooltip="Draw on this picture from now on"
        )
        self.button.on_click(lambda _: on_continue(self.picture))
        super().__init__([self.figure, self.button])
        self.add_class("dragstudy-result")
        self.layout.display = "none"

    def show(self, session: DragSession, picture: int | None) -> None:
        """Show a picture of the session; None: nothing."""
        self.picture = picture
        self.layout.display = "none" if picture is None else None
        self.button.layout.display = None
        if picture is not None:
            self._show(session.pictures[picture], describe(session, picture))

    def show_progress(self, progress: Progress) -> None:
        """Show the intermediate image of an edit, if there is one."""
        if progress.image is None:
            return
        self.layout.display, self.button.layout.display = None, "none"
        text = f"So far: {progress.edit.method}\nafter step {progress.step} of {progress.total}"
        self._show(progress.image, text, busy=True)

    def _show(self, image: Image.Image, caption: str, busy: bool = False) -> None:
        if image is not self._shown:  # to encode a large one takes time
            self._shown, self.figure.value = image, figure(image, caption, busy=busy)


class HistoryStrip(ipywidgets.VBox):
    """What several methods made of the same drags, and below it every picture that was edited or made.

    Args:
        on_show: Called with the number of a picture that shall be looked at.
        on_continue: Called with the number of a picture that shall be drawn on.
    """

    def __init__(self, on_show: OnPicture, on_continue: OnPicture):
        self._on_show, self._on_continue = on_show, on_continue
        self._session: DragSession | None = None
        self._cards: dict[int, ipywidgets.VBox] = {}
        self.cards = ipywidgets.HBox()
        self.cards.add_class("dragstudy-cards")
        self.methods = ipywidgets.HTML()
        super().__init__([self.methods, self.cards])
        self.add_class("dragstudy-strip")

    def show(self, session: DragSession, picture: int | None) -> None:
        """Show the pictures of a session, of which `picture` is looked at."""
        if session is not self._session:
            self._session, self._cards = session, {}
        used = {number for one in session.rounds for number in (one.edit.sketch.picture, one.result)}
        for number in sorted(used - set(self._cards)):
            self._cards[number] = self._card(session, number)
        self.cards.children = [self._cards[number] for number in sorted(self._cards)]
        self.layout.display = None if used else "none"
        for number, card in self._cards.items():
            (card.add_class if number == picture else card.remove_class)("dragstudy-shown")
        rounds = newest_by_method(session.rounds, picture)
        figures = [
            figure(session.pictures[one.result], f"{one.edit.method}\n{one.seconds:.1f} s", side=480)
            for one in rounds
        ]
        grid = f'<div class="dragstudy-grid">{"".join(figures)}</div>' if len(rounds) > 1 else ""
        self.methods.value = grid

    def _card(self, session: DragSession, picture: int) -> ipywidgets.VBox:
        text = describe(session, picture)
        name = text.split(":")[0].splitlines()[0].lower()
        buttons = []
        for verb, callback in (("Show", self._on_show), ("Continue", self._on_continue)):
            button = ipywidgets.Button(description=verb, tooltip=f"{verb} {'from ' * (verb != 'Show')}{name}")
            button.on_click(lambda _, callback=callback: callback(picture))
            buttons.append(button)
        thumbnail = ipywidgets.HTML(figure(session.pictures[picture], text, side=240))
        card = ipywidgets.VBox([thumbnail, ipywidgets.HBox(buttons)])
        card.add_class("dragstudy-card")
        return card
