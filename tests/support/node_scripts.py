"""What nodes do in the tests of endings and failures: ``node_scripts.py <which> [arguments]``, run on every node.

There is no ``if __name__ == "__main__"`` guard, on purpose: workers never run this file again.
"""

import functools
import os
import sys
import time

import numpy as np

import nbps

RANK = int(os.environ["NBPS_NODE_RANK"])
TABLES = [
    nbps.Table("t", 6, 6, dtype="int64"),
    nbps.Table("copy", 6, 6, dtype="int64", access="cached", sharding="hash"),
]
TIMEOUT_S = 5.0
FOREVER = 10**9  # clocks: slower ones, which leave the cores to others


def say(*words):
    """Write a line at once, whole also among several processes."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def count(worker, clocks, speaks=True):
    """Add 1 to this worker's column of every row in each clock; say so at the fifth."""
    one = np.zeros(6, np.int64)
    one[worker.rank] = 1
    while worker.current_clock < clocks:
        for name in ("t", "copy"):
            worker.table(name).inc(range(6), np.broadcast_to(one, (6, 6)))
        worker.clock()
        if worker.current_clock == 5 and speaks:
            say("worker", worker.rank, "of", worker.size, "going", os.getpid())
        time.sleep(0.005 if clocks == FOREVER else 0.001)
    return worker.current_clock


def sums(job):
    """Return the columns' counts, if all rows of all tables hold the same."""
    (found,) = {tuple(row) for table in ("t", "copy") for row in job.table(table).to_numpy().tolist()}
    return found


def job(workers=1, **options):
    """Return a job that notices lost nodes soon."""
    return nbps.Job(TABLES, workers=workers, **{"failure_timeout_s": TIMEOUT_S, "clock_timeout_s": 60.0, **options})


class Slow:
    """Takes long to be pickled."""

    def __reduce__(self):
        time.sleep(1)
        return str, ("result",)


def forever(workers="1", timeout_s=TIMEOUT_S):
    """Clock until something happens; say afterwards that the tables can still be read."""
    with job(int(workers), failure_timeout_s=float(timeout_s)) as running:
        try:
            running.run(count, FOREVER)
        finally:
            say("readable", running.table("t").to_numpy().shape)


def attempt(what, make):
    """Start a job that shall not start; say why it does not."""
    try:
        with make():
            say(what, "started")
    except Exception as error:
        say(f"{what}: {type(error).__name__}: {error}")


def differ():
    """Nodes whose definitions are not the same, one difference after the other; then the same."""
    rows = 6 + RANK
    values = [nbps.Table("w", 5, 3, init=np.full((5, 3), RANK), sharding="hash")]
    drawn = [nbps.Table("w", 5, 3, init=nbps.init.normal(), sharding="hash")]
    attempt("rows", lambda: nbps.Job([nbps.Table("t", rows, 6)], workers=1))
    attempt("values", lambda: nbps.Job(values, workers=1))
    attempt("seed", lambda: nbps.Job([nbps.Table("t", 6, 6)], workers=1, seed=RANK))
    attempt("same", lambda: nbps.Job(drawn, workers=1 + RANK, seed=1))


def within():
    """Open a job within another, where both would meet at one place; the outer one is unharmed."""
    with job() as outer:
        attempt("inner", job)
        outer.run(count, 10)
        say("outer", *sums(outer)[:2])
    attempt("next", job)


def twice():
    """Three processes, two of which say that they are node 1 of 2; the last is started when the job runs."""
    os.environ |= {"NBPS_NODES": "2", "NBPS_NODE_RANK": str(min(RANK, 1))}
    with job() as running:
        running.run(count, FOREVER)


def missing():
    """Wait for node 2, which has another secret."""
    if RANK == 2:
        os.environ["NBPS_SECRET"] = "another"
    with nbps.Job(TABLES, workers=1, start_timeout_s=30 if RANK == 1 else 8):
        pass


def uneven(*runs):
    """Each node runs as often as its word says, then leaves; results of node 0 come late."""

    def work(worker):
        count(worker, 10)
        return Slow() if worker.node == 0 else "result"

    with job() as running:
        for _ in range(int(runs[RANK])):
            say("done", running.run(work), *sums(running)[:2])


def leaves(how):
    """Run twice; in between the program of node 1 raises, or ends well."""
    with job() as running:
        running.run(count, 10)
        if RANK == 1:
            raise {"raises": ZeroDivisionError("planted"), "exits": SystemExit(0)}[how]
        running.run(count, 10)


def fail(worker):
    """Fail in one worker, and wait in the others."""
    count(worker, 6, speaks=False)
    if worker.rank == 1:
        raise ZeroDivisionError("planted")
    count(worker, FOREVER)


def raises():
    """Run a job in which a worker of node 1 fails, then one that is interrupted."""
    try:
        with job() as running:
            running.run(fail)
    except Exception as error:
        say(f"first: {type(error).__name__}: {error}")
        say(*getattr(error, "__notes__", []))
    with job() as running:
        running.run(count, FOREVER)


def survive(policy, path, clocks):
    """Count to `clocks`, saving every 20 clocks; go on without nodes that are lost, or wait for them."""
    checkpoints = nbps.Checkpoints(path, every=20) if policy == "continue" else None
    with job(on_failure=policy, checkpoints=checkpoints) as running:
        running.run(count, int(clocks))
        say("sums", *sums(running), "size", running.size, "nodes", running.settings.nodes.count)
        say("again", running.run(count, 3))


PROGRAMS = {
    "forever": forever,
    "twice": twice,
    "missing": missing,
    "uneven": uneven,
    "raises": raises,
    "survive": survive,
}


# What ends by itself, and so can be carried out by the same processes.
ENDING = {
    "differ": differ,
    "within": within,
    "raised between": functools.partial(leaves, "raises"),
    "left between": functools.partial(leaves, "exits"),
}


def carry_out(program, *arguments):
    """Carry out one program, say what it raised, and return the exit code that it would have."""
    try:
        program(*arguments)
    except BaseException as error:
        say(f"raised {type(error).__name__}: {error}")
        say(*getattr(error, "__notes__", []))
        return 3
    return 0


def main(which, *arguments):
    """Carry out a program, or all that end by themselves, each between a line with its name and one with its code."""
    if which != "ending":
        sys.exit(carry_out(PROGRAMS[which], *arguments))
    for name, program in ENDING.items():
        say("==", name)
        say("code", carry_out(program))


main(*sys.argv[1:])
