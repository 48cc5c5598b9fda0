"""Figures: one function a figure; each returns the Figure, titled with what it shows.

Images are PIL, arrays `(h, w)` or `(h, w, 3)`, uint8 or in [0, 1], or float tensors in [0, 1], `(3, h, w)` or
`(1, h, w)`, with or without a batch axis of one. Points are (x, y) in pixels of the image they are drawn on.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from dragstudy.flow import flow_to_rgb

if TYPE_CHECKING:
    import pandas as pd

    from dragstudy.data.pairs import Pair

AnyImage = Image.Image | np.ndarray | Tensor
Arguments = ParamSpec("Arguments")

# Okabe and Ito's colours, told apart by the colour-blind; one a method, the same in every notebook.
METHOD_COLORS = {
    "nothing": "#999999",
    "warp": "#000000",
    "instantdrag": "#0072B2",
    "instantdrag-splat": "#56B4E9",
    "lightningdrag": "#009E73",
    "dragdiffusion": "#D55E00",
    "dragondiffusion": "#CC79A7",
}
CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
HANDLE, TARGET = "#D55E00", "#56B4E9"  # the two ends of a drag
MAX_WIDTH = 10.8  # inches of a figure; at 100 dots an inch
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=CYCLE),
    "legend.frameon": False,
}


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw a figure in the style of dragstudy and leave matplotlib's settings as they were."""

    @wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def to_array(image: AnyImage) -> np.ndarray:
    """Return any image as uint8, `(h, w)` or `(h, w, 3)`."""
    if isinstance(image, Tensor):
        pixels = image.detach().float().cpu()
        pixels = (pixels[0] if pixels.ndim == 4 else pixels).clamp(0, 1).mul(255).round().byte()
        return pixels.permute(1, 2, 0).squeeze(-1).numpy()
    pixels = np.asarray(image)
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def draw_drags(ax: Axes, handle_points: np.ndarray, target_points: np.ndarray) -> None:
    """Draw an arrow from each handle to its target, and a ring where both coincide (an anchor)."""
    handles, targets = np.asarray(handle_points, float), np.asarray(target_points, float)
    anchored = (handles == targets).all(axis=1)
    arrow = {
        "arrowstyle": "-|>",
        "color": "white",
        "lw": 1.5,
        "shrinkA": 2,
        "shrinkB": 0,
        "mutation_scale": 10,
    }
    outline = [withStroke(linewidth=3, foreground="black")]
    for handle, target in zip(handles[~anchored], targets[~anchored], strict=True):
        ax.annotate("", target, handle, arrowprops={**arrow, "path_effects": outline})
    dots = {"s": 22, "edgecolors": "black", "linewidths": 0.7, "zorder": 3}
    ax.scatter(*targets[~anchored].T, color=TARGET, **dots)
    ax.scatter(*handles[~anchored].T, color=HANDLE, **dots)
    ax.scatter(
        *handles[anchored].T,
        s=40,
        facecolors="none",
        edgecolors="white",
        linewidths=1.6,
        path_effects=outline,
    )


@styled
def image_row(
    images: Sequence[AnyImage], titles: Sequence[str] = (), *, title: str = "", columns: int = 6
) -> Figure:
    """Show images side by side, in rows of at most `columns`."""
    fig, axes = _grid(len(images), columns, title, images[0])
    for index, image in enumerate(images):
        _show(axes[index], image, titles[index] if titles else "")
    return fig


@styled
def before_after(
    source: AnyImage,
    edits: Mapping[str, AnyImage],
    handle_points: np.ndarray,
    target_points: np.ndarray,
    *,
    title: str = "",
) -> Figure:
    """Show a photograph with its drags, then what each method made of it."""
    fig, axes = _grid(1 + len(edits), 6, title, source)
    _show(axes[0], source, "source and drags")
    draw_drags(axes[0], handle_points, target_points)
    for ax, (name, image) in zip(axes[1:], edits.items(), strict=False):
        _show(ax, image, name)
    return fig


@styled
def flow_panel(
    image: AnyImage, flows: Mapping[str, Tensor], *, title: str = "", max_flow: float | None = None
) -> Figure:
    """Show an image, flows of it by colour, and the wheel that says which colour is which motion.

    Args:
        image: The source image.
        flows: Flows in pixels by name, each `(2, h, w)` or `(1, 2, h, w)`.
        title: The message.
        max_flow: Length in pixels of full colour; by default the longest of all flows.
    """
    batches = {
        name: flow.detach().float().cpu().reshape(1, 2, *flow.shape[-2:]) for name, flow in flows.items()
    }
    longest = max_flow or max(max(float(flow.norm(dim=1).max()) for flow in batches.values()), 1e-3)
    fig, axes = _grid(2 + len(flows), 6, title, image)
    _show(axes[0], image, "source")
    for ax, (name, flow) in zip(axes[1:], batches.items(), strict=False):
        _show(ax, flow_to_rgb(flow, max_flow=longest)[0].permute(1, 2, 0).numpy(), name)
    _show_wheel(axes[1 + len(flows)], longest)
    return fig


@styled
def flow_histograms(
    flows: Mapping[str, Tensor], *, title: str = "", unit: str = "px", mask: Tensor | None = None
) -> Figure:
    """Show how the lengths of flows are distributed, on a logarithmic count.

    Args:
        flows: Flows by name, each `(b, 2, h, w)`.
        title: The message.
        unit: Unit of the flows, for the axis.
        mask: Count only where it is 1, `(b, 1, h, w)`.
    """
    fig, ax = plt.subplots(figsize=(5.4, 3.2))
    lengths = {name: flow.detach().float().norm(dim=1, keepdim=True) for name, flow in flows.items()}
    lengths = {name: (x if mask is None else x[mask > 0.5]).flatten().numpy() for name, x in lengths.items()}
    bins = np.linspace(0, max(max(float(x.max(initial=0)) for x in lengths.values()), 1e-6), 60)
    for name, values in lengths.items():
        ax.hist(values, bins, histtype="step", linewidth=1.5, label=name, log=True)
    ax.set(xlabel=f"length of the flow ({unit})", ylabel="pixels", title=title)
    ax.legend()
    return fig


@styled
def loss_curves(
    logs: Mapping[str, Path | str], keys: Sequence[str], *, title: str = "", log: bool = False
) -> Figure:
    """Show columns of `metrics.jsonl` over images seen, one panel a column, one line a run.

    Args:
        logs: Paths of `metrics.jsonl` by the name of the run.
        keys: The columns, such as `"generator_loss"`.
        title: The message.
        log: Logarithmic vertical axes.
    """
    runs = {
        name: [json.loads(line) for line in Path(path).read_text().splitlines()]
        for name, path in logs.items()
    }
    fig, axes = plt.subplots(1, len(keys), figsize=(min(MAX_WIDTH, 3.6 * len(keys)), 2.8), squeeze=False)
    fig.suptitle(title)
    for ax, key in zip(axes[0], keys, strict=True):
        for name, lines in runs.items():
            points = [(line["images"], line[key]) for line in lines if key in line]
            ax.plot(*zip(*points, strict=True), label=name, color=METHOD_COLORS.get(name)) if points else None
        ax.set(xlabel="images seen", ylabel=key.replace("_", " "))
        if log:
            ax.set_yscale("log")
    if len(runs) > 1:
        axes[0, 0].legend()
    return fig


@styled
def pair_sheet(pairs: Iterable["Pair"], *, title: str = "") -> Figure:
    """Show frame pairs, one a row: both frames, the mask, the flow as estimated, the flow that is kept."""
    pairs = list(pairs)
    fig, axes = _grid(5 * len(pairs), 5, title, pairs[0].source)
    for row, pair in enumerate(pairs):
        flows = torch.from_numpy(np.stack([pair.flow, pair.masked_flow * (pair.valid > 0)]))
        colours = flow_to_rgb(flows, max_flow=max(float(flows[1].norm(dim=0).max()), 1.0))
        pictures = (pair.source, pair.target, pair.mask, *colours.permute(0, 2, 3, 1).numpy())
        names = ("source frame", "target frame", "mask", "estimated flow", "consistent flow in the mask")
        for column, (picture, name) in enumerate(zip(pictures, names, strict=True)):
            _show(axes[5 * row + column], picture, "" if row else name)
    return fig


@styled
def rejection_bars(manifest: "pd.DataFrame", *, title: str = "") -> Figure:
    """Show how many of the considered pairs were kept, and for which reason the others were not.

    Args:
        manifest: `manifest.parquet` of `dragstudy curate`: one row a pair, `reason` empty where it is kept.
        title: The message.
    """
    counts = manifest["reason"].replace("", "kept").str.replace("_", " ").value_counts().sort_values()
    fig, ax = plt.subplots(figsize=(5.4, 0.6 + 0.28 * len(counts)))
    colors = [METHOD_COLORS["instantdrag" if reason == "kept" else "nothing"] for reason in counts.index]
    bars = ax.barh(list(counts.index), counts.to_numpy(), color=colors)
    ax.bar_label(bars, [f"{n} ({n / len(manifest):.0%})" for n in counts], padding=3)
    ax.margins(x=0.2)
    ax.set(xlabel="pairs considered", title=title)
    return fig


@styled
def sampler_sheet(image: AnyImage, samples: Mapping[str, Sequence[Tensor]], *, title: str = "") -> Figure:
    """Show sampled drags on their image, one configuration a row, one draw a column.

    Args:
        image: The source image.
        samples: Sparse flows in pixels by the name of the configuration, each `(2, h, w)`.
        title: The message.
    """
    columns = max(len(draws) for draws in samples.values())
    fig, axes = _grid(columns * len(samples), columns, title, image)
    for row, (name, draws) in enumerate(samples.items()):
        for column, sparse in enumerate(draws):
            ax = axes[columns * row + column]
            flow = sparse.detach().cpu().reshape(2, *sparse.shape[-2:]).numpy()
            y, x = flow.any(axis=0).nonzero()
            _show(ax, image, f"{name}: {len(x)} points")
            ax.plot([x, x + flow[0, y, x]], [y, y + flow[1, y, x]], color=TARGET, linewidth=1.5)
            ax.scatter(x, y, s=10, color=HANDLE, edgecolors="black", linewidths=0.4, zorder=3)
    return fig


def _grid(count: int, columns: int, title: str, image: AnyImage) -> tuple[Figure, list[Axes]]:
    """Axes without ticks for `count` images of the shape of `image`, and the figure they are in."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height, width = to_array(image).shape[:2]
    side = min(2.7, MAX_WIDTH / columns)
    size = side * columns, rows * (side * height / width + 0.22) + (0.3 if title else 0)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    fig.suptitle(title)
    for ax in axes.flat:
        ax.axis("off")
    return fig, list(axes.flat)


def _show(ax: Axes, image: AnyImage, title: str) -> None:
    ax.imshow(to_array(image), cmap="gray", vmin=0, vmax=255)
    ax.set_autoscale_on(False)  # a drag that leaves the image does not widen it
    ax.set_title(title)


def _show_wheel(ax: Axes, longest: float) -> None:
    """The colours of every motion up to `longest` pixels, pointing the way they move."""
    line = torch.linspace(-longest, longest, 129)
    wheel = torch.stack(torch.meshgrid(line, line, indexing="xy"))[None]
    colours = flow_to_rgb(wheel, max_flow=longest)[0].permute(1, 2, 0).numpy()
    colours[(wheel[0].norm(dim=0) > longest).numpy()] = 255
    _show(ax, colours, f"motion, up to {longest:.3g} px")
