"""What fine-tuning on one clip changes: flows and edits of its later pairs, before and after."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dragstudy.drags import DragInstruction
from dragstudy.images import load_image, to_tensor
from dragstudy.interpolation import interpolate_drags
from dragstudy.metrics.claims import Claim, interval_text, judge
from dragstudy.metrics.conclusions import LEAST
from dragstudy.metrics.distance import end_point_error
from dragstudy.metrics.evaluate import DO_NOTHING, Drags, Item, evaluate_edits
from dragstudy.metrics.intervals import summarize
from dragstudy.metrics.perceptual import lpips_model
from dragstudy.models.autoencoder import decode, encode
from dragstudy.pipelines import InstantDragPipeline, load
from dragstudy.sparse import drags_from_sparse, sample_drags
from dragstudy.training.finetune import split_by_time

BEFORE, AFTER = "base", "fine-tuned"
FLOW_METRICS = {"object": False, "rest": False, "frame": False}  # whether more is better
EDIT_METRICS = {"psnr": True, "lpips": False}
DETAILS = ("oracle", "drags", "compose")  # kinds of edits
VERDICTS = {"holds": "better", "contradicted": "worse", "undecided": "undecided"}
LOGGED = {"flowgen": ("distance", "val_epe"), "unet": ("unet_loss", "val_loss")}

Pipes = Mapping[str, InstantDragPipeline]
Requests = Mapping[str, DragInstruction]


def some_of(count: int, wanted: int, *, seed: int = 0) -> list[int]:
    """Numbers below `count`, drawn at random; of fewer wanted ones all are among those of more.

    Example:
        >>> set(some_of(60, 5)) < set(some_of(60, 20))
        True
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:wanted].tolist())


def scattered_drags(item: Item, count: int, *, seed: int = 0) -> DragInstruction:
    """A few points of what moves and stays in the frame, spread over it, and where the clip takes them.

    Raises:
        ValueError: If there are none.
    """
    h, w = item["flow"].shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x, y = item["flow"] + torch.stack([x, y])
    stays = ((x > -0.5) & (x < w - 0.5) & (y > -0.5) & (y < h - 0.5))[None]
    known, draw = item["mask"] * item["valid"] * stays, torch.Generator().manual_seed(seed)
    return drags_from_sparse(sample_drags(item["flow"], known, "config3", generator=draw, k=count))


@dataclass(frozen=True, eq=False)
class ClipStudy:
    """One clip's later pairs, measured before and after fine-tuning on what is before them.

    Attributes:
        pairs: How many pairs were trained on.
        later: How many later pairs there are.
        items: Those that were measured.
        requests: By key, what was dragged.
        flows: Rows of `measure_flows`, with a column `clip`.
        edits: Rows of `measure_edits`, the same.
        predicted: Flows by method and key.
        pictures: Edits by method and key.
    """

    pairs: int
    later: int
    items: list[Item]
    requests: dict[str, DragInstruction]
    flows: pd.DataFrame
    edits: pd.DataFrame
    predicted: dict[tuple[str, str], Tensor]
    pictures: dict[tuple[str, str], Tensor]


def study_clip(
    clip: str,
    out: Path | str,
    held_out: float,
    num_pairs: int,
    num_drags: int,
    *,
    method: str = "instantdrag-splat",
    weights: str | Path = "tiny",
    seed: int = 0,
    **options: Any,
) -> ClipStudy:
    """Measure what `finetune` made of a clip.

    Args:
        clip: Name for the rows.
        out: Where `finetune` wrote.
        held_out: Share of the clip that it held out.
        num_pairs: Later pairs to measure, at most; fewer of them are a part of more.
        num_drags: Drags on each.
        method: What was fine-tuned.
        weights: What it started from.
        seed: Decides which pairs and points are taken, and every edit.
        options: Further arguments of the pipelines' call.

    Raises:
        ValueError: If nothing was held out.
    """
    pipes = {name: load(method, weights) for name in (BEFORE, AFTER)}
    pipes[AFTER].load_finetuned(out)
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    folder = Path(out) / f"pairs-{round(pipes[BEFORE].config.working_area ** 0.5)}"
    pairs, later = split_by_time(folder, held_out)
    if later is None:
        raise ValueError("nothing was held out to measure on: held_out must be more than 0")
    items = [later[k] for k in some_of(len(later), num_pairs, seed=seed)]
    requests = {item["key"]: scattered_drags(item, num_drags, seed=seed) for item in items}
    flows, predicted = measure_flows(pipes, items, requests)
    edits, pictures = measure_edits(pipes, items, requests, seed=seed, **options)
    rows = [frame.assign(clip=clip) for frame in (flows, edits)]
    return ClipStudy(len(pairs), len(later), items, requests, *rows, predicted, pictures)


@torch.no_grad()
def measure_flows(
    pipes: Pipes, items: Sequence[Item], requests: Requests
) -> tuple[pd.DataFrame, dict[tuple[str, str], Tensor]]:
    """How far predicted flows are from the clip's own, which is zero where nothing moves.

    Args:
        pipes: By `BEFORE` and `AFTER`.
        items: Pairs.
        requests: By key of the pair, what is dragged.

    Returns:
        A frame of one row a method and pair: `method`, `key`, and the mean end-point error in px on the
        `object`, on the `rest` and in the whole `frame`; and the flows `(1, 2, h, w)` by method and key.
    """
    rows, flows = [], {}
    for item in items:
        key, mask, size = item["key"], item["mask"][None], item["flow"].shape[-2:]
        truth, request = item["flow"][None] * mask, requests[item["key"]]
        answers = {"zero flow": torch.zeros_like(truth), "thin plate": interpolate_drags(request, size)}
        for name, pipe in pipes.items():
            area = pipe.config.working_area
            asked, _ = pipe.check_inputs(item["source"], *_points(requests, item), None, area)
            answers[f"FlowGen, {name}"] = asked[0].fit.flow_back(pipe.predict_flow(asked))
        for name, flow in answers.items():
            flow = flow.float().cpu()
            places = {"object": mask, "rest": 1 - mask, "frame": None}
            errors = {where: end_point_error(flow, truth, place).item() for where, place in places.items()}
            rows.append({"method": name, "key": key} | errors)
            flows[name, key] = flow
    return pd.DataFrame(rows), flows


@torch.no_grad()
def measure_edits(
    pipes: Pipes, items: Sequence[Item], requests: Requests, *, seed: int = 0, **options: Any
) -> tuple[pd.DataFrame, dict[tuple[str, str], Tensor]]:
    """Edit the pairs' sources, and compare with their targets.

    Args:
        pipes: By `BEFORE` and `AFTER`.
        items: Pairs.
        requests: By key of the pair, what is dragged.
        seed: Of every edit.
        options: Further arguments of the pipelines' call.

    Returns:
        What `evaluate_edits` gives, of doing nothing, of the source as the autoencoder copies it, and of the
        edits `edit_name(...)`; and the pictures `(1, 3, h, w)` in [0, 1] by method and key.
    """
    pictures: dict[tuple[str, str], Tensor] = {}
    edits = {"autoencoder": _copy(next(iter(pipes.values())))}
    for detail in DETAILS:
        for name, pipe in pipes.items():
            edits[edit_name(name, detail)] = _edit(pipe, detail, options)
    shared = {"lpips": lpips_model("alex"), "seed": seed, "drags": lambda item: _points(requests, item)}
    frames = [
        evaluate_edits(_keeping(edit, name, pictures), items, method=name, do_nothing=not number, **shared)
        for number, (name, edit) in enumerate(edits.items())
    ]
    found = pd.concat(frames, ignore_index=True).drop(columns="landmark_distance")
    order = [DO_NOTHING, *edits]
    ordered = {"key": lambda names: names.map(order.index), "kind": "stable", "ignore_index": True}
    return found.sort_values("method", **ordered), pictures


def edit_name(pipe: str, detail: str) -> str:
    """Name of a kind of edits: `"oracle"` edits get the clip's own flow, `"compose"` keep seen pixels."""
    return pipe if detail == "drags" else f"{pipe}, {detail}"


def before_after(
    frame: pd.DataFrame,
    metrics: Mapping[str, bool],
    before: str = BEFORE,
    after: str = AFTER,
    *,
    references: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold what one method reached against what another did on the same pairs, clip by clip.

    Args:
        frame: Rows as measured here, with a column `clip`.
        metrics: Columns, and whether more of each is better.
        before: Name of the method to start from.
        after: Name of the method that is to be better.
        references: By the name of a further column, a method whose mean stands in it.
        seed: Of the resamples.

    Returns:
        A frame of one row a clip and metric: `clip`, `measure`, `n`, the references, the means with their
        intervals `before` and `after`, their paired difference as `mean`, `low` and `high`, and the
        `verdict`: `"better"`, `"worse"`, or `"undecided"` where the interval of the difference holds zero
        or there are fewer than `conclusions.LEAST` pairs.
    """
    shown = dict(references or {}) | {"before": before, "after": after}
    tables = []
    for clip in frame["clip"].unique():
        rows = frame[frame["clip"] == clip]
        claims = [Claim(f"{clip}: {name}", after, before, name, more) for name, more in metrics.items()]
        table = judge(rows, claims, seed=seed).assign(clip=clip, measure=list(metrics))
        means = summarize(rows, metrics=list(metrics), seed=seed).itertuples()
        texts = {(row.method, row.metric): interval_text(row) for row in means}
        for column, name in shown.items():
            table[column] = [texts[name, metric] for metric in metrics]
        few = table["n"] < LEAST
        tables.append(table.assign(verdict=table["verdict"].map(VERDICTS).mask(few, "undecided")))
    columns = ["clip", "measure", "n", *shown, "mean", "low", "high", "verdict"]
    return pd.concat(tables, ignore_index=True)[columns]


def in_sentences(table: pd.DataFrame, names: Mapping[str, str]) -> str:
    """One sentence for each metric in a table of `before_after`, called by its name, with the numbers."""
    sentences = []
    for metric, rows in table.groupby("measure", sort=False):
        parts = [f"{row.clip} {row.verdict} ({interval_text(row)}, n = {row.n})" for row in rows.itertuples()]
        sentences.append(f"{names[metric]}: {', '.join(parts)}.")
    return "\n".join(sentences)


def training_rows(out: Path | str, clip: str) -> pd.DataFrame:
    """What the two trainings of `finetune` logged.

    Args:
        out: Where it wrote.
        clip: Name for the rows.

    Returns:
        One row a logged step: `clip`, `network` (`"flowgen"`, `"unet"`), `step`, `images` seen, `seconds`,
        the `loss` on the pairs that are trained on, and what was measured on `later` ones, NaN where nothing
        was.
    """
    rows = []
    for network, (loss, later) in LOGGED.items():
        for text in (Path(out) / f"{network}-training" / "metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            known = {name: line[name] for name in ("step", "images", "seconds")}
            known |= {"loss": line[loss], "later": line.get(later, float("nan"))}
            rows.append({"clip": clip, "network": network} | known)
    return pd.DataFrame(rows)


def _copy(pipe: InstantDragPipeline) -> Callable:
    def copied(item: Item, *_: Any) -> Tensor:
        latents = encode(pipe.autoencoder, 2 * item["source"][None] - 1)
        return (decode(pipe.autoencoder, latents) / 2 + 0.5).clamp(0, 1)[0]

    return copied


def _edit(pipe: InstantDragPipeline, detail: str, options: Mapping[str, Any]) -> Callable:
    def edited(item: Item, handles: Any, targets: Any, generator: torch.Generator) -> Any:
        given = dict(options)
        if detail == "oracle":
            given["flow"] = (item["flow"] * item["mask"])[None]
        elif detail == "compose":
            given["detail"] = "compose"
        return pipe(item["source"], handles, targets, generator=generator, **given).images[0]

    return edited


def _keeping(edit: Callable, name: str, pictures: dict[tuple[str, str], Tensor]) -> Callable:
    """The same edit, whose pictures are kept."""

    def kept(item: Item, *asked: Any) -> Tensor:
        pictures[name, item["key"]] = to_tensor(load_image(edit(item, *asked)))
        return pictures[name, item["key"]][0]

    return kept


def _points(requests: Requests, item: Item) -> Drags:
    return requests[item["key"]].handle_points, requests[item["key"]].target_points
