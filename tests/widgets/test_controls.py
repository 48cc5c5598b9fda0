import inspect

import ipywidgets
import pytest

from dragstudy.pipelines import METHODS, find_method
from dragstudy.widgets.controls import OWN, TABLE, SettingsPanel, in_words, make_control, shown_settings


class User:
    """A panel, what it was told to change, and the settings that follow from that."""

    def __init__(self):
        self.changes, self.settings = [], {}
        self.panel = SettingsPanel(self.change, lambda: self.changes.append("reset"))

    def change(self, name, value):
        self.changes.append((name, value))
        self.settings = {k: v for k, v in self.settings.items() if k != name}
        self.settings |= {} if value is None else {name: value}


@pytest.fixture
def user():
    return User()


@pytest.mark.parametrize("method", METHODS)
def test_every_control_stands_at_the_default_of_the_call_and_is_labelled(method):
    parameters = inspect.signature(find_method(method).__call__).parameters
    shown = shown_settings(method)
    assert list(shown) == [name for name in TABLE if name in shown], "in the order of the table"
    for name in shown:
        control, default = make_control(name, method), parameters[name].default
        assert control.value == (OWN if default is None else default)
        assert control.description and control.tooltip


@pytest.mark.parametrize("method", METHODS)
def test_whatever_a_control_offers_the_method_has_as_a_setting(method):
    from dragstudy.widgets.session import DragSession

    session = DragSession(method="warp")
    for name in shown_settings(method):
        control = make_control(name, method)
        if hasattr(control, "options"):
            offered = [value for _, value in control.options if value != OWN]
        else:
            offered = [control.min, control.max] if hasattr(control, "max") else [True, False]
        for value in offered:
            session.use(method, **{name: value})
            assert session.settings == {name: value}
            session.use(method, **{name: None})


def test_there_is_no_word_about_a_setting_that_no_method_has():
    assert set(TABLE) == set().union(*map(shown_settings, METHODS))


def test_only_what_is_changed_is_told_and_the_default_takes_it_back(user):
    user.panel.show("instantdrag-splat", {})
    controls = user.panel.controls
    assert isinstance(controls["noise_prior"], ipywidgets.Dropdown)
    assert isinstance(controls["num_inference_steps"], ipywidgets.IntSlider)
    assert user.changes == []
    controls["num_inference_steps"].set_state({"value": 8})
    controls["noise_prior"].set_state({"index": 2})
    assert user.changes == [("num_inference_steps", 8), ("noise_prior", "mixed")]
    controls["num_inference_steps"].set_state({"value": 20})
    assert user.changes[-1] == ("num_inference_steps", None)


def test_a_default_of_none_is_a_choice_and_can_be_chosen_again(user):
    user.panel.show("dragdiffusion", {})
    iterations = user.panel.controls["iterations"]
    assert iterations.options[0] == (OWN, OWN) and iterations.value == OWN
    iterations.set_state({"index": 3})
    assert user.changes == [("iterations", 10)] and type(user.changes[0][1]) is int
    iterations.set_state({"index": 0})
    assert user.changes[-1] == ("iterations", None)
    user.panel.show("lightningdrag", {})
    assert [value for _, value in user.panel.controls["zoom"].options] == [OWN, True, False]


def test_each_method_has_its_own_controls_and_keeps_them(user):
    user.panel.show("instantdrag", {"detail": "compose"})
    first = dict(user.panel.controls)
    assert first["detail"].value == "compose"
    user.panel.show("lightningdrag", {})
    assert "point_guidance_scale" in user.panel.controls and "detail" not in user.panel.controls
    user.panel.show("instantdrag", {})
    assert user.panel.controls == first and first["detail"].value == "none"
    assert set(first.values()) < set(user.panel.children)


def test_values_from_python_that_no_control_offers_are_shown_and_left_alone(user):
    beyond = {"num_inference_steps": 500, "image_guidance_scale": 0.25}
    user.panel.show("instantdrag", beyond)
    assert user.panel.controls["num_inference_steps"].value == 500
    assert user.panel.controls["image_guidance_scale"].value == 0.25
    user.panel.show("dragdiffusion", {"iterations": 333})
    assert user.panel.controls["iterations"].value == 333
    told = dict(user.changes)
    assert told == beyond | {"iterations": 333}, "nothing else than what is so already"


def test_settings_without_a_control_are_named(user):
    user.panel.show("instantdrag", {"text_guidance_scale": 2.0})
    shown = [child.value for child in user.panel.children if isinstance(child, ipywidgets.HTML)]
    assert shown == ["<small>Also set: text guidance scale</small>"]


def test_reset_asks_and_can_only_be_pressed_where_there_is_something(user):
    user.panel.show("instantdrag", {})
    assert user.panel.reset.disabled
    user.panel.show("instantdrag", {"rounds": 2})
    assert not user.panel.reset.disabled
    user.panel.reset.click()
    assert user.changes[-1] == "reset"


def test_settings_in_words():
    assert in_words({}) == ""
    assert in_words({"zoom": True, "detail": "copy_paste"}) == "zoom in yes, detail copy paste"
