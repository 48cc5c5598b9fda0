import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dragstudy import __version__
from dragstudy._provenance import ROOT, git_state

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
TOP_LEVEL = {"notebooks", "dragstudy", "data", "results", "tests", "environment.yml", "README.md"}
TOOLS = {"pyproject.toml", "constraints.txt", "Makefile", "LICENSE", ".gitignore", ".ci"}


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_dependency_is_pinned_within_its_range():
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in constraints()}
    for requirement in map(Requirement, PROJECT["dependencies"] + EXTRAS):
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} is pinned to {version}"


def test_constraints_are_plain_pins():
    names = [canonicalize_name(pin.name) for pin in constraints()]
    assert len(names) == len(set(names))
    for pin in constraints():
        (clause,) = pin.specifier
        assert clause.operator == "==" and "+" not in clause.version and not pin.url and not pin.marker


def test_environment_yml_lists_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert pip["pip"] == ["-c constraints.txt", *PROJECT["dependencies"], *EXTRAS, "-e ."]
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])


def test_every_import_is_a_declared_dependency():
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    homes = packages_distributions() | {"dlib": ["dlib-bin"]}  # its wheel does not say so
    for path in (ROOT / "dragstudy").rglob("*.py"):
        for name in imported(path.read_text()) - set(sys.stdlib_module_names) - {"dragstudy"}:
            packages = {canonicalize_name(package) for package in homes.get(name, [name])}
            assert packages & declared, f"{path.name} imports {name}, which pyproject.toml does not name"


def imported(source):
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_top_level_holds_what_the_design_names():
    if git_state(ROOT)[0] is None:
        pytest.skip("not a git clone")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split("/")[0] for line in done.stdout.splitlines()} <= TOP_LEVEL | TOOLS


def test_the_check_of_a_clean_checkout_is_the_test_command():
    check = ROOT / ".ci" / "run"
    assert os.access(check, os.X_OK) and "make test" in check.read_text()


def test_licence_and_version():
    assert "Apache License" in (ROOT / "LICENSE").read_text() and PROJECT["license"] == "Apache-2.0"
    assert __version__.count(".") == 2


def test_the_public_names_are_found_lazily():
    import dragstudy
    from dragstudy.drags import DragInstruction

    assert dragstudy.DragInstruction is DragInstruction and {"load", "DragInstruction"} <= set(dir(dragstudy))
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = dragstudy.lode


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--output-format=concise", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
