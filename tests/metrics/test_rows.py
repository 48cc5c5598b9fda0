"""The rows of the comparison say what the presets do, and name what exists."""

import pytest

from dragstudy._edit import settable_arguments
from dragstudy.metrics.intervals import DO_NOTHING
from dragstudy.metrics.rows import GROUPS, NOTHING, ROWS, describe_rows, find_rows, load_row
from dragstudy.pipelines import METHODS, dragdiffusion_settings, dragon_settings, sdedrag_settings
from dragstudy.pipelines.weights import WEIGHTS

PRESETS = {
    "dragdiffusion": dragdiffusion_settings.PRESETS,
    "dragondiffusion": dragon_settings.PRESETS,
    "sdedrag": sdedrag_settings.PRESETS,
}
NAMED = [row for row in ROWS.values() if "preset" in row.options]


def test_rows_are_found_once_and_in_the_order_of_the_table():
    found = [row.name for row in find_rows(["sdedrag", "warp", "do-nothing", "main"])]
    assert found == list(GROUPS["main"]) and found[0] == NOTHING == DO_NOTHING
    assert [row.name for row in find_rows(["all"])] == list(ROWS)
    with pytest.raises(ValueError, match="must be one of do-nothing, warp, .*, table-a1, got 'magic'"):
        find_rows(["warp", "magic"])


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_names_what_exists(row):
    if row.method:
        assert row.method in METHODS and set(row.options) <= set(settable_arguments(row.method))
    assert not row.few_steps or (WEIGHTS / row.few_steps).is_dir()


@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name)
def test_a_row_says_whether_its_preset_trains_a_lora(row):
    settings = PRESETS[row.method][row.options["preset"]]
    settings = settings["drag"] if isinstance(settings, dict) else settings
    assert row.lora == (getattr(settings, "lora_steps", 0) > 0)
    assert ("LoRA" in row.inputs) == row.lora and ("mask" in row.inputs) == row.mask


def test_dragondiffusion_draws_noise_where_its_preset_says_so():
    for row in NAMED:
        if row.method == "dragondiffusion":
            settings = dragon_settings.PRESETS[row.options["preset"]]["drag"]
            assert row.random == (settings.sde_strength > 0 or not settings.inversion_prior)


def test_every_published_preset_has_its_row():
    for method, presets in PRESETS.items():
        covered = [PRESETS[method][row.options["preset"]] for row in NAMED if row.method == method]
        assert all(settings in covered for settings in presets.values())


def test_the_times_of_table_a1_are_all_there():
    times = sorted(row.published_seconds for row in find_rows(["table-a1"]))
    assert times == [0.98, 1.1, 4.67, 5.5, 6.3, 9.0, 10.5, 11.0, 19.5, 23.0, 52.0, 53.0, 75.3]


def test_the_description_is_one_line_a_row():
    table = describe_rows(list(ROWS.values()))
    assert list(table.index) == list(ROWS)
    assert table.loc["dragdiffusion-code", "inputs"] == "drags, mask, LoRA of the photograph"
    assert table.loc["lightningdrag-lcm", "settings"] == "LCM"


def test_few_step_weights_bring_their_steps():
    _, asked = load_row("instantdrag-splat", few_steps="flowdiffusion-splat-lcm")
    assert asked["num_inference_steps"] == 4
