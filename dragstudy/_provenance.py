"""What made a result: hashes of code and files, versions, device, commit."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the clone that holds notebooks/, data/ and results/
WIDEST = ("amx_bf16", "avx512_f", "avx2", "sve", "neon")  # instructions of CPUs, the widest first
PACKAGES = ("torch", "diffusers", "peft", "torchmetrics", "lpips", "numpy", "opencv-python-headless")


def describe(notebook: str, params: Mapping[str, object]) -> dict[str, object]:
    """The part of a run's manifest that is known when it starts."""
    commit, dirty = git_state(ROOT)
    return {
        "notebook": notebook,
        "profile": params.get("profile", ""),
        "seed": params.get("seed"),
        "params": dict(params),
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "device": device(),
        "started": now(),
        "status": "running",
    }


def now() -> str:
    """The time in UTC, to the second, as in `2026-01-31T12:00:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def device() -> str:
    """The first GPU's name, or the CPU's cores and widest instructions, on which last digits depend."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    found = torch.cpu.get_capabilities()
    widest = [name.upper().partition("_")[0] for name in WIDEST if found.get(name)][:1]
    return ", ".join([f"CPU, {os.cpu_count()} cores, {platform.machine()}", *widest])


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a clone, and whether anything but its results differs from it; None without git."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return commit, bool(git("status", "--porcelain", "--", ".", ":!results").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: Path, suffixes: Iterable[str] = ()) -> str:
    """Hex digest of the names and contents of a folder's files, hidden and cached ones excluded.

    Args:
        folder: Folder; one that does not exist counts as empty.
        suffixes: Only files that end in one of these, such as `".py"`; none means all.
    """
    wanted = tuple(suffixes)
    lines = [
        f"{path.relative_to(folder).as_posix()} {sha256(path)}"
        for path in folder.rglob("*")
        if path.is_file()
        and path.name.endswith(wanted or "")
        and not path.name.startswith(".")
        and path.suffix != ".pyc"
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write JSON so that the file is either the old or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that the file is either the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
