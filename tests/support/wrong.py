"""Workers with a planted mistake. Imports no pytest: workers import this file."""

from __future__ import annotations

import dataclasses
import time


def impatient(program, clocks, worker):
    """Run `program` with a gate that opens `clocks` too early; worker 0 begins late, so that it shows."""
    core = worker._clock.core
    core.terms = dataclasses.replace(core.terms, staleness=core.terms.staleness + clocks)
    if worker.rank == 0:
        time.sleep(0.2)
    return program(worker)
