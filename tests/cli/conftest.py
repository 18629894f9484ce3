"""Running the command as a user does: a process with arguments, streams and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbps.data import Ratings, generate_ratings

_COMMAND = [sys.executable, "-c", "from nbps.cli import app; app(prog_name='nbps')"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """Return what starts ``nbps``, installed or not."""
    return list(_COMMAND)


@pytest.fixture(scope="session")
def nbps() -> Run:
    """Run ``nbps`` with arguments; its output is wide, without colours, and must be free of tracebacks."""

    def run(*arguments: object, traceback: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*_COMMAND, *map(str, arguments)],
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ("Traceback" in done.stderr) == traceback, done.stderr
        return done

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
