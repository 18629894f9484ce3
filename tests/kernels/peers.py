"""What a second process does in tests of shared memory: run as a script with a task and the name of a segment.

Words 0 to 7 of the segment are for the test itself (word 0: how many peers are ready, word 1: go), the rest
is the task's.
"""

from __future__ import annotations

import sys
import threading
import time

import numba
import numpy as np
from nbps.kernels import atomics, board, rows

from nbps.runtime.segments import attach

WORDS = 8


@numba.njit(nogil=True)
def announce(words):
    """Say that this process has compiled what it needs, and wait until the test says go."""
    atomics.fetch_add(words, 0, 1)
    while atomics.load_acquire(words, 1) == 0:
        atomics.pause()


@numba.njit(nogil=True)
def add_many(table, delta, rounds, first):
    for n in range(rounds):
        rows.inc_row(table, (first + n) % table.values.shape[0], delta)


def add(memory, dtype, height, width, offset, atomic, rounds, threads):
    """Add a row of ones to each row of a table, `rounds` times in each of `threads` threads."""
    start = 8 * WORDS + int(offset) * np.dtype(dtype).itemsize
    size = int(height) * int(width)
    values = memory[start:].view(np.uint8)[: size * np.dtype(dtype).itemsize].view(dtype)
    table = rows.TableKernel(values.reshape(int(height), int(width)), int(atomic))
    delta = np.ones(int(width), dtype)
    add_many(table, delta, 0, 0)

    def work(first):
        announce(memory[: 8 * WORDS].view(np.int64))
        add_many(table, delta, int(rounds), first)

    running = [threading.Thread(target=work, args=(n,)) for n in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def ping(memory, slot, rounds, spins, pauses):
    """Tick one of two slots and wait for the other, in turns; sleep now and then where `pauses` is 1."""
    words = memory[: 8 * WORDS].view(np.int64)
    clocks = memory[8 * WORDS :].view(np.int64)
    first = 2 * board.LINE
    mine = first + int(slot) * board.LINE
    random = np.random.default_rng(int(slot))
    board.gate(clocks, first, 2, 0, 0)
    announce(words)
    for clock in range(1, int(rounds) + 1):
        if int(pauses) and random.random() < 0.2:
            time.sleep(random.random() * 0.002)
        board.tick(clocks, first, 2, mine, clock)
        while board.gate(clocks, first, 2, clock, int(spins)) != board.OPEN:
            pass


def wait_for_abort(memory):
    """Park at a gate that never opens; the exit status says why the wait ended."""
    clocks = memory[8 * WORDS :].view(np.int64)
    board.gate(clocks, 2 * board.LINE, 2, 0, 0)
    announce(memory[: 8 * WORDS].view(np.int64))
    status = board.TIMED_OUT
    while status == board.TIMED_OUT:
        status = board.gate(clocks, 2 * board.LINE, 2, 1, 0)
    sys.exit(0 if status == board.ABORTED else 1)


if __name__ == "__main__":
    task, segment, *arguments = sys.argv[1:]
    globals()[task](attach(segment), *arguments)
