"""What `clock.py` times inside two workers: a clock that goes from one process to the other and back, clocks, sums."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from nbps.kernels.board import OPEN, gate, tick
from nbps.kernels.layout import committed
from nbps.memory.segments import attach

if TYPE_CHECKING:
    from nbps import Worker


@njit(nogil=True)
def play(board, mine, theirs, serve, first, rounds, spins):
    """Tick and wait for the other's answer, `rounds` times; who does not `serve` waits first."""
    for clock in range(first, first + rounds):
        if serve:
            tick(board, mine, 1, mine, clock)
        while gate(board, theirs, 1, clock, spins) != OPEN:
            pass
        if not serve:
            tick(board, mine, 1, mine, clock)


def round_trip_us(worker: Worker, board_name: str, rounds: int, spins: int) -> float:
    """Play on the board called `board_name` and return microseconds for each round trip."""
    board = attach(board_name).view(np.int64)
    mine, theirs = committed(worker.rank), committed(1 - worker.rank)
    serve = worker.rank == 0
    play(board, mine, theirs, serve, 1, 0, spins)  # compiles on the first call in this process
    first = int(board[mine]) + 1
    worker.barrier()
    start = time.perf_counter_ns()
    play(board, mine, theirs, serve, first, rounds, spins)
    return (time.perf_counter_ns() - start) / rounds / 1e3


def clock_us(worker: Worker, rounds: int) -> float:
    """Call ``worker.clock()`` and return microseconds for each call."""
    worker.barrier()
    start = time.perf_counter_ns()
    for _ in range(rounds):
        worker.clock()
    return (time.perf_counter_ns() - start) / rounds / 1e3


def sum_us(worker: Worker, value: Any, rounds: int) -> float:
    """Call ``worker.sum(value)`` and return microseconds for each call."""
    worker.barrier()
    start = time.perf_counter_ns()
    for _ in range(rounds):
        worker.sum(value)
    return (time.perf_counter_ns() - start) / rounds / 1e3
