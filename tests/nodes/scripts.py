"""What nodes of the tests of endings and failures do: ``scripts.py <which> [arguments]``, run on every node.

There is no ``if __name__ == "__main__"`` guard, on purpose: workers never run this file again.
"""

import os
import sys
import time

import nbps

RANK = int(os.environ["NBPS_NODE_RANK"])
TABLES = [nbps.Table("t", 6, 2, "int64"), nbps.Table("copy", 6, 2, "int64", access="cached")]


def say(*words):
    """Write a line at once, whole also among several processes."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Slow:
    """Takes long to be pickled."""

    def __reduce__(self):
        time.sleep(1)
        return str, ("result",)


def slow_results():
    """Node 0's results come late; node 1 closes the job as soon as it has its own."""
    with nbps.Job(TABLES, workers=1) as job:
        say(job.run(lambda worker: Slow() if worker.node == 0 else "fast"))


PROGRAMS = {"slow results": slow_results}


def main(which, *arguments):
    """Carry out one program, and say what it raised."""
    try:
        PROGRAMS[which](*arguments)
    except Exception as error:
        say(f"raised {type(error).__name__}: {error}")
        sys.exit(3)


main(*sys.argv[1:])
