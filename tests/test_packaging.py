"""What is installed is what is here: a wheel with all packages, typed, in one version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nbps

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_one_version():
    """The installed version, ``nbps.__version__`` and pyproject.toml agree."""
    assert nbps.__version__ == importlib.metadata.version("nbps") == PROJECT["project"]["version"]


def test_every_requirement_says_its_lowest_version():
    """Continuous integration tests with exactly these."""
    project = PROJECT["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement)


def test_every_folder_of_code_is_a_package_of_the_project():
    """pyproject.toml lists its packages one by one: none is missing."""
    folders = {folder: name for name, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()}
    found = set()
    for top, name in folders.items():
        for path in (ROOT / top).rglob("*.py"):
            inside = path.parent.relative_to(ROOT / top).parts
            found.add(".".join([name, *inside]))
    assert found <= set(PROJECT["tool"]["setuptools"]["packages"])


def test_a_wheel_holds_every_module_and_the_typing_marker(tmp_path):
    """Built without network: all source files, ``nbps/kernels`` and ``py.typed`` at their places, and it imports."""
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("building a wheel without network needs setuptools and pip here")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for folder in ("nbps", "kernels", "transport"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        tmp_path,
        source,
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode and "setuptools" in done.stderr and "invalid" in done.stderr.lower():
        pytest.skip("the setuptools here is too old for this project's metadata")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    expected = {"nbps/py.typed"}
    for folder, package in (("nbps", "nbps"), ("kernels", "nbps/kernels"), ("transport", "nbps/transport")):
        expected |= {f"{package}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert expected <= names
        assert not [name for name in names if name.startswith(("tests/", "bench/"))]
        archive.extractall(tmp_path / "installed")
    script = "import nbps, nbps.kernels.rows, nbps.runtime.group; print(nbps.__file__)"
    command = [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, sys.argv[1]); {script}",
        tmp_path / "installed",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert output.startswith(str(tmp_path / "installed"))
