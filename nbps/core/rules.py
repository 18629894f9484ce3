"""The inequalities of the papers, each in one place, and how many nodes there can be."""

from __future__ import annotations

import math

# Clock of a worker that holds nobody back any more. The core and the kernels know nothing of each other, so
# `nbps.kernels.layout` has this number too; a test holds them equal.
FINISHED = 2**63 - 1
NODES_LIMIT = 64  # a row knows which nodes must be told of it by a bit for each


def gate_target(clock: int, staleness: float) -> int:
    """Return the visible clock that a read at `clock` needs: every update from clocks < c - s (Ho et al., section 2).

    0 where nothing is needed; everybody has completed 0 clocks.
    """
    return clock - int(staleness) if staleness < clock else 0


def is_too_old(visible: int, clock: int, staleness: float) -> bool:
    """Tell whether a copy that holds all updates from clocks < `visible` may not be read at `clock`."""
    return visible < clock - staleness


def value_bound(v0: float, clock: int) -> float:
    """Return v_t = v0 / sqrt(t): what a worker that committed t clocks may have in transit (Dai et al., section 2)."""
    return v0 / math.sqrt(clock)


def is_checkpoint(clock: int, every: int) -> bool:
    """Tell whether tables are saved at `clock`; `every` is 0 for never."""
    return every > 0 and 0 < clock < FINISHED and clock % every == 0
