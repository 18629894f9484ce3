"""Which kernels a job needs compiled before its workers are forked, and their compilation by one process, once."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any

import numpy as np
from numba import types
from numba.np import numpy_support

from . import board, mf, replica, rows
from .jit import cache_folder, compile_lock
from .mf_layout import LANES

Request = tuple[Any, tuple[types.Type, ...]]  # kernel, argument types


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


def factorization_requests(access: str) -> list[Request]:
    """Kernels that workers use to factorize a matrix whose item tables have access mode `access`."""

    def array(element, dimensions, constant=False):
        return types.Array(element, dimensions, "C", readonly=constant)

    f32, matrix = types.float32, array(types.float32, 2)
    ratings, decay = array(f32, 1, True), array(f32, 1, True)
    starts, indices = array(types.int64, 1, True), array(types.int32, 1, True)
    side = (matrix, matrix, decay)
    block = (starts, indices, ratings, *side, *side, array(f32, 1), f32, f32)
    lossless = access == "direct"
    return [
        (mf.sgd_block_lossless, (*block, array(f32, 1))) if lossless else (mf.sgd_block, block),
        (mf.squared_error, (starts, starts, ratings, matrix, matrix, matrix, matrix)),
    ]


def prepare_factorization(access: str) -> None:
    """Prepare the kernels of a factorization's workers."""
    prepare(factorization_requests(access))


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
    """Compile or load each kernel and call it once: Numba's first call costs 20 ms, which the fork then saves."""
    for dispatcher, signature in requests:
        dispatcher.compile(signature)
        dispatcher(*map(_nothing, signature))


def _nothing(kind: types.Type) -> Any:
    """Return an argument of type `kind` with which every kernel ends at once."""
    if isinstance(kind, types.NamedTuple):
        return kind.instance_class(*map(_nothing, kind.types))
    if not isinstance(kind, types.Array):
        return numpy_support.as_dtype(kind).type(0)
    zeros = np.zeros((64, LANES)[: kind.ndim], numpy_support.as_dtype(kind.dtype))
    zeros.flags.writeable = kind.mutable
    return zeros
