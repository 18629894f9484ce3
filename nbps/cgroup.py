"""What the container of this process, its control group, lets it have: cores and memory. Without one: no limits."""

from __future__ import annotations

import contextlib
from pathlib import Path

_FOLDER = Path("/sys/fs/cgroup")


def quota_cores() -> float | None:
    """Return how many cores' time the container may use; None without a quota."""
    words = _read("cpu.max").split()  # microseconds in each period (or "max"), and the period
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdecimal() else None


def memory_limit() -> int | None:
    """Return how many bytes of memory the container may have; None without a limit."""
    word = _read("memory.max").strip()
    return int(word) if word.isdecimal() else None


def memory_left() -> int | None:
    """Return how many bytes of memory the container can still get; None without a limit."""
    limit, used = memory_limit(), _read("memory.current").strip()
    if limit is None or not used.isdecimal():
        return None
    counted = dict(line.split() for line in _read("memory.stat").splitlines())
    return limit - int(used) + int(counted.get("inactive_file", 0))  # of files: given back when it is wanted


def _read(name: str) -> str:
    with contextlib.suppress(OSError):
        return (_FOLDER / name).read_text()
    return ""
