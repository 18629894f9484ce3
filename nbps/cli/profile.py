"""``--profile``: where the seconds of a command went, from the start of its process."""

from __future__ import annotations

import os
import time
from pathlib import Path

_WORDS = {
    "imports": "Python, and importing what the command needs",
    "read": "the data from its file, or generating it",
    "ids": "to codes",
    "split": "into data to train on and to test on",
    "schedule": "checks, first values, data to the workers that sort it",
    "start": "of the workers, beside reading; what is left of it",
    "train": "",
    "evaluate": "on the test data",
    "checkpoint": "after each epoch",
    "save": "the model",
    "other": "",
}


def seconds_since_start() -> float:
    """Return how long this process has been running, to a hundredth."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def profile(phases: dict[str, float]) -> dict[str, float]:
    """Return the seconds of all phases in their usual order, what is left of the process' time, and the total."""
    total = seconds_since_start()
    ordered = {name: phases[name] for name in sorted(phases, key=list(_WORDS).index)}
    return {**ordered, "other": max(0.0, total - sum(phases.values())), "total": total}


def rows(found: dict[str, float]) -> list[tuple[str, str]]:
    """Return what `profile` found as two columns."""
    total = found["total"]
    return [
        (name, f"{seconds:7.3f} s {seconds / total:6.1%}  {_WORDS.get(name, '')}".rstrip())
        for name, seconds in found.items()
    ]
