"""Where the time of a training goes: seconds by phase."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping


class Phases:
    """Seconds of the phases of one piece of work; what is timed twice adds up, and nothing is timed inside another.

    Attributes
    ----------
    seconds : dict of str to float
        By phase, in the order in which they ended first.

    Examples
    --------
    >>> phases = Phases()
    >>> with phases("sleep"):
    ...     pass
    >>> phases.add({"sleep": 2.0, "work": 1.0})
    >>> list(phases.seconds), phases.seconds["sleep"] >= 2
    (['sleep', 'work'], True)
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time what is done inside ``with`` as part of `phase`, also where it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({phase: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was timed elsewhere."""
        for phase, more in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + more
