"""What nodes run in the tests of attacks: ``attacked_nodes.py <which> [arguments]``. Imports no pytest."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np

import nbps
from nbps.errors import NodeError, TableError

RANK = int(os.environ.get("NBPS_NODE_RANK", "0"))
LOST_S = 2.0  # failure_timeout_s of these jobs
ROWS = 300


def say(*words):
    """Write a line at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def count(worker, clocks, stop=""):
    """Add 1 in each clock, at least `clocks` of them, until file `stop` is there; return how many."""
    table = worker.table("t")
    while worker.current_clock < clocks or (stop and not Path(stop).exists()):
        table.inc(worker.rank, 1)
        worker.clock()
        if worker.current_clock == 5:
            say("going")
        time.sleep(0.004)
    return worker.current_clock


def job(**options):
    """Return a job that counts and notices lost nodes soon."""
    return nbps.Job([nbps.Table("t", 4, 1, dtype="int64")], workers=1, failure_timeout_s=LOST_S, **options)


def exact(running, clocks):
    """Say whether this node's table has what its own worker has added, to the bit."""
    say("exact" if running.table("t").to_numpy()[RANK, 0] == clocks else running.table("t").to_numpy().tolist())


def steady(stop):
    """Count until told to stop."""
    with job() as running:
        [clocks] = running.run(count, 10, stop)
        exact(running, clocks)


def compressed():
    """Send the larger part of all rows to a node that owns them: a batch is longer than the rows themselves."""
    tables = [nbps.Table("t", ROWS, 32, compress=0.9, sharding=[ROWS]), nbps.Table("few", 4, 1, dtype="int64")]

    def learn(worker):
        random = np.random.default_rng(worker.rank)
        for _ in range(5):
            worker.table("t").inc(range(ROWS), random.normal(size=(ROWS, 32)).astype("float32"))
            worker.clock()

    with nbps.Job(tables, workers=1, failure_timeout_s=LOST_S) as running:
        running.run(learn)
        say("ends with", zlib.crc32(running.table("t").to_numpy().tobytes()))


def broken_agent():
    """Have the agent of node 0 fail after a while."""

    def plant():
        from nbps.agent import memory

        apply, calls = memory.NodeMemory.apply, itertools.count()

        def fail(*arguments):
            if next(calls) > 20:
                raise MemoryError("planted")
            apply(*arguments)

        if RANK == 0:
            memory.NodeMemory.apply = fail

    try:
        # It would wait for ever for a node that does not say why it went.
        with job(preload=plant, on_failure="wait") as running:
            running.run(count, 10**9)
    except Exception as error:
        say(f"{type(error).__name__}: {error}")


def slow_disk(path):
    """Save more often than the disk of node 1 can write, which takes longer than a node may be silent."""

    def plant():
        from nbps.checkpoint import writer as checkpoint

        write = checkpoint.CheckpointWriter.write

        def wait(*arguments):
            say("slow")
            time.sleep(1.5 * LOST_S)
            write(*arguments)

        if RANK == 1:
            checkpoint.CheckpointWriter.write = wait

    with job(preload=plant, checkpoints=nbps.Checkpoints(path, every=10)) as running:
        [clocks] = running.run(count, 45)
        exact(running, clocks)


def full_disk(path):
    """Save more often than node 0 gets the parts of node 1, whose disk is full."""

    def plant():
        from nbps.checkpoint import writer as checkpoint
        from nbps.errors import CheckpointError

        def fail(*arguments):
            time.sleep(0.5)  # by now node 0 waits as well
            raise CheckpointError("planted: the disk is full")

        if RANK == 1:
            checkpoint.CheckpointWriter.write = fail

    with job(preload=plant, checkpoints=nbps.Checkpoints(path, every=1)) as running:
        try:
            running.run(count, 10**9)
        except nbps.errors.CheckpointError as error:
            say(f"CheckpointError: {error}")


def other_plans(path):
    """Save at other clocks on each node."""
    try:
        with job(checkpoints=nbps.Checkpoints(path, every=10 + RANK)):
            say("started")
    except NodeError as error:
        say(error)


def sweep():
    """Try two settings, of which the first fails on node 1 before the nodes have met."""

    def fill(values, random):
        if RANK == 1:
            raise ZeroDivisionError("planted")

    def which(worker, name):
        worker.table("t").inc(0, len(name))
        worker.clock()

    for name, init, patience_s in (("first", fill, 4.0), ("the second", 0.0, 60.0)):
        table = nbps.Table("t", 2, 1, dtype="int64", init=init)
        try:
            with nbps.Job([table], workers=1, start_timeout_s=patience_s) as running:
                running.run(which, name)
                say(name, "has", int(running.table("t").to_numpy()[0, 0]))
        except (NodeError, ZeroDivisionError) as error:
            say(f"{name}: {type(error).__name__}")


def given_up(path):
    """Go on from checkpoints without a lost node."""
    with (
        contextlib.suppress(NodeError),
        job(on_failure="continue", checkpoints=nbps.Checkpoints(path, every=10)) as running,
    ):
        try:
            say("counted", *running.run(count, 800))
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
            raise


def marks():
    """Mark rows that are not there."""

    def try_all(worker):
        refused = 0
        for first, last in ((0, 10_000_000), (-1, 2), (3, 2), (0, 5), (0, 2.5)):
            try:
                worker.table("t").mark(first, last)
            except TableError:
                refused += 1
        worker.table("t").mark(0, 4)
        worker.clock()
        return refused

    with job() as running:
        say("refused", *running.run(try_all))


ONE_AFTER_THE_OTHER = {
    "compressed": compressed,
    "broken agent": broken_agent,
    "slow disk": slow_disk,
    "full disk": full_disk,
    "other plans": other_plans,
    "sweep": sweep,
    "marks": marks,
}


def all_that_end(folder):
    """Carry out the programs that end by themselves, each after a line with its name."""
    for name, program in ONE_AFTER_THE_OTHER.items():
        say(f"== {name}")
        try:
            program(*[f"{folder}/{name}"] * program.__code__.co_argcount)
        except Exception as error:
            say(f"raised {type(error).__name__}: {error}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
