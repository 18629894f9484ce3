"""Programs with mounts of their own: small or full disks, and a ``/dev/shm`` that no other job of the machine uses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def disk(folder: str | Path, options: str) -> str:
    """Return what puts an empty disk in the place of a folder."""
    return f"mount -t tmpfs -o {options} none '{folder}'"


def read_only(folder: str | Path) -> str:
    """Return what keeps a folder from being written to; what runs may lie there."""
    return f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"


def mounted(*mounts: str) -> tuple[str, ...]:
    """Return what runs a command with mounts of its own; skips the test where that is not allowed."""
    mount = " && ".join(mounts)
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("mounting a disk of one's own needs root and unshare")
    return "unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"
