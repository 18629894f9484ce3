"""Check the promises of nbps, on its own jobs or on a system of yours with the same worker API.

- `nbps.testing.consistency.history`: what workers added and read, and whether it keeps the promises (staleness bound,
  read-my-writes, ...); imported here, the rest only when asked for.
- `nbps.testing.consistency.probe`: a program of random reads and additions that records such a history.
- `nbps.testing.consistency.contract`: all of it as a test class to subclass in ten lines; needs pytest.
- `nbps.testing.consistency.model`, `nbps.testing.consistency.machine`: tables against a dict of integers; the latter
  needs Hypothesis.
- `nbps.testing.chaos.workers`: real jobs whose workers are stopped and killed; ``python -m nbps.testing`` runs many.
- `nbps.testing.consistency.interleave`: every interleaving of small kernels.
- `nbps.testing.transport.proxy`: a TCP proxy that delays, stalls, cuts and flips bits, between nodes.
- `nbps.testing.chaos.cluster`: the nodes of a job as processes: started, watched, stopped and killed.
"""

from nbps.testing.consistency.history import Add, History, Passed, Read, Torn, Violation, check

__all__ = ["Add", "History", "Passed", "Read", "Torn", "Violation", "check"]
