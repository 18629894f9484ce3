"""Which kernels a job needs compiled before its workers are forked, and their compilation by one process, once.

A request is a kernel with arguments on which it ends at once. Calling it compiles it for their types or loads it from
the cache, and spares the forked workers the 20 ms that Numba takes for a first call.
"""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any

import numba
import numpy as np

from . import board, presence, replica, rows, shards
from .jit import cache_folder, compile_lock
from .layout import board_words

Request = tuple[Any, tuple[Any, ...]]


def board_requests(bounded: bool) -> list[Request]:
    """Kernels of the clock; `bounded` is whether there is a value bound."""
    words, slots = np.zeros(board_words(1, bounded=True), np.int64), np.zeros(1, np.int64)
    always = [
        (board.tick, (words, 0, 1, 0, 0)),
        (board.gate, (words, 0, 1, 0, 0)),
        (board.lowest_other, (words, 0, 1, 0)),
    ]
    if not bounded:
        return always
    return [
        *always,
        (board.poll, (words, 0, 1, 0, 0, 0, 0, 1, 1, 0, -1)),
        (board.snapshot, (words, 0, 1, slots)),
        (board.publish_seen, (words, 0, 1, 1, 0, slots)),
    ]


def table_requests(dtype: str, access: str, check_finite: bool) -> list[Request]:
    """Kernels that a table uses when called from Python."""
    values, deltas, ids = np.zeros((2, 4), dtype), np.zeros((1, 4), dtype), np.zeros(1, np.int64)
    table = rows.TableKernel(values, 0)
    requests: list[Request] = [
        (rows.first_bad_id, (ids, 2)),
        (rows.get_rows, (table, ids, deltas)),
        (rows.inc_rows, (table, ids, deltas)),
    ]
    if check_finite:
        requests.append((rows.first_not_finite, (deltas,)))
    if access == "exclusive":
        requests.append((rows.put_rows, (table, ids, deltas)))
    if access == "cached":
        requests.append((replica.flush, (values, values, values, rows.NOBODY_LOOKS, 0, deltas[0], np.zeros(0))))
        requests.append((replica.refresh, (values, values, values)))
    return requests


def prepare(requests: list[Request]) -> None:
    """Have machine code for all `requests` in this process, compiling what the cache lacks.

    One process on the machine compiles, the others wait and load; it says so on stderr.
    """
    wanted = sorted({f"{kernel.py_func.__qualname__}{[numba.typeof(a) for a in args]}" for kernel, args in requests})
    ready = cache_folder() / f"ready-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]}"
    if ready.exists():
        _call(requests)
        return
    with compile_lock():
        if ready.exists():
            _call(requests)
            return
        print("nbps: compiling kernels for this machine (only once) ...", file=sys.stderr, flush=True)  # noqa: T201
        start = time.perf_counter()
        _call(requests)
        ready.touch()
        seconds = time.perf_counter() - start
        print(f"nbps: compiled {len(wanted)} kernels in {seconds:.1f} s", file=sys.stderr, flush=True)  # noqa: T201


def agent_requests(dtype: str) -> list[Request]:
    """Kernels with which an agent exchanges rows of a table."""
    values, marks, bits, none = (
        np.zeros((2, 4), dtype),
        np.zeros(8, np.uint8),
        np.zeros(2, np.uint64),
        np.zeros(0, np.int64),
    )
    node, eights, batch = np.uint64(1), marks.view(np.int64), np.zeros(0, np.uint8)
    ids, rows_ = batch.view(np.int64), batch.view(dtype).reshape(0, 4)  # as they lie in a batch
    return [
        (shards.take_marked, (marks, eights, marks, 0, 0, 0, none)),
        (shards.take_marks_of, (marks, none, none)),
        (shards.take_differences, (values, values, none, ids, rows_)),
        (shards.weigh_marked, (marks, values, values, none, none, np.zeros(0))),
        (shards.take_values, (values, values, none, ids, rows_)),
        (shards.overwrite_rows, (values, ids, rows_)),
        (shards.install_unchanged, (values, values, ids, rows_)),
        (shards.read_differences, (values, values, none, values)),
        (shards.add_to_base, (values, none, values)),
        (shards.apply_rows, (values, ids, rows_)),
        *((shards.add_pending, (bits, bits, which, node)) for which in (none, ids)),
        (shards.take_pending, (bits, bits, bits, node, False, none)),
        (shards.subscribe, (bits, ids, node)),
        (shards.unsubscribe, (bits, ids, node)),
        (shards.copy_rows, (values, ids, rows_)),
        (shards.merge_common, (ids, rows_, ids, rows_, False)),
        (shards.install_rows, (values, values, ids, rows_)),
        (shards.first_foreign_id, (ids, marks, 0)),
    ]


def presence_requests() -> list[Request]:
    """Kernels that fetch rows of other nodes, and let go of them."""
    words, states, none = np.zeros(board_words(2, bounded=True), np.int64), np.zeros(8, np.uint8), np.zeros(0, np.int64)
    ids = np.zeros(0, np.uint8).view(np.int64)
    return [
        (presence.want_rows, (words, states, none)),
        (presence.await_rows, (words, states, none, 0)),
        (presence.take_wanted, (states, states.view(np.int64), states, 0, 0, 0, none)),
        (presence.make_present, (states, ids)),
        (presence.take_unused, (states, none, none)),
    ]


def agent_board_requests() -> list[Request]:
    """Kernels with which workers wake an agent, and it looks at their clocks."""
    words, survey = np.zeros(board_words(2, bounded=True), np.int64), np.zeros(6, np.int64)
    return [
        (board.ring, (words,)),
        (board.publish, (words, 0, 0)),
        (board.survey, (words, 1, 2, survey)),
        (board.differs, (words, 1, 2, survey, survey)),
        (board.doze, (words, 1, 2, survey, survey)),
    ]


def prepare_job(tables: set[tuple[str, str, bool]], bounded: bool, agent: bool) -> None:
    """Prepare the clock, with a value bound or without, and tables given as (dtype, access, check_finite).

    With `agent` what exchanges them with other nodes, too.
    """
    requests = board_requests(bounded) + [request for table in sorted(tables) for request in table_requests(*table)]
    if agent:
        requests += agent_board_requests() + presence_requests()
        requests += [request for dtype in sorted({table[0] for table in tables}) for request in agent_requests(dtype)]
    prepare(requests)


def _call(requests: list[Request]) -> None:
    for kernel, args in requests:
        kernel(*args)
