"""The results folder: what finished runs drew and counted, copied where readers look, and the index of it."""

import json
import shutil
from pathlib import Path

from dragstudy._claims import write_claims
from dragstudy._notebooks import notebook_paths, read_notebook
from dragstudy._provenance import write_json, write_text

KINDS = ("figures", "tables")  # what the index shows of a notebook
PUBLISHED = (*KINDS, "claims")


def publish(folder: Path, results: Path) -> None:
    """Copy the figures and tables of a finished run to `results/`; drop what its notebook no longer makes.

    Args:
        folder: The run's folder.
        results: The folder `results/`.

    Raises:
        ValueError: If another notebook already publishes under the same id.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    for kind in PUBLISHED:
        published = {path: json.loads(path.read_text())["run"] for path in (results / kind).glob("*.json")}
        fresh = {path.stem: path for path in sorted((folder / kind).glob("*.json"))}
        for path, run in published.items():
            if run["notebook"] != manifest["notebook"] and path.stem in fresh:
                both = f"{run['notebook']} and {manifest['notebook']}"
                raise ValueError(f"{both} both make {kind}/{path.stem}: rename one")
        for path, run in published.items():
            if run["notebook"] == manifest["notebook"]:
                for old in path.parent.glob(f"{path.stem}.*"):
                    old.unlink()
        for name, path in fresh.items():
            write_json(results / kind / path.name, json.loads(path.read_text()) | {"run": manifest})
            for made in sorted(path.parent.glob(f"{name}.*")):
                if made.suffix != ".json":
                    shutil.copyfile(made, results / kind / made.name)
    params = manifest.get("params", {})
    if params.get("extend") is True or params.get("kept") is False:  # else a first part of the kept rows
        _keep_rows(folder / "rows", results / "rows" / manifest["notebook"], manifest)


def published_seconds(results: Path) -> dict[str, float]:
    """How long the published run of each notebook took, by its name."""
    records = [
        json.loads(path.read_text())["run"] for kind in KINDS for path in (results / kind).glob("*.json")
    ]
    return {run["notebook"]: run.get("seconds", 0.0) for run in records}


def _keep_rows(made: Path, kept: Path, manifest: dict) -> None:
    """Replace the kept rows of a notebook by those of a run; of one that extends them, those that it has."""
    if manifest["params"].get("extend") is not True:
        shutil.rmtree(kept, ignore_errors=True)
    for path in sorted(made.glob("*.parquet")):
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept / path.name)
        record = json.loads(path.with_suffix(".json").read_text())
        write_json(kept / f"{path.stem}.json", record | {"run": manifest})


def write_index(root: Path) -> Path:
    """Write `results/README.md`: every published figure and table with its message and its run.

    And `results/CLAIMS.md`, where claims are published.
    """
    results = root / "results"
    sections, rows = [], []
    for name, path in notebook_paths(root).items():
        records = _records(results, name)
        if records:
            title, question = _heading(path)
            rows.append(_row(name, question, records[0]["run"]))
            sections.append("\n\n".join([f"## {title}", *(_entry(record, results) for record in records)]))
    head = [
        "# Results",
        "Written by `dragstudy study` (or `make study`); changes by hand are lost. Each figure and table has "
        "beside it the manifest of the run that made it: parameters, versions, device, commit, digests. "
        "Where a notebook says so, its tables stand on the rows in `rows/`, which the profile `full` made.",
    ]
    if claims := write_claims(results, notebook_paths(root)):
        head.append(claims)
    if rows:
        columns = "| question | notebook | profile | run | commit | time |\n|---|---|---|---|---|---|"
        head.append("\n".join([columns, *rows]))
    if failed := _failed(results):
        head.append("**Failed:**\n" + "\n".join(failed))
    index = results / "README.md"
    write_text(index, "\n\n".join([*head, *sections]) + "\n")
    return index


def markdown_table(frame) -> str:
    """A DataFrame in Markdown: floats to four significant digits, an unnamed index left out."""
    if frame.index.names != [None]:
        frame = frame.reset_index()
    lines = [[str(column) for column in frame.columns], ["---"] * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append([f"{value:.4g}" if isinstance(value, float) else str(value) for value in row])
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def _records(results: Path, notebook: str) -> list[dict]:
    """The published figures, then tables, of a notebook, in the order in which it made them."""
    found = []
    for kind in KINDS:
        records = [json.loads(path.read_text()) for path in (results / kind).glob("*.json")]
        mine = [record for record in records if record["run"]["notebook"] == notebook]
        found += sorted(mine, key=lambda record: (record["order"], record["id"]))
    return found


def _heading(path: Path) -> tuple[str, str]:
    """The title of a notebook and the sentence after its word Question, both from the first cell."""
    lines = [line.strip() for line in read_notebook(path).cells[0].source.splitlines() if line.strip()]
    title = lines[0].lstrip("# ") if lines else path.stem
    questions = (line for line in lines if line.lower().startswith("**question"))
    return title, next(questions, "**").split("**")[-1].strip(" :.")


def _row(notebook: str, question: str, run: dict) -> str:
    commit = (run["commit"] or "none")[:7] + (" with changes" if run["dirty"] else "")
    link = f"[{notebook}](../notebooks/{notebook}.ipynb)"
    return f"| {question} | {link} | {run['profile']} | `{run['id']}` | {commit} | {run['seconds']:.0f} s |"


def _entry(record: dict, results: Path) -> str:
    kind = record["kind"] + "s"
    manifest = f"[manifest]({kind}/{record['id']}.json)"
    if kind == "figures":
        return f"**{record['message']}**\n\n![{record['message']}](figures/{record['file']})\n\n{manifest}"
    table = (results / "tables" / f"{record['id']}.md").read_text(encoding="utf-8").strip()
    return (
        f"**{record['message'] or record['id']}**\n\n{table}\n\n[csv](tables/{record['file']}) · {manifest}"
    )


def _failed(results: Path) -> list[str]:
    """One line for each notebook and profile whose last run here failed."""
    last = {}
    for path in sorted(results.glob("runs/*/*/*/manifest.json")):
        run = json.loads(path.read_text())
        key = (run["notebook"], run["profile"])
        if key not in last or run["started"] >= last[key]["started"]:
            last[key] = run
    return [f"- `{r['id']}`: {r['exception']}" for r in last.values() if r["status"] == "failed"]
