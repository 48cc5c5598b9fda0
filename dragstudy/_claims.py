"""What papers claim and what was measured here, from every notebook on one page: `results/CLAIMS.md`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["claim", "paper", "difference", "sign", "mean", "low", "high", "n", "seeds", "verdict"]
WORDS = {"holds": "agrees", "contradicted": "contradicts", "undecided": "undecided"}
INTRO = """\
What the papers claim, held against what was measured here, at the scale of the tiny networks. A claim was put
down before the measuring; it *agrees* if the 95 % interval of the difference on the same pairs lies on the
claimed side of zero, *contradicts* if on the other, and is *undecided* if zero is inside."""
HEADINGS = ["claim", "paper's evidence", "measured", "pairs", "seeds", "verdict", "notebook"]


def claims_table(
    judged: "pd.DataFrame | Mapping[str, pd.DataFrame]", paper: str | Sequence[str], seeds: int = 1
) -> "pd.DataFrame":
    """Judged claims with fixed columns; those about which nothing was measured are left out.

    Args:
        judged: What `dragstudy.metrics.claims.judge` gave; or several of them by name, which then stands
            after each claim. Where it has a column `seeds`, or `paper`, that holds in place of the arguments.
        paper: The paper's evidence, for all claims or for each: `"InstantDrag, Fig. 7"`.
        seeds: Trainings, or samplings, of each method.

    Returns:
        A frame of `COLUMNS`.

    Raises:
        ValueError: If columns are missing, the evidence is, or a verdict is none.
    """
    import pandas as pd

    if isinstance(judged, Mapping):
        parts = [table.assign(claim=table["claim"] + f" ({name})") for name, table in judged.items()]
        parts = [claims_table(table, paper, seeds) for table in parts]
        parts = [part for part in parts if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    if judged.empty:
        return pd.DataFrame(columns=COLUMNS)
    given = {"paper": paper if isinstance(paper, str) else list(paper), "seeds": seeds}
    frame = judged.assign(**{name: value for name, value in given.items() if name not in judged})
    if missing := [name for name in COLUMNS if name not in frame]:
        raise ValueError(f"judged claims need the columns {', '.join(missing)}")
    if not frame["paper"].astype(str).str.strip().all():
        raise ValueError("each claim needs the paper's evidence, such as 'InstantDrag, Fig. 7'")
    if unknown := set(frame["verdict"]) - set(WORDS):
        raise ValueError(f"a verdict must be one of {', '.join(WORDS)}, got {sorted(unknown)}")
    return frame.loc[frame["n"] > 0, COLUMNS].reset_index(drop=True)


def write_claims(results: Path, notebooks: Mapping[str, Path]) -> str:
    """Write `CLAIMS.md`, all published claims in the order of the notebooks.

    Args:
        results: The folder `results/`.
        notebooks: Paths of the notebooks by name, in their order.

    Returns:
        A section for the index, which counts verdicts; empty if nothing is published, and then no page is.
    """
    import pandas as pd

    page, rows, counted = results / "CLAIMS.md", [], []
    records = [(path, json.loads(path.read_text())) for path in sorted((results / "claims").glob("*.json"))]
    records.sort(key=lambda one: (one[1]["order"], one[1]["id"]))
    for name in notebooks:
        mine = [(path, record) for path, record in records if record["run"]["notebook"] == name]
        frames = [pd.read_csv(path.with_suffix(".csv")) for path, _ in mine]
        if not (frames := [frame for frame in frames if len(frame)]):
            continue
        frame = pd.concat(frames, ignore_index=True)
        link, run = f"[{name}](../notebooks/{name}.ipynb)", mine[0][1]["run"]
        rows += [_row(row, link) for row in frame.itertuples()]
        counts = [int((frame["verdict"] == verdict).sum()) for verdict in WORDS]
        counted.append([link, *map(str, counts), run["profile"], (run["commit"] or "none")[:7]])
    if not rows:
        page.unlink(missing_ok=True)
        return ""
    page.write_text(f"# Claims\n\n{INTRO}\n\n{_table(HEADINGS, rows)}\n", encoding="utf-8")
    head = ["notebook", *WORDS.values(), "profile", "commit"]
    return f"## Claims\n\n{INTRO} [All {len(rows)} claims](CLAIMS.md).\n\n{_table(head, counted)}"


def _row(row: object, link: str) -> list[str]:
    number = f"{row.difference} = {row.mean:.3g} [{row.low:.3g}, {row.high:.3g}], said to be {row.sign}"
    return [row.claim, row.paper, number, str(row.n), str(row.seeds), WORDS[row.verdict], link]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
