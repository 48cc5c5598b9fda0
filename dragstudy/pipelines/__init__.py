"""The editing methods, each a diffusers pipeline behind the same call; `load` finds one by name."""

from pathlib import Path

from dragstudy import _torchvision

_torchvision.require()  # diffusers reaches torchvision through peft and transformers as it is imported

from dragstudy.pipelines.base import DragPipeline, DragPipelineOutput  # noqa: E402
from dragstudy.pipelines.bidirectional import BidirectionalWarpPipeline  # noqa: E402
from dragstudy.pipelines.dragdiffusion import DragDiffusionPipeline  # noqa: E402
from dragstudy.pipelines.dragondiffusion import DragonDiffusionPipeline  # noqa: E402
from dragstudy.pipelines.instantdrag import InstantDragPipeline  # noqa: E402
from dragstudy.pipelines.lightningdrag import LightningDragPipeline  # noqa: E402
from dragstudy.pipelines.sdedrag import SDEDragPipeline  # noqa: E402
from dragstudy.pipelines.warp import WarpPipeline  # noqa: E402
from dragstudy.pipelines.weights import tiny_instantdrag, tiny_latent, tiny_lightningdrag  # noqa: E402

__all__ = [
    "METHODS",
    "BidirectionalWarpPipeline",
    "DragDiffusionPipeline",
    "DragPipeline",
    "DragPipelineOutput",
    "DragonDiffusionPipeline",
    "InstantDragPipeline",
    "LightningDragPipeline",
    "SDEDragPipeline",
    "WarpPipeline",
    "find_method",
    "load",
]

METHODS: dict[str, type[DragPipeline]] = {
    "instantdrag": InstantDragPipeline,
    "instantdrag-splat": InstantDragPipeline,
    "lightningdrag": LightningDragPipeline,
    "dragdiffusion": DragDiffusionPipeline,
    "dragondiffusion": DragonDiffusionPipeline,
    "sdedrag": SDEDragPipeline,
    "warp": WarpPipeline,
    "bidirectional-warp": BidirectionalWarpPipeline,
}


def load(method: str = "instantdrag", weights: str | Path = "tiny") -> DragPipeline:
    """Load an editing method, ready to call.

    Args:
        method: One of `METHODS`: `"instantdrag"` (the paper's conditioning), `"instantdrag-splat"` (also sees
            the source moved along the flow), `"lightningdrag"` (fills a mask), `"dragdiffusion"`,
            `"dragondiffusion"`, `"sdedrag"` (three that edit the photograph's own noise), or `"warp"` and
            `"bidirectional-warp"` (no network).
        weights: `"tiny"` for the weights in this repository, a folder that `save_pretrained` wrote, or a hub
            id.

    Raises:
        ValueError: If there is no such method, or no weights of that name.

    Example:
        >>> pipe = load("warp")
        >>> type(pipe).__name__
        'WarpPipeline'
    """
    pipeline = find_method(method)
    if pipeline in (WarpPipeline, BidirectionalWarpPipeline):
        return pipeline()
    if str(weights) == "tiny":
        if pipeline is InstantDragPipeline:
            return tiny_instantdrag("splat" if method == "instantdrag-splat" else "concat")
        return tiny_lightningdrag() if method == "lightningdrag" else tiny_latent(pipeline)
    try:
        return pipeline.from_pretrained(str(weights))
    except OSError as error:
        raise ValueError(
            f"weights must be 'tiny', a saved pipeline's folder or a hub id, got {weights!r}"
        ) from error


def find_method(method: str) -> type[DragPipeline]:
    """The pipeline class of a method.

    Raises:
        ValueError: If there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]
