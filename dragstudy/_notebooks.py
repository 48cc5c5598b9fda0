"""Notebooks as the runner sees them: their names, their typed parameters, the profiles that override those.

A profile is a YAML file in `notebooks/profiles/`. Its sections are notebooks, in each the parameters to
override; `all` holds what every notebook gets, and `extends` names the profile that the file starts from.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nbformat
import yaml
from beartype.door import is_bearable

from dragstudy._provenance import write_text

_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "tuple": tuple, "dict": dict}
_TYPES |= {"Literal": Literal, "None": None}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    annotation: str
    default: object

    def check(self, value: object) -> object:
        """Return the value, a whole number made a float where a float is wanted.

        Raises:
            ValueError: If the value is not of the annotated type.
        """
        hint = eval(self.annotation, {"__builtins__": {}}, dict(_TYPES))
        candidates = [value]
        if isinstance(value, bool):  # Python counts True as an int, a parameters cell does not
            candidates = [value] if "bool" in self.annotation else []
        elif isinstance(value, int):
            candidates.append(float(value))
        for candidate in candidates:
            if is_bearable(candidate, hint):
                return candidate
        raise ValueError(f"parameter {self.name} must be {self.annotation}, got {value!r}")


def notebook_paths(root: Path) -> dict[str, Path]:
    """The numbered notebooks of a clone in reading order, by name without suffix."""
    return {path.stem: path for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def find_notebook(name: str, root: Path) -> Path:
    """A notebook by its name, such as `"03_flowgen"`, or by its number.

    Raises:
        ValueError: If no notebook, or more than one, answers to the name.
    """
    paths = notebook_paths(root)
    found = [path for stem, path in paths.items() if name in (stem, f"{stem}.ipynb", stem.split("_")[0])]
    if len(found) != 1:
        raise ValueError(f"no notebook {name!r} in {root / 'notebooks'}: it has {', '.join(paths) or 'none'}")
    return found[0]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook in the format that everything here expects."""
    return nbformat.read(path, as_version=4)


def parameters(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """The parameters of a notebook: the assignments in its one cell tagged `parameters`.

    Raises:
        ValueError: If there is not one such cell, or it holds anything but `name: type = literal`.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a notebook needs one cell tagged 'parameters', this one has {len(cells)}")
    found = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            found[name] = Parameter(name, annotation, ast.literal_eval(statement.value))
        except (AttributeError, TypeError, ValueError):
            line = ast.unparse(statement)
            raise ValueError(
                f"a parameters cell has only lines `name: type = literal`, not `{line}`"
            ) from None
    return found


def with_overrides(notebook: nbformat.NotebookNode, overrides: Mapping[str, object]) -> dict[str, object]:
    """Every parameter of a notebook, defaults overridden.

    Raises:
        ValueError: If an override names no parameter, or is not of its type.
    """
    known = parameters(notebook)
    for name in overrides:
        if name not in known:
            listed = ", ".join(f"{p.name}: {p.annotation}" for p in known.values())
            raise ValueError(f"unknown parameter {name!r}: the notebook has {listed}")
    return {name: p.check(overrides.get(name, p.default)) for name, p in known.items()}


def profile_overrides(profile: str, notebook: str, root: Path) -> dict[str, object]:
    """What a profile overrides in one notebook.

    Raises:
        ValueError: If there is no such profile, or it has a section that is no notebook.
    """
    folder = root / "notebooks" / "profiles"
    path = folder / f"{profile}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ValueError(f"no profile {profile!r}: {folder} has {names or 'none'}")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    stray = set(sections) - {"extends", "all", *notebook_paths(root)}
    if stray:
        raise ValueError(f"profile {profile!r} has sections that are no notebook: {', '.join(sorted(stray))}")
    base = profile_overrides(sections["extends"], notebook, root) if "extends" in sections else {}
    return {**base, **(sections.get("all") or {}), **(sections.get(notebook) or {})}


def run_hash(notebook: nbformat.NotebookNode, params: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """Eight hex digits that name a run: the same code, parameters and inputs give the same folder.

    Args:
        notebook: Only its code counts, not its text and outputs.
        params: Every parameter, except where the run writes.
        inputs: Digests of what else decides the result.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    asked = {name: value for name, value in params.items() if name != "out_dir"}
    text = json.dumps([code, asked, dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_notebook(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook without what says nothing: widget state, times, Python's patch level, paths."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):  # a widget whose state is not kept; its text and picture stay
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    write_text(path, nbformat.writes(notebook) + "\n")
