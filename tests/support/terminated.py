"""A job that is told to end by SIGTERM: ``terminated.py <folder> <model> <access> [words]``, on each of its nodes.

Workers are not equally fast, and some clocks do not wait, so nobody is where another is when the signal comes.
"""

import os
import signal
import sys
import time

import nbps

folder, model, access, *more = sys.argv[1:]
TABLE = nbps.Table("t", 4, 9, dtype="int64", access=access)


def count(worker):
    """Add 1 to the worker's column of every row in each clock."""
    one = [int(worker.rank == column) for column in range(9)]
    went_on = "continue" in more and worker.size == 2  # without the node that was told to end
    last = worker.current_clock + 20 if went_on else 10**9
    while worker.current_clock < last:
        worker.table("t").inc(range(4), [one] * 4)
        worker.clock(wait=worker.current_clock % 3 > 0)
        if worker.current_clock == 10:
            os.write(1, b"running\n")
        time.sleep(0.001 * (1 + worker.rank % 2))
    return worker.current_clock


if "handler" in more:
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"mine\n"))
plan = None if "unplanned" in more else nbps.Checkpoints(folder, every=10**6)
try:
    with nbps.Job(
        [TABLE], workers=2, consistency=eval(f"nbps.{model}"), checkpoints=plan, failure_timeout_s=20.0,
        on_failure="continue" if "continue" in more else "fail",
    ) as job:  # fmt: skip
        if "busy" in more:
            job.run(lambda worker: os.write(1, b"running\n") and worker.rank == 0 and time.sleep(600))
        clocks = job.run(count)
        os.write(1, f"{clocks} {job.table('t').to_numpy().tolist()}\n".encode())
except nbps.errors.NodeError as error:
    os.write(1, f"NodeError: {error} (lost {error.lost})\n".encode())
finally:
    os.write(1, b"left in good order\n")
