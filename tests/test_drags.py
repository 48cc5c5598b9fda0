"""Drag instructions: checks, JSON both ways, resizing with the image."""

import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dragstudy.drags import DragInstruction, parse_drag, resize_points

HANDLES, TARGETS = [[10.0, 20.0], [5.5, 7.0], [0.0, 0.0]], [[13.0, 16.0], [5.5, 7.0], [63.0, 31.0]]


def soft_mask(width: int = 64, height: int = 32) -> np.ndarray:
    return np.linspace(0, 1, width * height).reshape(height, width)


def make_drags(**changes) -> DragInstruction:
    return DragInstruction(**{"handle_points": HANDLES, "target_points": TARGETS, **changes})


def test_displacements_and_anchors():
    drags = make_drags()
    assert drags.displacements.tolist() == [[3, -4], [0, 0], [63, 31]]
    assert drags.anchors.tolist() == [False, True, False]
    assert drags.handle_points.dtype == np.float64
    assert drags.image_size is None


@pytest.mark.parametrize("convert", [list, tuple, np.array, lambda x: np.array(x, dtype=int), torch.tensor])
def test_points_of_any_kind_are_taken_and_copied(convert):
    given = convert([[*point] for point in HANDLES])
    drags = make_drags(handle_points=given)
    given[0][0] = 1
    assert drags.handle_points[0, 0] == 10


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(4, 6, dtype=bool),
        np.eye(4, 6, dtype=np.uint8) * 255,
        np.eye(4, 6, dtype=np.uint8),
        np.eye(4, 6),
        torch.eye(4, 6),
        Image.fromarray(np.eye(4, 6, dtype=np.uint8) * 255),
    ],
)
def test_masks_of_any_kind_are_taken(mask):
    drags = DragInstruction([[1, 1]], [[2, 2]], mask)
    assert drags.mask.dtype == np.float32
    assert drags.image_size == (6, 4)  # the mask knows the size
    np.testing.assert_array_equal(drags.mask, np.eye(4, 6, dtype=np.float32))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_size": (64, 32)},
        {"mask": soft_mask()},
        {"mask": soft_mask() > 0.5, "image_size": (64, 32)},
        {"handle_points": [[1 / 3, 0.1], [2.0, 3.0], [0.0, 0.0]]},
    ],
)
@pytest.mark.parametrize("through", ["string", "path", "name"])
def test_json_round_trip(changes, through, tmp_path):
    drags, path = make_drags(**changes), tmp_path / "drags.json"
    text = drags.to_json(None if through == "string" else path)
    assert DragInstruction.from_json({"string": text, "path": path, "name": str(path)}[through]) == drags
    assert list(json.loads(text)) == ["handle_points", "target_points", "mask", "image_size"]


def test_the_mask_in_json_is_a_png():
    mask = json.loads(make_drags(mask=soft_mask() > 0.5).to_json())["mask"]
    assert base64.b64decode(mask).startswith(b"\x89PNG")


def test_equality_looks_at_everything():
    drags = make_drags(mask=soft_mask())
    assert drags == make_drags(mask=soft_mask())
    assert drags != make_drags()
    assert drags != make_drags(mask=soft_mask().round())
    assert drags != make_drags(mask=soft_mask(), target_points=HANDLES)
    assert make_drags() != make_drags(image_size=(64, 32))
    assert drags != "drags"


@pytest.mark.parametrize("size", [(128, 64), (32, 32), (1, 1), (640, 33)])
def test_points_resized_and_back_are_the_same(size):
    points = np.random.default_rng(0).uniform(-0.5, 31.5, (20, 2))
    there = resize_points(points, (64, 32), size)
    np.testing.assert_allclose(resize_points(there, size, (64, 32)), points, atol=1e-12)
    edges = np.array([[-0.5, -0.5], [63.5, 31.5]])
    np.testing.assert_allclose(resize_points(edges, (64, 32), size), [[-0.5, -0.5], np.array(size) - 0.5])


@pytest.mark.parametrize("width", [15, 25, 29, 41, 1023])
@pytest.mark.parametrize("size", [64, 448, 1000])
def test_a_point_on_the_rim_is_on_the_rim_of_any_other_size(width, size):
    """Rounding must not carry it over: 25 * (448 / 25) is more than 448."""
    drags = DragInstruction([[width - 0.5, -0.5]], [[0, 0]], image_size=(width, width))
    assert drags.resize((size, size)).handle_points.tolist() == [[size - 0.5, -0.5]]


@pytest.mark.parametrize("size", [(128, 64), (32, 16), (48, 48)])
def test_drags_follow_the_image(size):
    drags = make_drags(mask=soft_mask() > 0.5)
    resized = drags.resize(size)
    scale = np.array(size) / (64, 32)
    np.testing.assert_allclose(resized.displacements, drags.displacements * scale, atol=1e-12)
    assert resized.anchors.tolist() == drags.anchors.tolist()
    assert resized.image_size == size
    assert resized.mask.shape == size[::-1]
    assert resized.mask.mean() == pytest.approx(drags.mask.mean(), abs=0.01)
    np.testing.assert_allclose(resized.resize((64, 32)).handle_points, drags.handle_points, atol=1e-12)


def test_parse_drag_reads_numbers_with_spaces_and_signs():
    assert parse_drag("-0.5, 1e1:140,90") == ((-0.5, 10.0), (140.0, 90.0))


@pytest.mark.parametrize("text", ["", "1,2", "1,2:3", "1,2:3,4:5,6", "a,b:c,d", "1;2:3;4", "1,2,3:4,5"])
def test_parse_drag_refuses_the_rest(text):
    with pytest.raises(ValueError, match=r"^A drag must look like 120,90:140,90 .*, got '.*'\.$"):
        parse_drag(text)


ERRORS = [
    ({"handle_points": []}, "At least one drag is needed, got no handle_points."),
    ({"target_points": np.zeros((0, 2))}, "At least one drag is needed, got no target_points."),
    (
        {"target_points": TARGETS[:2]},
        "Every handle point needs one target point, got 3 handle_points and 2 target_points.",
    ),
    ({"handle_points": [1, 2]}, "handle_points must be n points (x, y) of shape (n, 2), got shape (2,)."),
    (
        {"handle_points": [[1, 2, 3]]},
        "handle_points must be n points (x, y) of shape (n, 2), got shape (1, 3).",
    ),
    (
        {"handle_points": [["a", "b"]]},
        "handle_points must be n points of two numbers (x, y), got [['a', 'b']].",
    ),
    (
        {"handle_points": [[1, 2], [3]]},
        "handle_points must be n points of two numbers (x, y), got [[1, 2], [3]].",
    ),
    ({"target_points": [[1, 2], [np.nan, 3]]}, "target_points must be finite numbers, got (nan, 3.0)."),
    ({"target_points": [[1, np.inf]]}, "target_points must be finite numbers, got (1.0, inf)."),
    (
        {"image_size": (60, 32)},
        "target_points must lie inside the 60x32 image, "
        "x in [-0.5, 59.5] and y in [-0.5, 31.5], got (63.0, 31.0).",
    ),
    (
        {"handle_points": [[-0.6, 0]], "image_size": (64, 32)},
        "handle_points must lie inside the 64x32 image, "
        "x in [-0.5, 63.5] and y in [-0.5, 31.5], got (-0.6, 0.0).",
    ),
    (
        {"mask": soft_mask(), "image_size": (64, 33)},
        "The mask must have the image's size 64x33, got 64x32.",
    ),
    ({"mask": np.zeros((3, 4, 1))}, "The mask must have the shape (height, width), got shape (3, 4, 1)."),
    ({"mask": np.zeros((0, 4))}, "The mask must have the shape (height, width), got shape (0, 4)."),
    (
        {"mask": soft_mask() * 2},
        "The mask must lie in [0, 1], 1 where the image may change, got values from 0 to 2.",
    ),
    (
        {"mask": np.full((32, 64), np.nan)},
        "The mask must lie in [0, 1], 1 where the image may change, got values from nan to nan.",
    ),
    ({"mask": [["a"]]}, "The mask must be an array of numbers, got list."),
    (
        {"image_size": (0, 5)},
        "The size of an image must be two positive whole numbers (width, height), got (0, 5).",
    ),
    (
        {"image_size": (10.5, 5)},
        "The size of an image must be two positive whole numbers (width, height), got (10.5, 5).",
    ),
    ({"image_size": 7}, "The size of an image must be two positive whole numbers (width, height), got 7."),
]


@pytest.mark.parametrize(("changes", "sentence"), ERRORS)
def test_every_error_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError) as error:
        make_drags(**changes)
    assert str(error.value) == sentence


def test_drags_without_a_size_cannot_be_resized():
    with pytest.raises(
        ValueError, match=r"^Drags can be resized only when their image_size is known, got None\.$"
    ):
        make_drags().resize((4, 4))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"^Drags must be valid JSON, got an error: .*\.$"),
        ('{"handle_points": [[1, 2]]}', r"^Drags in JSON must be an object .*, got \['handle_points'\]\.$"),
        (
            '{"handle_points": [], "target_points": [], "points": []}',
            r"^Drags in JSON .* got \['handle_points', 'points', 'target_points'\]\.$",
        ),
        (
            '{"handle_points": [[1, 2]], "target_points": [[1, 2]], "mask": "no"}',
            r"^The mask in JSON must be a PNG in base64, got an error: .*\.$",
        ),
        (
            '{"handle_points": [[1, 2]], "target_points": [[1, NaN]]}',
            r"^target_points must be finite numbers, got \(1\.0, nan\)\.$",
        ),
        ("/nowhere/drags.json", r"^The drags of '/nowhere/drags.json' cannot be read: .*\.$"),
    ],
)
def test_broken_json_is_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        DragInstruction.from_json(text)


def test_a_list_in_a_json_file_is_refused(tmp_path):
    (tmp_path / "drags.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"^Drags in JSON must be an object .*, got list\.$"):
        DragInstruction.from_json(tmp_path / "drags.json")


def test_golden_number():
    resized = make_drags(mask=soft_mask()).resize((100, 77))
    assert f"{resized.target_points.sum():.3f} {resized.mask.sum():.0f}" == "260.234 3850"
