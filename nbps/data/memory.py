"""Whether data fit the memory that is free, asked before anything large is allocated.

Otherwise the system would end a process at some later moment, without a word.
"""

from __future__ import annotations

import resource
from pathlib import Path

from nbps.cgroup import memory_left
from nbps.errors import OutOfMemoryError


def free_bytes() -> int:
    """Return how much memory this process can still get: of the machine, of its container, of its own limit."""
    free = [1024 * _numbers(Path("/proc/meminfo"))["MemAvailable:"]]
    if (left := memory_left()) is not None:
        free.append(left)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        free.append(soft - 1024 * _numbers(Path("/proc/self/status"))["VmSize:"])
    return max(0, min(free))


def check_fits(what: str, needed_bytes: int) -> None:
    """Raise `OutOfMemoryError` if `what` needs more memory than is free."""
    free = free_bytes()
    if needed_bytes > free:
        raise OutOfMemoryError(
            f"{what} at least {needed_bytes:,} bytes of memory; free are {free:,}. End other programs, raise the limit "
            f"of the container or of the process (ulimit -v), use a larger machine, or a part of the data"
        )


def _numbers(path: Path) -> dict[str, int]:
    """Return the first number of each line of a file by its first word."""
    words = (line.split() for line in path.read_text().splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
