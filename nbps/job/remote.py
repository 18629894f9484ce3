"""What the driver has its fork server, supervisor and workers do.

Free of Numba: the driver imports it to name these functions.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nbps.errors import ConfigError
from nbps.runtime.child import leave_to_driver

if TYPE_CHECKING:
    from nbps.job.worker import Worker
    from nbps.job.worker_spec import WorkerSpec

_worker: Worker | None = None  # the one worker of this process


def load(tables: set[tuple[str, str, bool, bool]], bounded: bool, agents: int) -> None:
    """Import what workers, and agents if any, need, and load kernels that are compiled; in the fork server."""
    import nbps.job.worker
    from nbps.kernels.prepare import load_job

    if agents:
        import nbps.agent.process  # noqa: F401
    load_job(tables, bounded, agents)


def prepare(tables: set[tuple[str, str, bool, bool]], bounded: bool, agents: int) -> None:
    """As `load`, and compile kernels where that is needed; in the supervisor."""
    import numba

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise ConfigError(
            "NUMBA_DISABLE_JIT is set; plain Python loses updates between processes: unset it to run a job"
        )
    import nbps.job.worker
    from nbps.kernels.prepare import prepare_job

    prepare_job(tables, bounded, agents)
    if agents:
        import nbps.agent.process  # noqa: F401


def open_worker(rank: int, spec: WorkerSpec) -> None:
    """Attach this process to the job, or do it again with other terms; what the user's function keeps stays."""
    global _worker
    from nbps.job.worker import Worker

    if spec.checkpoint_every > 0 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave_to_driver)  # a job that is told to end takes a checkpoint first
    _worker = Worker(spec, rank, _worker)
    _seed_global_generators(spec.seed, _worker.rank)


def _seed_global_generators(seed: int, rank: int) -> None:
    """Seed what libraries draw from unasked: forked workers would all draw the same from NumPy's."""
    words = np.random.SeedSequence([seed, rank]).generate_state(8)
    np.random.seed(words)  # noqa: NPY002  (libraries use it)
    random.seed(words.tobytes())


def run(rank: int, clock: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry out one `Job.run`, which starts at `clock`, in this worker."""
    assert _worker is not None
    _worker._begin(clock)
    result = function(_worker, *args, **kwargs)
    _worker._finish()
    return result
