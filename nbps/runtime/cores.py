"""How many cores this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def quota_cores() -> float | None:
    """Return how many cores' time the container may use; None without a quota."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        words = _QUOTA.read_text().split()  # microseconds in each period (or "max"), and the period
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdecimal() else None


def usable_cores() -> int:
    """Return the number of cores this process may keep busy; at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = quota_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def own_cores(neighbours: int) -> int:
    """Return the number of cores that are there for one of `neighbours` nodes on this machine; at least 1.

    A process that is bound to some of the machine's cores has these for itself: launchers bind each node to its own.
    """
    bound = len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)
    return usable_cores() if bound else max(1, usable_cores() // neighbours)
