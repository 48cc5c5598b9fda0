"""What a user types as NAME=VALUE: read, named and typed as what takes it wants."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from dragstudy._options import check_options, keywords, make_settings, read_pairs, split_pairs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3), ("a=0.5", 0.5), ("a=1e-3", 0.001), ("a=4E+2", 400.0), ("a=2.5e1", 25.0), ("a=1e", "1e"),
        ("a=[0.5, 1]", [0.5, 1]), ("a=true", True), ("a=null", None), ("a=splat", "splat"), ("a=x=y", "x=y"),
    ],
)  # fmt: skip
def test_values_are_read(text, value):
    read = read_pairs([text])["a"]
    assert read == value and type(read) is type(value)


def test_text_stays_text_where_names_are_wanted():
    assert split_pairs(["clip=0012", "b = no", "c=a=b"]) == {"clip": "0012", "b": "no", "c": "a=b"}


def arguments(image, mask=None, *, steps: int, scale: float = 1.0, folder: Path | None = None, free=0):
    """Something that takes options."""


def test_keyword_only_arguments_are_found_with_their_types():
    assert keywords(arguments).keys() == {"steps", "scale", "folder", "free"}
    assert keywords(arguments)["scale"] is float
    assert keywords(arguments, required=True) == {"steps": int}


def test_values_take_the_type_that_is_wanted():
    given = {"scale": 2, "folder": "runs/a", "steps": 3, "free": [1]}
    checked = check_options(given, keywords(arguments), "there is no")
    assert checked == {"scale": 2.0, "folder": Path("runs/a"), "steps": 3, "free": [1]}
    assert type(checked["scale"]) is float and type(checked["steps"]) is int


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"speed": 1}, "there is no 'speed', only steps, scale, folder, free"),
        ({"steps": 2.5}, "steps must be int, got 2.5"),
        ({"scale": "far"}, "scale must be float, got 'far'"),
        ({"folder": 3}, "folder must be pathlib.Path | None, got 3"),
    ],
)
def test_the_rest_is_refused(given, sentence):
    with pytest.raises(ValueError) as error:
        check_options(given, keywords(arguments), "there is no")
    assert str(error.value) == sentence


def test_settings_are_made_of_checked_values():
    @dataclass(frozen=True)
    class Settings:
        rate: float
        pair: tuple[float, float] = (0.0, 0.0)

    assert make_settings(Settings, {"rate": 1, "pair": [1, 0.5]}) == Settings(1.0, (1.0, 0.5))
    with pytest.raises(ValueError, match=r"pair must be tuple\[float, float\], got \[1\]"):
        make_settings(Settings, {"rate": 1, "pair": [1]})
