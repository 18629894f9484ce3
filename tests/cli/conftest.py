"""Running the command: arguments, streams and an exit code; within the test, or as a process where that matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbps.cli import app
from nbps.data import Ratings, generate_ratings

_COMMAND = [sys.executable, "-m", "nbps"]
_PLAIN = {"NO_COLOR": "1", "COLUMNS": "200"}  # wide and without colours

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """Return what starts ``nbps``, installed or not."""
    return list(_COMMAND)


@pytest.fixture(scope="session")
def process() -> Run:
    """Run ``nbps`` as a process of its own; costs a second for its imports."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_COMMAND, *map(str, arguments)],
            env={**os.environ, **_PLAIN, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def nbps() -> Run:
    """Run ``nbps`` within the test; an exception that a user would see as a traceback fails the test."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        listed = list(map(str, arguments))
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for name, value in {**_PLAIN, **environment}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                app(listed, prog_name="nbps")
        return subprocess.CompletedProcess(listed, end.value.code, out.getvalue(), err.getvalue())

    return run


def _write(ratings: Ratings, path: Path) -> Path:
    """Write ratings as ``u.data``-like text."""
    users = ratings.user_ids.decode(ratings.users)
    items = ratings.item_ids.decode(ratings.items)
    rows = zip(users, items, ratings.values, strict=True)
    path.write_text("".join(f"{user}\t{item}\t{value:g}\n" for user, item, value in rows))
    return path


@pytest.fixture(scope="session")
def write() -> Callable[[Ratings, Path], Path]:
    """Return the function that writes ratings to a file."""
    return _write


@pytest.fixture(scope="session")
def data_file(tmp_path_factory) -> Path:
    """Return a file of ratings small enough to train on in an instant."""
    return _write(generate_ratings(300, 200, 6_000, rank=3), tmp_path_factory.mktemp("data") / "u.data")


@dataclass(frozen=True)
class Trained:
    """A model that a process trained and saved, and what it printed."""

    folder: Path
    done: subprocess.CompletedProcess[str]
    result: dict[str, Any]


@pytest.fixture(scope="session")
def trained(process, data_file, tmp_path_factory) -> Trained:
    """Train, print and save a model once for all tests."""
    folder = tmp_path_factory.mktemp("saved") / "deep" / "model"
    options = ["--epochs", 3, "--rank", 4, "--workers", 2, "--out", folder, "--json"]
    done = process("train", "mf", "--data", data_file, *options)
    assert done.returncode == 0, done.stderr
    return Trained(folder, done, json.loads(done.stdout))
