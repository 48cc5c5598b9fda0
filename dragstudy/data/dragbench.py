"""DragBench (DragDiffusion, Sec. 5): a folder in its published layout, read without trusting its pickles.

`<category>/<labeller_date>/` holds `original_image.png` and `meta_data.pkl`: a dict of `prompt`, `points`
(handle, target, handle, target, ... as (x, y)) and `mask` (1 = may change). Unpickling runs whatever a file
asks for, so nothing of numpy is called while one is read: stand-ins note what the file says of its arrays,
which are made from that afterwards.
"""

import pickle
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dragstudy.data.samples import Sample, frozen_manifest, place_of
from dragstudy.drags import DragInstruction
from dragstudy.images import load_image

IMAGE, META = "original_image.png", "meta_data.pkl"
LARGEST_META = 64 * 2**20  # bytes; the published ones have a quarter of a megabyte
NUMBERS, ORDERS = "biuf", ("<", ">", "=", "|")  # kinds of dtypes that a file may hold, and of their bytes
BROKEN = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, MemoryError,
    OverflowError, TypeError, UnicodeDecodeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Meta:
    """What `meta_data.pkl` says.

    Attributes:
        prompt: What the image shows.
        handle_points: `(n, 2)`, (x, y) in pixels.
        target_points: `(n, 2)`.
        mask: 1 where the image may change, uint8 `(h, w)`.
    """

    prompt: str
    handle_points: np.ndarray
    target_points: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class DragBench:
    """DragBench, or any part of it, in the order of its categories and folders.

    An id is `<category>-<labeller_date>`. A drag of length zero, of which the published set has two, is kept
    as what it is everywhere here: a point that should stay. `zero_length` and `summary` tell of them.

    Attributes:
        name: `"dragbench"`.
        ids: Ids in sorted order.
        folders: Where each sample lies.
    """

    name: str
    ids: tuple[str, ...]
    folders: dict[str, Path]

    @classmethod
    def open(cls, path: Path | str) -> "DragBench":
        """Find the samples in the release's folder, or in `drag_bench_data` inside of it.

        Raises:
            ValueError: If there are none, or if all images of the published set are there, but not its drags.
        """
        root = Path(path)
        root = root / "drag_bench_data" if (root / "drag_bench_data").is_dir() else root
        found = sorted((meta.parent.parent.name, meta.parent.name) for meta in root.glob(f"*/*/{META}"))
        if not found:
            raise ValueError(f"{path} holds no samples such as animals/JH_2023-09-14-1820-16/{META}")
        folders = {f"{category}-{name}": root / category / name for category, name in found}
        made = cls("dragbench", tuple(folders), folders)
        if made.complete and (fault := made._fault()):
            raise ValueError(f"{path} has all 205 images of DragBench, but {fault}")
        return made

    @property
    def complete(self) -> bool:
        """Whether these are the 205 images of the published set, all of them and no others."""
        return self.ids == published_ids()

    @cached_property
    def drags(self) -> dict[str, np.ndarray]:
        """Displacements of each sample's drags, `(n, 2)` in pixels."""
        metas = {id: read_meta(self.folders[id] / META) for id in self.ids}
        return {id: meta.target_points - meta.handle_points for id, meta in metas.items()}

    @property
    def zero_length(self) -> list[tuple[str, int]]:
        """Id and place of every drag whose target is its handle."""
        zero = {id: np.flatnonzero(~drags.any(axis=1)).tolist() for id, drags in self.drags.items()}
        return [(id, k) for id, places in zero.items() for k in places]

    def summary(self) -> dict[str, Any]:
        """How many images and drags there are, by category too, and which drags have length zero."""
        drags: Counter = Counter()
        for id in self.ids:
            drags[self.folders[id].parent.name] += len(self.drags[id])
        images = Counter(self.folders[id].parent.name for id in self.ids)
        return {
            "images": len(self.ids),
            "pairs": drags.total(),
            "zero_length": self.zero_length,
            "categories": {name: {"images": images[name], "pairs": drags[name]} for name in images},
        }

    def sample(self, id: str) -> Sample:
        """Load one sample; there is no true edit.

        Raises:
            ValueError: If there is none of this id, or its files cannot be used.
        """
        folder = self.folders[self.ids[place_of(self.ids, id, self.name)]]
        meta, image = read_meta(folder / META), load_image(folder / IMAGE)
        drags = DragInstruction(meta.handle_points, meta.target_points, meta.mask, image.size)
        return Sample(id, image, drags, prompt=meta.prompt)

    def _fault(self) -> str:
        """How the drags differ from the published ones; nothing if they do not."""
        found, published = self.summary(), frozen_manifest("dragbench")
        found["zero_length"] = len(found["zero_length"])
        for name in ("pairs", "zero_length"):
            if found[name] != published[name]:
                return f"{name} are {found[name]}, not {published[name]}"
        for name, category in published["categories"].items():
            if found["categories"][name]["pairs"] != category["pairs"]:
                return f"pairs of {name} are {found['categories'][name]['pairs']}, not {category['pairs']}"
        return ""


def published_ids() -> tuple[str, ...]:
    """The 205 ids of the published set, in sorted order."""
    categories = frozen_manifest("dragbench")["categories"]
    return tuple(f"{name}-{folder}" for name, part in categories.items() for folder in part["folders"])


def read_meta(path: Path) -> Meta:
    """Read a `meta_data.pkl` without running anything of it.

    Raises:
        ValueError: If it cannot be read, holds anything but dicts, lists, strings, numbers and arrays of
            numbers, or is no sample of DragBench.
    """
    try:
        if path.stat().st_size > LARGEST_META:
            raise ValueError(f"it has more than {LARGEST_META} bytes")
        with path.open("rb") as file:
            fields = _Unpickler(file).load()
        return _checked(fields)
    except (OSError, *BROKEN) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be used as a sample of DragBench: {reason}") from None


def _checked(fields: Any) -> Meta:
    if type(fields) is not dict or not {"prompt", "points", "mask"} <= {*fields}:
        raise ValueError("it must be a dict of prompt, points and mask")
    prompt, mask = fields["prompt"], fields["mask"]
    if type(prompt) is not str:
        raise ValueError(f"its prompt must be a string, not {type(prompt).__name__}")
    points = np.array([_pair_of_numbers(point) for point in _items(fields["points"])], dtype=np.float64)
    if not len(points) or len(points) % 2:
        raise ValueError(f"its points must be handle, target, handle, target, ..., got {len(points)}")
    mask = mask.array() if isinstance(mask, _Array) else np.empty(0)
    if mask.ndim != 2 or mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all():
        raise ValueError("its mask must be an array (height, width) of 0 and 1")
    return Meta(prompt, points[::2], points[1::2], mask.astype(np.uint8))


def _items(values: Any) -> Any:
    if isinstance(values, _Array):
        return values.array().tolist()
    if type(values) not in (list, tuple):
        raise ValueError(f"its points must be lists of numbers, found {type(values).__name__}")
    return values


def _pair_of_numbers(point: Any) -> list[float]:
    numbers = [one.number() if isinstance(one, _Scalar) else one for one in _items(point)]
    if len(numbers) != 2 or not all(type(one) in (int, float) for one in numbers):
        raise ValueError("each of its points must be two numbers")
    return numbers


class _StandIn:
    """What a file may name. Pickles can set attributes of what they name, classes too: here they cannot."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it must not")


class _Dtype(_StandIn):
    """What a file says of a dtype: a code such as `u1`, and the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, align: Any = False, copy: Any = True) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        """The dtype.

        Raises:
            ValueError: If it is not one of numbers.
        """
        if type(self.code) is not str or self.code[:1] not in NUMBERS or self.order not in ORDERS:
            raise ValueError(f"an array of {self.code!r}: only numbers are read")
        return np.dtype(self.order + self.code)


class _Array(_StandIn):
    """What a file says of an array: shape, dtype, order of its axes, bytes."""

    __slots__ = ("state",)

    def __init__(self, kind: Any = None, shape: Any = None, code: Any = None) -> None:
        self.state = None

    def __setstate__(self, state: tuple) -> None:
        self.state = state[1:]  # without the version

    def array(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: If it is not one of numbers, or its bytes do not fill its shape.
        """
        shape, kind, fortran, raw = self.state
        if not isinstance(kind, _Dtype) or type(raw) is not bytes:
            raise ValueError("an array of something else than numbers")
        return np.frombuffer(raw, kind.dtype()).reshape(shape, order="F" if fortran else "C")


class _Scalar(_StandIn):
    """What a file says of one number of numpy's: dtype and bytes."""

    __slots__ = ("kind", "raw")

    def __init__(self, kind: _Dtype, raw: bytes) -> None:
        self.kind, self.raw = kind, raw

    def number(self) -> int | float:
        """The number."""
        return np.frombuffer(self.raw, self.kind.dtype(), count=1)[0].item()


class _Buffer(_Array):
    """What a file of protocol 5 says of an array."""

    __slots__ = ()

    def __init__(self, raw: Any, kind: _Dtype, shape: tuple, order: str) -> None:
        self.state = shape, kind, order == "F", bytes(raw)


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
}


class _Unpickler(pickle.Unpickler):
    """Knows numpy's arrays, dtypes and numbers by stand-ins, and nothing else by name."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name since numpy 2
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]
