"""What is installed: its metadata, its size, the one symbol it exports, its stubs, and the README's
code."""

import doctest
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pyconv
from pyconv import _core

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(pyconv.__file__).parent
EXTENSION = Path(_core.__file__)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def installed() -> importlib.metadata.Distribution | None:
    """Return the metadata of the installed pyconv; a build that is only on the path has none."""
    try:
        return importlib.metadata.distribution("pyconv")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_release() -> bool:
    """Tell whether the extension was built as for a release: a debugging build is neither small nor
    stripped."""
    return (
        "no symbols"
        in subprocess.run(["nm", str(EXTENSION)], capture_output=True, text=True, check=True).stderr
    )


def test_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", pyconv.__version__)
    assert "version" not in PROJECT
    assert f"## {pyconv.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = installed()
    assert found is None or found.version == pyconv.__version__


def test_numpy_is_the_only_dependency() -> None:
    assert [re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]] == ["numpy"]
    found = installed()
    if found is not None:
        plain = [line for line in found.requires if "extra ==" not in line]
        assert [re.match(r"[\w-]+", line)[0] for line in plain] == ["numpy"]
        assert found.metadata["License-Expression"] == "BSD-3-Clause"
        assert found.metadata["Requires-Python"] == ">=3.11"


def test_extras_do_not_bring_torch() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {"test", "demo", "viz", "dev"} <= set(extras)
    assert not [line for lines in extras.values() for line in lines if "torch" in line]


def test_import_brings_numpy_alone() -> None:
    program = (
        "import sys, numpy; before = set(sys.modules); import pyconv;"
        "print({name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    brought = {name.strip("'{}\n") for name in done.stdout.split(", ")}
    assert brought - set(sys.stdlib_module_names) == {"pyconv"}


def test_one_symbol_is_exported() -> None:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(EXTENSION)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PyInit__core"]


def test_sizes() -> None:
    files = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    total = sum(path.stat().st_size for path in files if path.is_file())
    if is_release():
        assert EXTENSION.stat().st_size < 1.2e6
        assert total < 2e6
    assert total > EXTENSION.stat().st_size


def test_typing_files_are_installed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_stubs_agree_with_the_extension(tmp_path: Path) -> None:
    """`mypy.stubtest` compares names, signatures and defaults with what the extension has."""
    # Which C types cannot be bases together is no part of the interface.
    options = ["--concise", "--ignore-disjoint-bases"]
    command = [sys.executable, "-m", "mypy.stubtest", *options, "pyconv._core"]
    # An installed package mypy finds by itself; the sources of an editable one it is told.
    installed = "site-packages" in PACKAGE.parts
    env = os.environ if installed else os.environ | {"MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(env)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_in_the_readme_runs() -> None:
    failed, attempted = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert (failed, attempted > 10) == (0, True)


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
