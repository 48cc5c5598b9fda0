"""Options that a user types as NAME=VALUE, checked against what takes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter, signature
from typing import TypeVar, get_type_hints

import yaml
from beartype.door import is_bearable

Settings = TypeVar("Settings")


def read_pairs(texts: Iterable[str]) -> dict[str, object]:
    """Split each `NAME=VALUE` and read the value as in YAML.

    Raises:
        ValueError: If a text has no `=`.

    Example:
        >>> read_pairs(["steps=20", "schedule=square"])
        {'steps': 20, 'schedule': 'square'}
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, got {text!r}")
        found[name.strip()] = yaml.safe_load(value)
    return found


def check_names(given: Mapping[str, object], known: Sequence[str], what: str) -> None:
    """Refuse a name that is not known, in a sentence that lists those that are.

    Raises:
        ValueError: If `given` has such a name.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"{what} {name!r}, only {', '.join(known)}")


def check_arguments(given: Mapping[str, object], function: Callable, more: Sequence[str], what: str) -> None:
    """Refuse a name that is neither an argument of a function nor one of `more`.

    Raises:
        ValueError: If `given` has such a name and the function does not take any.
    """
    arguments = signature(function).parameters.values()
    if all(argument.kind is not Parameter.VAR_KEYWORD for argument in arguments):
        check_names(given, [*(a.name for a in arguments if a.name != "self"), *more], what)


def make_settings(cls: type[Settings], values: Mapping[str, object]) -> Settings:
    """Make a settings dataclass of values that a user typed.

    Raises:
        ValueError: If a name is unknown or a value of another type.
    """
    check_names(values, [field.name for field in fields(cls)], "there is no setting")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not is_bearable(value, hints[name]):
            raise ValueError(f"{name} must be {cls.__annotations__[name]}, got {value!r}")
    return cls(**values)
