"""A job that is told to end by SIGTERM: ``terminated.py <folder> <model> <access> [handler]``, on each of its nodes.

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
    while worker.current_clock < 10**9:
        worker.table("t").inc(range(4), [one] * 4)
        worker.clock(wait=worker.current_clock % 3 > 0)
        if worker.current_clock == 10:
            os.write(1, b"running\n")
        time.sleep(0.001 * (1 + worker.rank % 2))


if "handler" in more:
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"mine\n"))
plan = None if "unplanned" in more else nbps.Checkpoints(folder, every=10**6)
try:
    with nbps.Job(
        [TABLE], workers=2, consistency=eval(model, vars(nbps)), checkpoints=plan, failure_timeout_s=20.0
    ) as job:
        if "busy" in more:
            job.run(lambda worker: os.write(1, b"running\n") and worker.rank == 0 and time.sleep(600))
        job.run(count)
except nbps.errors.NodeError as error:
    os.write(1, f"NodeError: {error} (lost {error.lost})\n".encode())
finally:
    os.write(1, b"left in good order\n")
