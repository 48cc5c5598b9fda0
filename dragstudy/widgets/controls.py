"""The settings of a method as controls, made from the signature of its call and one table of words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import ipywidgets
import numpy as np

from dragstudy._edit import settable_arguments
from dragstudy.pipelines import (
    detail,
    dragdiffusion_settings,
    dragon_settings,
    find_method,
    sdedrag_settings,
)

OWN = "default"  # stands for a default of None, which in a Dropdown would mean that nothing is chosen

Control = ipywidgets.Widget  # one with a `value`


@dataclass(frozen=True)
class Words:
    """How a setting is shown.

    Attributes:
        label: Beside its control.
        help: One sentence about it.
        span: Of a number: least, greatest and step.
        choices: Of a text whose type does not name them, by method.
    """

    label: str
    help: str
    span: tuple[float, float, float] = (0, 1, 0.05)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_PRESETS = {
    "dragdiffusion": tuple(dragdiffusion_settings.PRESETS),
    "dragondiffusion": tuple(dragon_settings.PRESETS),
    "sdedrag": tuple(sdedrag_settings.PRESETS),
}
_DETAIL = dict.fromkeys(("instantdrag", "instantdrag-splat"), get_args(detail.Detail))

# Settings that are worth a control, in the order of these; the others can be set from Python.
TABLE = {
    "preset": Words("Preset", "A named set of the settings below.", choices=_PRESETS),
    "num_inference_steps": Words("Steps", "More take longer and give finer results.", (1, 100, 1)),
    "image_guidance_scale": Words("Image guidance", "How closely to keep to the photograph.", (1, 6, 0.1)),
    "flow_guidance_scale": Words("Flow guidance", "How strictly to follow the motion.", (1, 6, 0.1)),
    "point_guidance_scale": Words("Point guidance", "How strictly to follow the points.", (1, 8, 0.1)),
    "guidance_schedule": Words("Schedule", "How the guidance falls on the way from noise to picture."),
    "noise_prior": Words("Start from", "What the noise at the start is made of."),
    "detail": Words("Detail", "Where the photograph's own pixels come back, moved.", choices=_DETAIL),
    "zoom": Words("Zoom in", "Whether only a window around the mask and the points is edited."),
    "iterations": Words("Iterations", "Steps of dragging at most.", (0, 200, 5)),
    "lora_steps": Words("LoRA steps", "Training on the photograph first; 0 is none.", (0, 200, 10)),
    "inversion_strength": Words("Inversion", "How far towards noise the photograph is taken."),
    "strength": Words("Strength", "How far towards noise the photograph is taken."),
    "edit_weight": Words("Drag weight", "Of the energy that moves the content.", (0, 10, 0.1)),
    "content_weight": Words("Rest weight", "Of the energy that keeps what is not moved.", (0, 10, 0.1)),
    "mask_weight": Words("Mask weight", "Of what must not change.", (0, 1, 0.05)),
    "visual_attention": Words("Attention", "How the edit looks at the photograph while it is made."),
    "outside_mask": Words("Outside the mask", "What stands where the mask forbids change."),
    "rounds": Words("In parts", "Drag in so many smaller drags, one after the other.", (1, 5, 1)),
    "extra_points": Words("Extra points", "Drags to suggest at most, beside yours.", (0, 10, 1)),
    "extra_points_from": Words("Suggested by", "The flow, or the other half of a face."),
}
_WITHOUT_EFFECT = dict.fromkeys(("warp", "bidirectional-warp"), {"num_inference_steps"})


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings as a caption has them.

    Example:
        >>> in_words({"num_inference_steps": 8, "noise_prior": "copy_paste", "text_guidance_scale": 2.0})
        'steps 8, start from copy paste, text guidance scale 2'
    """
    labels = {name: words.label.replace("LoRA", "lora").lower() for name, words in TABLE.items()}
    named = ((labels.get(name, name.replace("_", " ")), value) for name, value in settings.items())
    return ", ".join(f"{label} {_value_in_words(value)}" for label, value in named)


def shown_settings(method: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of those settings of a method that get a control, in the order of the table."""
    types, parameters = settable_arguments(method), signature(find_method(method).__call__).parameters
    names = [name for name in TABLE if name in types and name not in _WITHOUT_EFFECT.get(method, ())]
    return {name: (types[name], parameters[name].default) for name in names}


def make_control(name: str, method: str) -> Control:
    """The control of one setting, at the method's default; where that is None, its value is `OWN`."""
    hint, default = shown_settings(method)[name]
    words, options = TABLE[name], [one for one in get_args(hint) if one is not NoneType]
    own = [(OWN, OWN)] if default is None else []
    kind = options[0] if own else hint
    choices = get_args(kind) if get_origin(kind) is Literal else words.choices.get(method)
    common = {"description": words.label, "tooltip": words.help}
    if choices:
        labelled = own + [(str(choice).replace("_", " "), choice) for choice in choices]
        return ipywidgets.Dropdown(options=labelled, value=_given(default), **common)
    if kind is bool:
        if own:
            return ipywidgets.Dropdown(options=[*own, ("yes", True), ("no", False)], value=OWN, **common)
        return ipywidgets.Checkbox(value=default, indent=False, **common)
    return _slider(kind, default, words.span, common)


class SettingsPanel(ipywidgets.VBox):
    """The controls of one method at a time; those of a method it goes back to stand where they stood.

    Args:
        on_change: Called with name and value of a setting that the user changed; None means that it has its
            default again.
        on_reset: Called when all settings shall have their defaults again.
    """

    def __init__(self, on_change: Callable[[str, Any], None], on_reset: Callable[[], None]):
        self._on_change = on_change
        self._controls: dict[str, dict[str, Control]] = {}
        self.method: str | None = None
        self._others = ipywidgets.HTML()
        self.reset = ipywidgets.Button(
            description="Reset to defaults", icon="undo", tooltip="All settings of this method"
        )
        self.reset.on_click(lambda _: on_reset())
        super().__init__()
        self.add_class("dragstudy-settings")

    @property
    def controls(self) -> dict[str, Control]:
        """The controls of the present method, by the names of their settings."""
        return self._controls[self.method]

    def show(self, method: str, settings: Mapping[str, Any]) -> None:
        """Show the controls of a method, with these settings and its defaults for the rest."""
        self.method = method
        if method not in self._controls:
            self._controls[method] = {name: self._control(name, method) for name in shown_settings(method)}
        for name, (_, default) in shown_settings(method).items():
            value = _given(settings.get(name, default))
            if self.controls[name].value != value:
                _move(self.controls[name], value)
        others = ", ".join(name.replace("_", " ") for name in settings if name not in self.controls)
        self._others.value = f"<small>Also set: {others}</small>" if others else ""
        self.reset.disabled = not settings
        children = (*self.controls.values(), self._others, self.reset)
        if children != self.children:
            self.children = children

    def _control(self, name: str, method: str) -> Control:
        control, default = make_control(name, method), shown_settings(method)[name][1]

        def changed(change: Mapping[str, Any]) -> None:
            value = change["new"]
            self._on_change(name, None if value in (OWN, default) else value)

        control.observe(changed, names=["value"])
        return control


def _slider(kind: type, default: Any, span: tuple[float, float, float], common: dict[str, Any]) -> Control:
    low, high, step = span
    common["continuous_update"] = False
    if default is None:  # a slider of choices, so that the first one can be none of the numbers
        numbers = [kind(round(number, 6)) for number in np.arange(low, high + step / 2, step).tolist()]
        options = [(OWN, OWN), *((f"{number:g}", number) for number in numbers)]
        return ipywidgets.SelectionSlider(options=options, value=OWN, **common)
    if kind is int:
        return ipywidgets.IntSlider(default, min=low, max=high, step=step, **common)
    return ipywidgets.FloatSlider(default, min=low, max=high, step=step, readout_format=".1f", **common)


def _move(control: Control, value: Any) -> None:
    """Set a control's value, which may have come from Python and lie beyond what the control offers."""
    if hasattr(control, "options"):
        if value not in [choice for _, choice in control.options]:
            control.options = (*control.options, (_value_in_words(value), value))
    elif hasattr(control, "max"):
        control.min, control.max = min(control.min, value), max(control.max, value)
    control.value = value


def _given(value: Any) -> Any:
    return OWN if value is None else value


def _value_in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace("_", " ")
