"""The rows of the comparison: each method as its paper, its code or these tiny networks want it set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from dragstudy.pipelines import DragPipeline, find_method
from dragstudy.pipelines.few_steps import use_lcm
from dragstudy.pipelines.weights import WEIGHTS

NOTHING = "do nothing"  # as `intervals.DO_NOTHING`, of which no edit should depend


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the table: a method, how it is called, and what it gets to see.

    Attributes:
        name: Name of the row.
        method: Key of `dragstudy.pipelines.METHODS`; empty: the photograph comes back as it is.
        options: Arguments of its call.
        mask: Whether it gets the sample's mask; only methods whose papers have one do.
        lora: Whether it trains a LoRA on the photograph first; its seconds count.
        few_steps: Folder of few-step weights in `data/weights`, or none.
        random: Whether its edits depend on the seed; others are made once.
        published_seconds: What InstantDrag's Table A1 gives for these settings, on an A6000 at 512 x 512.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mask: bool = False
    lora: bool = False
    few_steps: str = ""
    random: bool = True
    published_seconds: float | None = None

    @property
    def inputs(self) -> str:
        """What the method needs besides the photograph, in words."""
        if not self.method:
            return "nothing"
        return ", ".join(["drags", *["mask"] * self.mask, *["LoRA of the photograph"] * self.lora])


_DRAG = partial(Row, method="dragdiffusion", mask=True, random=False)
_DRAGON = partial(Row, method="dragondiffusion", mask=True)
_SDE = partial(Row, method="sdedrag")

# The presets "75s" of DragDiffusion and "10s" of DragonDiffusion are those of their codes.
_ROWS = (
    Row(NOTHING, "", random=False),
    Row("warp", "warp", random=False),
    Row("bidirectional-warp", "bidirectional-warp", mask=True, random=False),
    Row("instantdrag", "instantdrag", published_seconds=1.10),
    Row("instantdrag-compose", "instantdrag", {"detail": "compose"}),
    Row("instantdrag-splat", "instantdrag-splat"),
    Row("instantdrag-splat-compose", "instantdrag-splat", {"detail": "compose"}),
    Row("instantdrag-splat-lcm", "instantdrag-splat", few_steps="flowdiffusion-splat-lcm"),
    Row("lightningdrag", "lightningdrag", mask=True),
    Row("lightningdrag-lcm", "lightningdrag", mask=True, few_steps="lightning-lcm"),
    _DRAG("dragdiffusion", options={"preset": "tiny"}),
    _DRAG("dragdiffusion-paper", options={"preset": "paper"}, lora=True),
    _DRAG("dragdiffusion-code", options={"preset": "code"}, lora=True, published_seconds=75.3),
    _DRAG("dragdiffusion-50s", options={"preset": "50s"}, lora=True, published_seconds=52.0),
    _DRAG("dragdiffusion-20s", options={"preset": "20s"}, lora=True, published_seconds=23.0),
    _DRAG("dragdiffusion-10s", options={"preset": "10s"}, published_seconds=10.5),
    _DRAG("dragdiffusion-5s", options={"preset": "5s"}, published_seconds=6.3),
    _DRAGON("dragondiffusion", options={"preset": "tiny"}, random=False),
    _DRAGON("dragondiffusion-paper", options={"preset": "paper"}, random=False),
    _DRAGON("dragondiffusion-code", options={"preset": "code"}, published_seconds=11.0),
    _DRAGON("dragondiffusion-5s", options={"preset": "5s"}, published_seconds=4.67),
    _DRAGON("dragondiffusion-1s", options={"preset": "1s"}, published_seconds=0.98),
    _SDE("sdedrag", options={"preset": "tiny"}),
    _SDE("sdedrag-paper", options={"preset": "paper"}, lora=True),
    _SDE("sdedrag-code", options={"preset": "code"}),
    _SDE("sdedrag-50s", options={"preset": "50s"}, lora=True, published_seconds=53.0),
    _SDE("sdedrag-20s", options={"preset": "20s"}, lora=True, published_seconds=19.5),
    _SDE("sdedrag-10s", options={"preset": "10s"}, published_seconds=9.0),
    _SDE("sdedrag-5s", options={"preset": "5s"}, published_seconds=5.5),
)
ROWS: dict[str, Row] = {row.name: row for row in _ROWS}

_OWN = ("instantdrag", "instantdrag-splat", "lightningdrag", "dragdiffusion", "dragondiffusion", "sdedrag")
_PUBLISHED = ("dragdiffusion-paper", "dragdiffusion-code", "dragondiffusion-paper", "dragondiffusion-code")
GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(ROWS),
    "main": (NOTHING, "warp", "bidirectional-warp", *_OWN),
    "published": (NOTHING, *_PUBLISHED, "sdedrag-paper", "sdedrag-code"),
    "table-a1": tuple(name for name, row in ROWS.items() if row.published_seconds is not None),
}


def find_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """Rows by their names or those of `GROUPS`, each once and in the order of the table.

    Args:
        names: Keys of `ROWS` or `GROUPS`; `"do-nothing"` also stands for `"do nothing"`.

    Raises:
        ValueError: If there is no such row, or this installation lacks its method.

    Example:
        >>> [row.name for row in find_rows(["warp", "do-nothing"])]
        ['do nothing', 'warp']
    """
    wanted: set[str] = set()
    for name in names:
        name = NOTHING if name == NOTHING.replace(" ", "-") else name
        if name not in ROWS and name not in GROUPS:
            known = ", ".join([*(one.replace(" ", "-") for one in ROWS), *GROUPS])
            raise ValueError(f"a method must be one of {known}, got {name!r}")
        wanted.update(GROUPS.get(name, (name,)))
    found = tuple(row for row in _ROWS if row.name in wanted)
    for row in found:
        if row.method:
            find_method(row.method)
    return found


def describe_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """What the rows are, for the reader: method, settings, inputs, and the published seconds."""
    columns = {"method": [row.name for row in rows], "pipeline": [row.method for row in rows]}
    columns["settings"] = [_settings(row) for row in rows]
    columns["inputs"] = [row.inputs for row in rows]
    columns["published seconds"] = [row.published_seconds for row in rows]
    return pd.DataFrame(columns).astype({"published seconds": "float64"}).set_index("method")


def load_row(
    method: str, few_steps: str = "", weights: str = "tiny", device: str | None = None
) -> tuple[DragPipeline, dict[str, Any]]:
    """The pipeline of a row, ready to call, and the arguments that few-step weights ask for.

    Args:
        method: As in `Row`, not empty.
        few_steps: As in `Row`.
        weights: As in `dragstudy.load`.
        device: Such as `"cuda"`; where the weights are loaded by default.

    Raises:
        ValueError: If there are no such weights or no such device.
        AssetMissing: If the method needs an asset that was not fetched.
    """
    from dragstudy._edit import load_silently

    pipe = load_silently(method, weights, device)
    pipe.set_progress_bar_config(disable=True)
    return pipe, use_lcm(pipe, WEIGHTS / few_steps) if few_steps else {}


def _settings(row: Row) -> str:
    given = [f"{name}={value}" for name, value in row.options.items()]
    return ", ".join([*given, *["LCM"] * bool(row.few_steps)]) or "its own"
