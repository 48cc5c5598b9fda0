import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragstudy.widgets.history import History
from dragstudy.widgets.mask import (
    Fill,
    Invert,
    Loaded,
    Stroke,
    operation_from_dict,
    rasterise,
    resize_operation,
)
from dragstudy.widgets.sketch import Sketch

SIZE = 40, 24
points = st.tuples(st.floats(-0.5, 39.5), st.floats(-0.5, 23.5)).map(list)
strokes = st.fixed_dictionaries(
    {
        "op": st.just("stroke"),
        "points": st.lists(points, min_size=1, max_size=4),
        "radius": st.floats(0, 12),
        "value": st.sampled_from([0, 1]),
    }
)
operations = st.one_of(
    strokes, st.just({"op": "invert"}), st.sampled_from([{"op": "fill", "value": v} for v in (0, 1)])
)
actions = st.one_of(
    st.fixed_dictionaries({"type": st.just("add"), "handle": points, "target": points}),
    st.fixed_dictionaries(
        {
            "type": st.just("move"),
            "index": st.integers(0, 3),
            "end": st.sampled_from(["handle", "target"]),
            "to": points,
        }
    ),
    st.fixed_dictionaries({"type": st.just("remove"), "index": st.integers(0, 3)}),
    st.fixed_dictionaries({"type": st.just("mask"), "op": operations}),
    st.fixed_dictionaries({"type": st.just("clear"), "what": st.sampled_from(["drags", "mask"])}),
)


def test_an_action_makes_a_new_sketch_and_leaves_the_old_one():
    before = Sketch()
    after = before.apply({"type": "add", "handle": [1, 2], "target": [3, 4]})
    assert before == Sketch() and after.drags == (((1.0, 2.0), (3.0, 4.0)),)


@given(st.lists(actions, max_size=12))
def test_a_sketch_survives_json(sequence):
    sketch = Sketch()
    for action in sequence:
        sketch = sketch.apply(action)
    assert Sketch.from_dict(json.loads(json.dumps(sketch.to_dict()))) == sketch


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"type": "paint"},
        {"type": "add", "handle": [1, 2]},
        {"type": "add", "handle": [1, 2], "target": [3, float("nan")]},
        {"type": "move", "index": 0, "end": "middle", "to": [1, 2]},
        {"type": "mask", "op": {"op": "spray"}},
        {"type": "mask", "op": {"op": "stroke", "points": [], "radius": 3, "value": 1}},
        {"type": "mask", "op": {"op": "stroke", "points": [[1, 2]], "radius": -3, "value": 1}},
        {"type": "mask", "op": {"op": "stroke", "points": [[1, 2]], "radius": 3, "value": 2}},
        {"type": "mask", "op": {"op": "fill", "value": 7}},
        {"type": "clear", "what": "picture"},
        {"type": "replace", "sketch": {"drags": []}},
    ],
    ids=str,
)
def test_what_is_no_action_is_refused(action):
    with pytest.raises(ValueError):
        Sketch(drags=(((0.0, 0.0), (1.0, 1.0)),)).apply(action)


def test_a_disc_has_the_pixels_within_its_radius():
    mask = rasterise([Stroke(((10.0, 8.0),), 5.0)], SIZE)
    y, x = np.mgrid[:24, :40]
    assert (mask == ((x - 10) ** 2 + (y - 8) ** 2 <= 25)).all() and mask[8, 15] and not mask[8, 16]


@settings(max_examples=50)
@given(st.lists(points, min_size=2, max_size=4), st.floats(0, 30))
def test_a_stroke_is_what_a_plain_loop_over_all_pixels_paints(line, radius):
    stroke = Stroke(tuple(map(tuple, line)), radius)
    y, x = np.mgrid[:24, :40].astype(float)
    expected = np.zeros((24, 40), bool)
    for (ax, ay), (bx, by) in zip(line, line[1:], strict=False):
        dx, dy = bx - ax, by - ay
        n = dx * dx + dy * dy
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / n, 0, 1) if n else np.zeros_like(x)
        expected |= (x - (ax + t * dx)) ** 2 + (y - (ay + t * dy)) ** 2 <= radius * radius
    assert (rasterise([stroke], SIZE) == expected).all()


def test_a_stroke_far_outside_paints_nothing():
    for place in ((-90.0, 5.0), (200.0, 5.0), (5.0, -90.0), (5.0, 200.0)):
        assert not rasterise([Stroke((place,), 4.0)], SIZE).any()


def test_painting_starts_from_nothing_and_erasing_from_everything():
    dot = ((3.0, 3.0),)
    assert rasterise([Stroke(dot, 0.0, 1)], SIZE).sum() == 1
    assert (~rasterise([Stroke(dot, 0.0, 0)], SIZE)).sum() == 1
    assert not rasterise([Invert()], SIZE).any() and Sketch().raster(SIZE) is None
    assert rasterise([Fill(0), Invert()], SIZE).all()


def test_erasing_a_stroke_leaves_nothing():
    line = ((3.0, 3.0), (20.0, 9.0))
    assert not rasterise([Stroke(line, 4.0, 1), Stroke(line, 4.0, 0)], SIZE).any()


def test_a_mask_from_a_file_comes_back_and_must_fit():
    mask = np.random.default_rng(0).random((24, 40))
    loaded = Loaded.from_mask(mask)
    assert (rasterise([loaded], SIZE) == (mask >= 0.5)).all()
    with pytest.raises(ValueError, match="40, 24"):
        rasterise([loaded], (24, 24))
    with pytest.raises(ValueError, match="PNG in base64"):
        rasterise([Loaded("bm8gcG5n")], SIZE)


@settings(max_examples=30)
@given(st.lists(operations, min_size=1, max_size=4), st.sampled_from([3, 5]))
def test_a_resized_mask_is_the_mask_at_the_centres_of_the_pixels(painted, times):
    painted, large = [operation_from_dict(one) for one in painted], (SIZE[0] * times, SIZE[1] * times)
    painted = [off_the_rim(one) if isinstance(one, Stroke) else one for one in painted]
    resized = rasterise([resize_operation(one, SIZE, large) for one in painted], large)
    centres = resized[times // 2 :: times, times // 2 :: times]
    assert (centres == rasterise(painted, SIZE)).all()


def off_the_rim(stroke):
    """A stroke on whose rim, where rounding decides, no centre of a pixel lies."""
    return Stroke(tuple((round(x), round(y)) for x, y in stroke.points), round(stroke.radius) + 0.3137)


def test_the_instruction_has_the_drags_and_the_mask():
    sketch = Sketch(drags=(((1.0, 2.0), (3.0, 4.0)),), mask=(Fill(0), Stroke(((3.0, 3.0),), 2.0)))
    instruction = sketch.instruction(SIZE)
    assert instruction.handle_points.tolist() == [[1, 2]] and instruction.target_points.tolist() == [[3, 4]]
    assert (instruction.mask == sketch.raster(SIZE)).all() and instruction.image_size == SIZE
    with pytest.raises(ValueError, match="At least one drag"):
        Sketch().instruction(SIZE)


@settings(max_examples=50)
@given(st.lists(st.one_of(actions, st.sampled_from([{"type": "undo"}, {"type": "redo"}])), max_size=30))
def test_undo_and_redo_give_the_exact_states_of_a_plain_list(sequence):
    """The model: a list of all states and a place in it."""
    history, states, place = History(), [Sketch()], 0
    for action in sequence:
        before = history
        history = history.apply(action)
        if action["type"] == "undo":
            place = max(place - 1, 0)
        elif action["type"] == "redo":
            place = min(place + 1, len(states) - 1)
        else:
            after = states[place].apply(action)
            if after != states[place]:
                states = [*states[: place + 1], after]
                place += 1
        assert history.present == states[place]
        assert (list(history.past), list(history.future)[::-1]) == (states[:place], states[place + 1 :])
        assert (history is before) == (history == before), "what changes nothing gives the same history"


def test_following_another_history_undoes_and_redoes():
    one = History().apply({"type": "add", "handle": [1, 2], "target": [3, 4]})
    two = one.apply({"type": "clear", "what": "drags"}).apply({"type": "mask", "op": {"op": "invert"}})
    back = two.follow(two.past[-1])
    assert back == two.undo() and back.follow(two.present) == two
    assert two.follow(Sketch(drags=one.present.drags)).past == (*two.past, two.present)
