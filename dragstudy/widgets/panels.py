"""What edits and how: the method with its settings and the seed, several methods at once, and the run."""

import secrets
from collections.abc import Callable
from typing import Any

import ipywidgets

from dragstudy.pipelines import METHODS
from dragstudy.widgets.controls import SettingsPanel
from dragstudy.widgets.edits import Progress
from dragstudy.widgets.session import DragSession


class MethodPanel(ipywidgets.VBox):
    """The method, the seed, and the method's settings.

    Args:
        use_method: Called with the name of a method.
        use_seed: Called with a seed.
        use_setting: Called with the name and the value of a setting, None for the method's default.
        reset: Called when all settings shall have their defaults again.
    """

    def __init__(
        self,
        use_method: Callable[[str], None],
        use_seed: Callable[[int], None],
        use_setting: Callable[[str, Any], None],
        reset: Callable[[], None],
    ):
        self.method = ipywidgets.Dropdown(options=list(METHODS), description="Method", tooltip="What edits")
        self.seed = ipywidgets.IntText(description="Seed", tooltip="The same seed gives the same result")
        self.new_seed = ipywidgets.Button(icon="random", description="New", tooltip="Draw a new seed")
        self.new_seed.on_click(lambda _: self.seed.set_trait("value", secrets.randbelow(10_000)))
        self.settings = SettingsPanel(use_setting, reset)
        self.method.observe(lambda change: use_method(change["new"]), names=["value"])
        self.seed.observe(lambda change: use_seed(change["new"]), names=["value"])
        super().__init__([self.method, ipywidgets.HBox([self.seed, self.new_seed]), self.settings])

    def show(self, session: DragSession) -> None:
        """Show what the session is set to."""
        self.method.value, self.seed.value = session.method, session.seed
        self.settings.show(session.method, session.settings)


class MethodsPanel(ipywidgets.VBox):
    """Several methods for the same drags.

    Args:
        edit: Called with the names of the methods that are chosen.
    """

    def __init__(self, edit: Callable[[tuple[str, ...]], None]):
        self.methods = ipywidgets.SelectMultiple(
            options=list(METHODS), rows=len(METHODS), description="Methods", tooltip="Choose several"
        )
        self.button = ipywidgets.Button(
            description="All on these drags", icon="th", tooltip="Edit by each of the chosen methods"
        )
        self.button.on_click(lambda _: edit(self.methods.value))
        super().__init__([self.methods, self.button])


class RunPanel(ipywidgets.VBox):
    """Begin and end an edit, and how far it is.

    Args:
        edit: Called to begin one.
        cancel: Called to end it.
    """

    def __init__(self, edit: Callable[[], None], cancel: Callable[[], None]):
        self.edit = ipywidgets.Button(
            description="Edit", icon="play", button_style="primary", tooltip="Carry out the drags (Enter)"
        )
        self.cancel = ipywidgets.Button(description="Cancel", icon="stop", tooltip="End the edit (Escape)")
        self.edit.on_click(lambda _: edit())
        self.cancel.on_click(lambda _: cancel())
        self.progress = ipywidgets.HTML()
        buttons = ipywidgets.HBox([self.edit, self.cancel])
        buttons.add_class("dragstudy-run")
        super().__init__([buttons, self.progress])

    def answer(self) -> None:
        """Send the buttons something, in answer to a message of the browser.

        ipykernel hands a widget's messages to the thread that has last sent to it, at first to that of the
        cells. After an answer the buttons work while a cell runs.
        """
        for button in (self.edit, self.cancel):
            button.send_state("tooltip")

    def show(self, now: Progress | None) -> None:
        """Show how far the edit is; None: there is none."""
        if now is None:
            self.progress.value = ""
            return
        doing = f"step {now.step} of {now.total}" if now.total else "loading"
        text = f"{now.edit.method}: {doing}, {now.seconds:.1f} s"
        if now.count > 1:
            text += f" ({now.number} of {now.count})"
        value = f' value="{now.step}" max="{now.total}"' if now.total else ""
        self.progress.value = f'<progress aria-label="Progress of the edit"{value}></progress> {text}'
