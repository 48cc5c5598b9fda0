"""Options that a user types as NAME=VALUE, checked against what takes them."""

import re
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from beartype.door import is_bearable

Settings = TypeVar("Settings")
FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML 1.1 takes 1e-3 for text


def split_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Split each `NAME=VALUE` at its first `=`; the values stay text.

    Raises:
        ValueError: If a text has no `=`.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, got {text!r}")
        found[name.strip()] = value.strip()
    return found


def read_pairs(texts: Iterable[str]) -> dict[str, object]:
    """Split each `NAME=VALUE` and read the value as in YAML, also `1e-3` as the number that it is.

    Raises:
        ValueError: If a text has no `=`, or its value cannot be read.

    Example:
        >>> read_pairs(["steps=20", "schedule=square", "learning_rate=[1e-3, 2]"])
        {'steps': 20, 'schedule': 'square', 'learning_rate': [0.001, 2]}
    """
    found = {}
    for name, text in split_pairs(texts).items():
        try:
            found[name] = _with_numbers(yaml.safe_load(text))
        except yaml.YAMLError:
            raise ValueError(f"the value of {name} cannot be read, got {text!r}") from None
    return found


def _with_numbers(value: object) -> object:
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and FLOAT.fullmatch(value) else value


def keywords(function: Callable, *, required: bool = False) -> dict[str, Any]:
    """The types of a function's keyword-only arguments, by name; with `required` of those without default."""
    hints = get_type_hints(function)
    arguments = [one for one in signature(function).parameters.values() if one.kind is Parameter.KEYWORD_ONLY]
    wanted = [one.name for one in arguments if not required or one.default is Parameter.empty]
    return {name: hints.get(name, Any) for name in wanted}


def check_options(given: Mapping[str, object], known: Mapping[str, Any], what: str) -> dict[str, object]:
    """Return what a user typed in the types that are wanted: an int as float, a list as tuple, text as path.

    Args:
        given: Values by name.
        known: Types by name.
        what: Begins the sentence that refuses a name.

    Raises:
        ValueError: If a name is not known, or a value is of another type.

    Example:
        >>> check_options({"betas": [0.5, 0.99]}, {"betas": tuple[float, ...]}, "no")
        {'betas': (0.5, 0.99)}
    """
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{what} {name!r}, only {', '.join(known)}")
        fitting = [other for other in _readings(value) if is_bearable(other, known[name])]
        if not fitting:
            raise ValueError(f"{name} must be {_in_words(known[name])}, got {value!r}")
        checked[name] = fitting[0]
    return checked


def make_settings(cls: type[Settings], values: Mapping[str, object]) -> Settings:
    """Make a settings dataclass of values that a user typed.

    Raises:
        ValueError: If a name is unknown or a value of another type.
    """
    return cls(**check_options(values, get_type_hints(cls), "there is no setting"))


def _readings(value: object) -> list[object]:
    """What a value may stand for, the value itself first."""
    if isinstance(value, list):
        return [value, tuple(value), tuple(_readings(item)[-1] for item in value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, float(value)]
    return [value, Path(value)] if isinstance(value, str) else [value]


def _in_words(hint: Any) -> str:
    """A type hint as a sentence says it."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return hint.__name__ if isinstance(hint, type) else str(hint)
