"""How many cores this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os

from nbps.cgroup import quota_cores


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
