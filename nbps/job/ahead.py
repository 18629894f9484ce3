"""Starting ahead of a job what it would wait for: its fork server, with Numba and the kernels loaded."""

from __future__ import annotations

from collections.abc import Sequence

from nbps.job import remote
from nbps.runtime import forkserver
from nbps.runtime.descriptors import fill_standard_descriptors
from nbps.runtime.forkserver import Load


def load_ahead(tables: set[tuple[str, str, bool, bool]], bounded: bool, agents: int, more: Sequence[Load] = ()) -> None:
    """Have the fork server of this process load what a job will need; it is started if need be. Returns at once.

    Parameters
    ----------
    tables : set of (dtype, access, is_claimed, check_finite)
    bounded : bool
        Whether the job has a value bound (`VAP`).
    agents : int
        How many nodes it has; of a single one 0, unless it takes checkpoints.
    more : sequence of (callable, args)
        What else is to be called there: it loads what is compiled, and compiles nothing.
    """
    fill_standard_descriptors()
    server = forkserver.current()
    for load in [(remote.load, (tables, bounded, agents)), *more]:
        server.load(load)
