"""Digests of code follow its imports, and of weights their files."""

import pytest

from dragstudy import _fingerprints
from dragstudy._fingerprints import code_sha256, weights_sha256


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `dragstudy` of a few modules."""
    files = {
        "__init__.py": "",
        "used.py": "def f():\n    from dragstudy.inner import late\n",
        "inner/__init__.py": "",
        "inner/late.py": "import numpy\n",
        "inner/other.py": "",
        "typed.py": "",
        "main.py": "from typing import TYPE_CHECKING\nfrom dragstudy import used\n"
        "if TYPE_CHECKING:\n    from dragstudy import typed\n",
    }
    root = tmp_path / "dragstudy"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(_fingerprints, "PACKAGE", root)
    return root


@pytest.mark.parametrize(
    ("changed", "matters"),
    [("main", True), ("used", True), ("inner/late", True), ("inner/__init__", True), ("__init__", True)]
    + [("inner/other", False), ("typed", False)],
)
def test_code_is_what_is_imported(package, changed, matters):
    before = code_sha256("dragstudy.main")
    (package / f"{changed}.py").write_text((package / f"{changed}.py").read_text() + "# changed\n")
    assert (code_sha256("dragstudy.main") != before) is matters


def test_packages_that_only_gather_names_need_not_count(package):
    (package / "inner" / "__init__.py").write_text("from dragstudy.inner import other\n")
    found = code_sha256("dragstudy.main", packages=False)
    for name in ("__init__", "inner/__init__", "inner/other"):
        (package / f"{name}.py").write_text("# changed\n")
        assert code_sha256("dragstudy.main", packages=False) == found != code_sha256("dragstudy.main")
    (package / "inner" / "late.py").write_text("# changed\n")
    assert code_sha256("dragstudy.main", packages=False) != found


def test_an_unknown_module_is_refused(package):
    with pytest.raises(ValueError, match="no module 'dragstudy.nothing'"):
        code_sha256("dragstudy.nothing")


def test_no_plot_decides_an_edit():
    found = _fingerprints._reachable(("dragstudy.metrics.editing",))
    assert {"dragstudy.pipelines.warp", "dragstudy.metrics.editing", "dragstudy.flow"} <= set(found)
    assert not [name for name in found if "plotting" in name or "widgets" in name or "intervals" in name]


def test_weights_are_their_files_and_not_their_cards(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"1")
    before = weights_sha256("tiny", tmp_path)
    assert before == weights_sha256(str(tmp_path), tmp_path / "elsewhere")
    (tmp_path / "README.md").write_text("new")
    assert weights_sha256("tiny", tmp_path) == before
    (tmp_path / "a.safetensors").write_bytes(b"2")
    assert weights_sha256("tiny", tmp_path) != before
    assert weights_sha256("a/hub-id", tmp_path) != weights_sha256("another/hub-id", tmp_path)
