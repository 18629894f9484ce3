"""Which kernels a job needs compiled before its workers are forked, and their compilation by one process, once."""

from __future__ import annotations

import hashlib
import sys
import time

from numba import types

from . import board, replica, rows
from .jit import cache_folder, compile_lock

Request = tuple  # (kernel, argument types)


def board_requests() -> list[Request]:
    """Kernels of the clock."""
    words = types.Array(types.int64, 1, "C")
    n = types.int64
    return [
        (board.tick, (words, n, n, n, n)),
        (board.gate, (words, n, n, n, n)),
        (board.lowest, (words, n, n)),
    ]


def table_requests(dtype: str, access: str) -> list[Request]:
    """Kernels that a table of `dtype` and access mode `access` uses when called from Python."""
    element = getattr(types, dtype)
    matrix, vector = types.Array(element, 2, "C"), types.Array(element, 1, "C")
    ids = types.Array(types.int64, 1, "C")
    table = types.NamedTuple((matrix, types.int64), rows.TableKernel)
    requests = [
        (rows.first_bad_id, (ids, types.int64)),
        (rows.get_rows, (table, ids, matrix)),
        (rows.inc_rows, (table, ids, matrix)),
    ]
    if access == "cached":
        requests += [
            (replica.flush, (matrix, matrix, matrix, types.int64, vector)),
            (replica.refresh, (matrix, matrix, matrix)),
        ]
    return requests


def prepare(requests: list[Request]) -> None:
    """Have machine code for all `requests` in this process, compiling what the cache lacks.

    One process on the machine compiles, the others wait and load; it says so on stderr.
    """
    key = hashlib.sha256(repr([(k.py_func.__qualname__, t) for k, t in requests]).encode()).hexdigest()[:16]
    ready = cache_folder() / f"ready-{key}"
    if ready.exists():
        _compile(requests)
        return
    with compile_lock():
        if not ready.exists():
            print("nbps: compiling kernels for this machine (only once) ...", file=sys.stderr, flush=True)  # noqa: T201
            start = time.perf_counter()
            _compile(requests)
            ready.touch()
            seconds = time.perf_counter() - start
            print(f"nbps: compiled {len(requests)} kernels in {seconds:.1f} s", file=sys.stderr, flush=True)  # noqa: T201
            return
    _compile(requests)


def prepare_job(tables: list[tuple[str, str]]) -> None:
    """Prepare the clock and tables given as (dtype, access)."""
    requests = board_requests()
    for dtype, access in sorted(set(tables)):
        requests += [request for request in table_requests(dtype, access) if request not in requests]
    prepare(requests)


def _compile(requests: list[Request]) -> None:
    for dispatcher, signature in requests:
        dispatcher.compile(signature)
