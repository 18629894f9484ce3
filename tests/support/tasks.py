"""Functions that tests run in workers. Imports no pytest: workers import this file."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from nbps.core.worker import Group, Lowest


def probe(worker, clocks, names, sleep_s, wait=True, shift=0):
    """Add 1 to this worker's column of the probe row in each clock; return one (clock, reads by table) per clock.

    In every clock each table is read before and after the addition. `shift` plants a wrong staleness.
    """
    core = worker._clock.core
    core.terms = dataclasses.replace(core.terms, staleness=core.terms.staleness + shift)
    random = np.random.default_rng([worker.rank, clocks])
    one = np.zeros(worker.size, np.int64)
    one[worker.rank] = 1
    seen = []
    for clock in range(clocks):
        for name in names:
            table = worker.table(name)
            # An exclusive table has one writer per row: every worker has a probe row of its own there.
            exclusive = table.shape[0] == worker.size and worker.size > 1
            before = read(table, exclusive)
            table.inc(worker.rank if exclusive else 0, one)
            seen.append((name, clock, before, read(table, exclusive)))
        if sleep_s and random.random() < 0.5:
            time.sleep(random.random() * sleep_s)
        worker.clock(wait=wait)
    return seen


def read(table, exclusive):
    if exclusive:
        return table.get(np.arange(table.shape[0])).sum(axis=0)
    return table.get(0)


def violations(seen, rank, staleness):
    """Say what the probe's reads of one worker break of the guarantees; empty if nothing."""
    found = []
    last = {}
    for name, clock, before, after in seen:
        for row, own in ((before, clock), (after, clock + 1)):
            if row[rank] != own:
                found.append(f"{name}: own updates {row[rank]}, expected {own}, at clock {clock}")
            if (row < clock - staleness).any():
                found.append(f"{name}: {row} at clock {clock} misses updates from clocks < {clock - staleness}")
            if name in last and (row < last[name]).any():
                found.append(f"{name}: {row} after {last[name]}")
            last[name] = row
    return found


def drift(worker, clocks, sleep_s, wait):
    """Largest lead over the slowest worker that this one has seen right after a clock; it never reads."""
    random = np.random.default_rng(worker.rank)
    lead = 0
    for _ in range(clocks):
        if random.random() < 0.5:
            time.sleep(random.random() * sleep_s * worker.rank)
        worker.clock(wait=wait)
        lead = max(lead, worker.current_clock - slowest(worker))
    return lead


def slowest(worker):
    """Clock of the slowest worker, as the board says."""
    return worker._clock._lowest(Lowest(Group.COMMITTED))


def float_training(worker, clocks):
    """Additions of floats that depend on what was read before; returns the bytes of every read."""
    table = worker.table("items")
    ids = np.arange(table.shape[0])
    seen = b""
    for _ in range(clocks):
        rows = table.get(ids)
        seen += rows.tobytes()
        table.inc(ids, (0.1 * worker.random.standard_normal(rows.shape) - 0.3 * rows).astype(rows.dtype))
        if worker.random.random() < 0.3:
            time.sleep(0.002 * worker.random.random())
        worker.clock()
    return seen


def add_ones(worker, clocks, names, ids):
    """Add ones to `ids`, which may repeat, of every table."""
    for _ in range(clocks):
        for name in names:
            table = worker.table(name)
            table.inc(ids, np.ones((len(ids), table.shape[1]), table.dtype))
        worker.clock()


def first_rows(worker, clocks):
    """Return what a worker sees in clock 0, before anything was committed; the higher its rank, the later it starts."""
    time.sleep(0.02 * worker.rank)
    seen = worker.table("t").get(0)
    for _ in range(clocks):
        worker.table("t").inc(0, 1)
        worker.clock()
    return seen.tolist()


class LateError(Exception):
    """An error that needs two arguments, so that it pickles but does not load."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class RudeError(Exception):
    """An error that cannot even be printed."""

    def __str__(self):
        raise RuntimeError("no")


def fail(worker, rank, kind):
    """Worker `rank` fails in its third clock; the others would go on for good."""
    for clock in range(1_000_000):
        if worker.rank == rank and clock == 3:
            if kind == "late":
                raise LateError("first", "second")
            if kind == "rude":
                raise RudeError
            if kind == "exit":
                sys.exit(3)
            if kind == "interrupt":
                raise KeyboardInterrupt
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "forked":
                fork_and_die()
            if kind == "unpicklable":
                raise ValueError(threading.Lock())
            raise ZeroDivisionError("planted")
        worker.clock()


def fork_and_die():
    """End, while a child of this process keeps copies of its sockets for a while."""
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    os._exit(9)


def anonymous(worker):
    """Bytes of memory of this process's own, after a few clocks in which the first row was changed."""
    for _ in range(3):
        worker.table("t").inc(0, 1)
        worker.clock()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
