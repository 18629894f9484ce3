"""What ``ps`` calls the processes of a job."""

from __future__ import annotations

import ctypes
from pathlib import Path

_ARG_START, _ARG_END = 45, 46  # of the fields of /proc/self/stat behind the name: addresses of the arguments


def name_process(name: str) -> None:
    """Have this process called `name`, of which ``ps`` shows 15 letters, and ``ps aux`` all.

    The latter reads the arguments with which the program was started where they lie in memory; Python has its own copy.
    """
    Path("/proc/self/comm").write_text(name)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, size = int(fields[_ARG_START]), int(fields[_ARG_END]) - int(fields[_ARG_START])
    text = name.encode()
    if start and len(text) < size:  # zero where the kernel keeps addresses to itself
        ctypes.memset(start, 0, size)
        ctypes.memmove(start, text, len(text))
