"""Have the kernels that a job needs compiled before its workers are forked, by one process, once on a machine.

A kernel that is called compiles, or comes from the cache; called here, on arguments on which it ends at once, it also
spares the forked workers the 20 ms that Numba takes for a first call. Each file of kernels says in its `requests` what
is called in it from Python.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

from . import board, copies, presence, rows, shards
from .cache import cache_folder, compile_lock
from .jit import Request, argument_types, is_compiled
from .turns import loop

Kind = tuple[str, str, bool, bool]  # of a table: dtype, access, whether its rows are claimed, check_finite


def prepare(requests: Collection[Request]) -> None:
    """Have machine code for all `requests` in this process, compiling what the cache lacks.

    One process on the machine compiles, the others wait and load; it says so on stderr.
    """
    if not all(map(is_compiled, requests)):
        with compile_lock():
            missing = {(id(one[0]), argument_types(one)): one for one in requests if not is_compiled(one)}
            if missing:
                _compile(missing.values())
    for kernel, args in requests:
        kernel(*args)


def _compile(requests: Collection[Request]) -> None:
    how_often = "only once" if cache_folder() else "every time, as no folder for them can be used: see nbps doctor"
    print(f"nbps: compiling kernels for this machine ({how_often}) ...", file=sys.stderr, flush=True)  # noqa: T201
    start = time.perf_counter()
    for kernel, args in requests:
        kernel(*args)
    seconds = time.perf_counter() - start
    compiled = "1 kernel" if len(requests) == 1 else f"{len(requests)} kernels"
    print(f"nbps: compiled {compiled} in {seconds:.1f} s", file=sys.stderr, flush=True)  # noqa: T201


def prepare_job(tables: set[Kind], bounded: bool, agents: int) -> None:
    """Prepare the clock, with a value bound or without, tables, and what `agents` do: one for each node, or none."""
    prepare(_job_requests(tables, bounded, agents))


def load_job(tables: set[Kind], bounded: bool, agents: int) -> None:
    """Load what `prepare_job` prepares into this process, as far as it is compiled."""
    load(_job_requests(tables, bounded, agents))


def load(requests: Collection[Request]) -> None:
    """Load those of `requests` that are compiled into this process."""
    for request in requests:
        if is_compiled(request):
            kernel, args = request
            kernel(*args)


def _job_requests(tables: set[Kind], bounded: bool, agents: int) -> list[Request]:
    requests = board.requests(bounded)
    for dtype, access, is_claimed, check_finite in sorted(tables):
        requests += rows.requests(dtype, access, is_claimed, check_finite)
        if access == "cached":
            requests += copies.requests(dtype, is_claimed)
    if agents > 1:
        requests += loop.requests()
    if agents:
        requests += board.agent_requests() + presence.requests()
        for dtype, is_claimed in sorted({(dtype, is_claimed) for dtype, _, is_claimed, _ in tables}):
            requests += shards.requests(dtype, is_claimed)
    return requests
