"""Digests of what decides a result: the code that a module runs, found by its imports, and saved weights."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from dragstudy._provenance import sha256, tree_sha256

PACKAGE = Path(__file__).resolve().parent
WEIGHT_FILES = (".safetensors", "config.json", "model_index.json")  # not cards and logs of training


def code_sha256(*modules: str, packages: bool = True) -> str:
    """Hex digest of some of this package's modules and of all that they import from it, in functions too.

    What they do not import may change without changing it: plots, notebooks, the editor's widgets.

    Args:
        modules: Such as `"dragstudy.pipelines"`.
        packages: Whether the `__init__.py` files count that importing a module runs. Where they only gather
            names, what they gather need not count.

    Raises:
        ValueError: If there is no such module.
    """
    lines = [f"{name} {sha256(path)}" for name, path in sorted(_reachable(modules, packages).items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def weights_sha256(weights: str, shipped: Path) -> str:
    """Hex digest of saved weights: `"tiny"` are the shipped ones; of a hub id the id, which names no version.

    Args:
        weights: As in `dragstudy.load`.
        shipped: The folder of the shipped weights.
    """
    folder = shipped if weights == "tiny" else Path(weights)
    if folder.is_dir():
        return tree_sha256(folder, WEIGHT_FILES)
    return hashlib.sha256(weights.encode()).hexdigest()


def _reachable(modules: tuple[str, ...], packages: bool = True) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file(name)
        if path is None:
            raise ValueError(f"there is no module {name!r}")
        if path.name == "__init__.py" and not packages:
            continue
        found[name] = path
        waiting += [one for one in _imports(path) if _file(one) is not None]
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing it runs its package
    return found


def _imports(path: Path) -> Iterator[str]:
    """Names that a file imports: modules, and what may be modules or in them; not those for type checkers."""
    waiting: list[ast.AST] = [ast.parse(path.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    first, *rest = module.split(".")
    if first != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*rest)
    candidates = (place / "__init__.py", place.with_suffix(".py") if rest else place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
