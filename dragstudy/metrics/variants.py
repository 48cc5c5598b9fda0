"""Variants of one method on the same pairs: what an ablation measures, and the pictures that it made."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dragstudy.images import load_image, to_tensor
from dragstudy.metrics.evaluate import Drags, Item, landmark_drags, measure_edit
from dragstudy.metrics.fidelity import image_fidelity, saturation_change
from dragstudy.metrics.intervals import DO_NOTHING, METRICS, interval_table, shares, summarize
from dragstudy.pipelines import DragPipeline
from dragstudy.progress import progress

VARIANT_METRICS = (*METRICS, "fidelity", "saturation", "spread")
LABELS = {
    "landmark_distance": "landmark distance,\nshare of do-nothing's",
    "lpips": "LPIPS to the target",
    "fidelity": "image fidelity\n(1 - LPIPS to the source)",
    "saturation": "saturation minus\nthe source's, grey levels",
    "spread": "spread over seeds,\ngrey levels",
}
_DIGITS = {"lpips": 3, "fidelity": 3, "saturation": 2, "spread": 2, "seconds": 2, "landmark_distance": 3}
Pictures = dict[tuple[str, str], Tensor]


@torch.no_grad()
def evaluate_variants(
    pipe: DragPipeline,
    items: Iterable[Item],
    variants: Mapping[str, Mapping[str, Any]],
    *,
    mask: Callable[[Item], np.ndarray],
    drags: Callable[[Item], Drags | None] = landmark_drags,
    detector: Callable[[np.ndarray], np.ndarray | None] | None = None,
    lpips: nn.Module | None = None,
    seeds: Sequence[int] = (0,),
    do_nothing: bool = True,
    **options: Any,
) -> tuple[pd.DataFrame, Pictures]:
    """Edit the source of every pair with every variant, from the same noise.

    Args:
        pipe: A drag pipeline.
        items: Items of a `PairDataset`.
        variants: By name, arguments of the pipeline's call beside `options`.
        mask: From an item to what may change, `(h, w)`.
        drags: From an item to its drags; pairs for which it gives None are left out.
        detector: Face landmarks of a frame, see `landmark_distance`; without one that column is NaN.
        lpips: What `lpips_model` gives; AlexNet by default.
        seeds: Every pair is edited once from each.
        do_nothing: Add a row for each pair's source itself, as method `"do nothing"`.
        options: Further arguments of the pipeline's call, the same for all variants.

    Returns:
        A frame of one row a pair, variant and seed: `method` (the variant), `key`, `seed`; what
        `measure_edit` gives; `fidelity`, the `image_fidelity` to the source; `saturation`, the
        `saturation_change` to the source inside the mask; `spread`, the `seed_spread` inside the mask, NaN
        with one seed; and `seconds`. And the edited pictures by variant and pair, `(seeds, 3, h, w)`, uint8.
    """
    rows, pictures = [], {}
    for item in progress(items, description="variants"):
        points = drags(item)
        if points is None:
            continue
        source, key, editable = item["source"][None], item["key"], mask(item)
        region = torch.from_numpy(np.asarray(editable, dtype=np.float32))[None, None]
        made, seconds = {}, {}
        for name, given in variants.items():
            call = {**options, **given, "mask": editable}
            made[name], seconds[name] = _edits(pipe, item["source"], points, seeds, call)
            pictures[name, key] = (made[name] * 255).round().byte()
        if do_nothing:
            made[DO_NOTHING], seconds[DO_NOTHING] = source, [0.0]
        for name, images in made.items():
            spread = seed_spread(images, region) if len(images) > 1 else float("nan")
            for seed, image, took in zip(seeds, images.split(1), seconds[name], strict=False):
                known = {"method": name, "key": key, "seed": seed, "seconds": took, "spread": spread}
                known["fidelity"] = image_fidelity(image, source, model=lpips).item()
                known["saturation"] = saturation_change(image, source, region).item()
                rows.append(known | measure_edit(image, item, detector, lpips))
    return pd.DataFrame(rows, columns=["method", "key", "seed", *VARIANT_METRICS]), pictures


def seed_spread(images: Tensor, mask: Tensor) -> float:
    """How much pictures of one request differ: the mean standard deviation of a pixel inside the mask.

    Args:
        images: One picture a seed, `(n, 3, h, w)` in [0, 1], n at least 2.
        mask: Where to look, `(1, 1, h, w)`; pixels above 0.5 count.

    Returns:
        In grey levels of 0..255; NaN where the mask is empty.

    Example:
        >>> images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2 / 255)])
        >>> round(seed_spread(images, torch.ones(1, 1, 4, 4)), 3)  # with n - 1 below
        1.414
    """
    inside = (mask[0, 0] > 0.5).expand(3, -1, -1)
    return 255 * images.std(dim=0)[inside].mean().item()


def variant_panels(
    frame: pd.DataFrame, metrics: Sequence[str] = ("lpips", "fidelity", "saturation"), *, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """What `plotting_measures.interval_dots` shows of variants: means with intervals by the label of a panel.

    The first panel is the landmark distance as a share of do-nothing's on the same pairs.

    Args:
        frame: What `evaluate_variants` gave, with the rows of do-nothing.
        metrics: Columns of the other panels.
        seed: Of the resamples.
    """
    panels = {LABELS["landmark_distance"]: shares(frame, seed=seed).set_index("method")}
    edits = frame[frame["method"] != DO_NOTHING]
    for name in metrics:
        panels[LABELS[name]] = summarize(edits, metrics=(name,), seed=seed).set_index("method")
    return panels


def variant_table(
    frame: pd.DataFrame,
    metrics: Sequence[str] = ("lpips", "fidelity", "saturation", "seconds"),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """The numbers of `variant_panels` as text, `mean [low, high]`, and how many faces were found."""
    table = pd.concat([shares(frame, seed=seed), summarize(frame, metrics=metrics, seed=seed)])
    text = interval_table(table, _DIGITS).rename(columns={"landmark_distance": "landmark share"})
    text["faces found"] = frame.groupby("method")["landmark_distance"].count()
    return text.fillna("").replace("nan [nan, nan]", "")


def typical_pairs(frame: pd.DataFrame, method: str, metric: str) -> dict[str, str]:
    """Keys of the pairs where a method has the least, the median and the most of a metric.

    Args:
        frame: One row a pair and method; pairs without the metric do not count.
        method: Name of the method.
        metric: The column, such as a distance.

    Returns:
        Keys by `"least"`, `"median"` and `"most"`; with few pairs some are the same.

    Raises:
        ValueError: If no pair of the method has the metric.
    """
    values = frame[frame["method"] == method].groupby("key", sort=False)[metric].mean().dropna().sort_values()
    if values.empty:
        raise ValueError(f"no pair of method {method!r} has {metric!r}")
    places = {"least": 0, "median": len(values) // 2, "most": -1}
    return {name: values.index[place] for name, place in places.items()}


def _edits(
    pipe: DragPipeline, source: Tensor, points: Drags, seeds: Sequence[int], call: Mapping[str, Any]
) -> tuple[Tensor, list[float]]:
    """One edit a seed, `(seeds, 3, h, w)` in steps of 1/255, and the seconds of each."""
    images, seconds = [], []
    for seed in seeds:
        began, generator = time.perf_counter(), torch.Generator().manual_seed(seed)
        result = pipe(source, *points, generator=generator, **call)
        seconds.append(time.perf_counter() - began)
        images.append(to_tensor(load_image(result.images[0])))
    return torch.cat(images), seconds
