"""A few photographs without people, with drags: what methods trained on people make of them.

InstantDrag's Appendix A shows such edits without fine-tuning. These photographs have no true edit: they are
for looking, and for how far what was dragged is from its target. The manifest holds each photograph's source,
square, drags and box of what may change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from dragstudy import assets
from dragstudy.data.samples import Sample, frozen_manifest, place_of, spread
from dragstudy.data.video import read_frames
from dragstudy.drags import DragInstruction


@dataclass(frozen=True, eq=False)
class Photographs:
    """The frozen photographs, as a `dragstudy.data.samples.Benchmark`.

    Attributes:
        name: Name of the benchmark.
        ids: Ids in the manifest's order.
    """

    name: str
    ids: tuple[str, ...]

    def sample(self, id: str) -> Sample:
        """Load one sample; there is no true edit.

        Raises:
            ValueError: If there is none of this id.
            AssetMissing: If it is a frame of a clip that was not fetched.
        """
        manifest = frozen_manifest("photographs")
        row = manifest["photographs"][place_of(_ids(manifest), id, self.name)]
        side = manifest["side"]
        left, top, right, bottom = row["mask"]
        mask = np.zeros((side, side), np.uint8)
        mask[top:bottom, left:right] = 1
        drags = DragInstruction(row["handles"], row["targets"], mask, (side, side))
        image = _read(row).crop(row["crop"]).resize((side, side), Image.Resampling.LANCZOS)
        return Sample(id, image, drags, prompt=row["prompt"])

    def asks(self, id: str) -> str:
        """What its drags ask for, in words."""
        manifest = frozen_manifest("photographs")
        return manifest["photographs"][place_of(_ids(manifest), id, self.name)]["asks"]


def open_photographs(count: int | None = None) -> Photographs:
    """All of them, or `count` spread evenly.

    Example:
        >>> open_photographs().ids
        ('cat', 'cup', 'rocket', 'cockatoo')
    """
    return Photographs("photographs", spread(_ids(frozen_manifest("photographs")), count))


def _ids(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["id"] for row in manifest["photographs"])


def _read(row: Mapping[str, Any]) -> Image.Image:
    if "skimage" in row:
        return Image.fromarray(getattr(data, row["skimage"])())
    frames = read_frames(assets.locate(*row["asset"]))
    return Image.fromarray(next(frame for _, second, frame in frames if second >= row["second"]))
