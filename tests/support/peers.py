"""What other processes do in tests of shared memory: run as a script with a segment, and a task for each of them.

Importing Numba takes half a second, so one process imports for all, and each of them is a fork of it.

Words 0 to 7 of the segment are for the test itself (word 0: go; word 1 + n: peer n is ready), the rest is the task's.
Only kernels that nbps itself caches are called: compiling more in every peer would take longer than the tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback

import numpy as np

from nbps.kernels import board, layout, rows
from nbps.kernels.claim_layout import CAPACITY, claims_bytes
from nbps.kernels.claims import Aside
from nbps.memory.segments import attach

WORDS = 8
CLAIMED = 2  # instead of `atomic`: rows are claimed; the claims are the end of the segment


def announce(memory, number):
    """Say that this process has loaded what it needs, and wait until the test says go."""
    words = memory[: 8 * WORDS].view(np.int64)
    words[1 + number] = 1
    while words[0] == 0:
        pass


def add(memory, number, dtype, height, width, offset, atomic, rounds, threads):
    """Add rows of ones to all rows of a table, `rounds` times in each of `threads` threads."""
    item = np.dtype(dtype).itemsize
    start = 8 * WORDS + offset * item
    values = memory[start : start + height * width * item].view(dtype).reshape(height, width)
    claims = memory[-claims_bytes(height) :]
    # A thread that claims rows has a buffer of its own, as a worker has.
    asides = [Aside(values, claims, rows.NOBODY_LOOKS, number * threads + n, CAPACITY) for n in range(threads)]
    tables = [
        rows.claimed_table(values, rows.NOBODY_LOOKS, aside) if atomic == CLAIMED else rows.TableKernel(values, atomic)
        for aside in asides
    ]
    rows.inc_rows(tables[0], np.empty(0, np.int64), np.empty((0, width), dtype))
    together = threading.Barrier(threads)

    def work(first):
        ids = (first + np.arange(rounds)) % height
        deltas = np.ones((rounds, width), dtype)
        together.wait()
        rows.inc_rows(tables[first], ids, deltas)
        while atomic == CLAIMED and asides[first].retry() > 0:
            pass

    announce(memory, number)
    running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def ping(memory, slot, rounds, spins, pauses):
    """Tick one of two slots and wait for the other, in turns; sleep now and then where `pauses` is 1."""
    clocks = memory[8 * WORDS :].view(np.int64)
    first = layout.committed(0)
    mine = first + slot * board.LINE
    random = np.random.default_rng(slot)
    board.gate(clocks, first, 2, 0, 0)
    announce(memory, slot)
    for clock in range(1, rounds + 1):
        if pauses and random.random() < 0.2:
            time.sleep(random.random() * 0.002)
        board.tick(clocks, first, 2, mine, clock)
        while board.gate(clocks, first, 2, clock, spins) != board.OPEN:
            pass


def exchange(memory, rank, rounds, spins, pauses):
    """Commit a clock and wait until both others have taken it in, taking in theirs; sleep now and then."""
    words = memory[8 * WORDS :].view(np.int64)
    committed, seen = layout.committed(0), layout.seen(3, 0, 0)
    slot, about_me = layout.committed(rank), layout.seen(3, rank, 0)
    random, taken = np.random.default_rng(rank), np.zeros(3, np.int64)
    announce(memory, rank)
    for clock in range(1, rounds + 1):
        if pauses and random.random() < 0.2:
            time.sleep(random.random() * 0.002)
        board.tick(words, slot, 1, slot, clock)
        while board.poll(words, about_me, 3, clock, spins, committed, seen, 3, 3, rank, -1) != board.OPEN:
            board.snapshot(words, committed, 3, taken)
            board.publish_seen(words, seen, 3, 3, rank, taken)
    # The others may still wait for this one to take in their last clocks.
    while board.poll(words, committed, 3, rounds, spins, committed, seen, 3, 3, rank, -1) != board.OPEN:
        board.snapshot(words, committed, 3, taken)
        board.publish_seen(words, seen, 3, 3, rank, taken)
    board.snapshot(words, committed, 3, taken)
    board.publish_seen(words, seen, 3, 3, rank, taken)


def wait_for_abort(memory, number):
    """Park at a gate that never opens."""
    clocks = memory[8 * WORDS :].view(np.int64)
    board.gate(clocks, layout.committed(0), 2, 0, 0)
    announce(memory, number)
    status = board.TIMED_OUT
    while status == board.TIMED_OUT:
        status = board.gate(clocks, layout.committed(0), 2, 1, 0)
    assert status == board.ABORTED


def fork(memory, number, task, *arguments):
    """Carry out a task in a process of its own."""
    if os.fork() == 0:
        status = 1
        try:
            globals()[task](memory, number, *arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


if __name__ == "__main__":
    segment, *tasks = sys.argv[1:]
    for number, words in enumerate(map(json.loads, tasks)):
        fork(attach(segment), number, *words)
    for _ in tasks:
        if os.wait()[1]:
            os.killpg(0, signal.SIGKILL)  # the others would wait for it
