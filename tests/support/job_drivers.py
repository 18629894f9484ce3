"""Scripts that are a job's driver, for tests that interrupt or kill it: run as ``job_drivers.py <which>``.

There is no ``if __name__ == "__main__"`` guard below, on purpose: workers never run this file again.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import numba
import numpy as np

import nbps

tables = [nbps.Table("t", 4, 4), nbps.Table("copy", 4, 4, access="cached")]
kept = []
# Python from 3.12 on warns where a process forks that has threads, and NumPy has some.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


@numba.njit(nogil=True)
def spin(words):
    while words[0] == 0:
        words[1] += 1


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def clock(worker):
    """Clock until stopped."""
    if worker.rank == 0:
        say("running")
    while True:
        worker.clock()


def compute(worker):
    """Sit in compiled code, where no signal handler of Python runs."""
    spin(np.ones(2, np.int64))
    worker.barrier()
    if worker.rank == 0:
        say("running")
    spin(np.zeros(2, np.int64))


def main(which):
    if which == "fails to start":
        with nbps.Job(tables, workers=2, preload=lambda: time.sleep(600)):
            pass
    elif which == "guardless":

        class MineError(ValueError):
            pass

        def work(worker):
            worker.table("t").inc(0, 1)
            if worker.rank == 1 and len(sys.argv) > 2:
                raise MineError("kept its class")
            return worker.rank

        with nbps.Job(tables, workers=2) as job:
            say(job.run(work), job.table("t").to_numpy()[0].tolist())
            sys.argv.append("now")
            try:
                job.run(
                    lambda worker, arguments: (sys.argv.__setitem__(slice(None), arguments), work(worker)), sys.argv
                )
            except MineError as error:
                say("caught", error)
    elif which == "dropped":

        def start():
            job = nbps.Job(tables, workers=2).__enter__()
            return job.run(lambda worker: worker.rank), Path(job.table("t").path)

        results, path = start()
        say(results, path.exists())
    elif which == "left open":
        kept.append(nbps.Job(tables, workers=2).__enter__())
        say(kept[0].run(lambda worker: worker.rank))
    elif which == "fork uses it":
        with nbps.Job(tables, workers=2) as job:
            pid = os.fork()
            if pid == 0:
                for use in (job.run, lambda work: job.checkpoint("nowhere")):
                    try:
                        use(lambda worker: -1)
                    except nbps.errors.JobClosedError as error:
                        say(str(error).replace(str(os.getpid()), "CHILD").replace(str(os.getppid()), "PARENT"))
                job.close()
                sys.exit(0)
            say(job.run(lambda worker: worker.rank), os.waitpid(pid, 0)[1], job.run(lambda worker: worker.rank))
    elif which == "forks":
        with nbps.Job(tables, workers=2) as job:
            pid = os.fork()
            if pid == 0:
                del job
                sys.exit(0)
            os.waitpid(pid, 0)
            say(job.run(lambda worker: worker.rank), Path(job.table("t").path).exists())
    else:
        with nbps.Job(tables, workers=2) as job:
            if len(sys.argv) > 2 and os.fork() == 0:
                time.sleep(600)  # as a data loader's process: it holds the job's sockets
            job.run(clock if which == "clock" else compute)


main(sys.argv[1])
