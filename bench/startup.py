"""Start-up: ``import nbps``, and a job with 2 workers from the call to the first line of the user's function.

Every sample is a fresh process. *Cold* starts with an empty folder of compiled kernels, *warm* with a filled one. The
second job of a process has the same tables, the third one a table of another dtype besides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from measure import Line, Options, in_turn, options, report

TARGET_IMPORT_S = 0.12  # less than a user notices
_TARGET_WARM_S, _TARGET_COLD_S, _TARGET_SECOND_S = 1.5, 20.0, 0.1

_IMPORT = """
import time
start = time.perf_counter()
import nbps
imported = time.perf_counter()
nbps.Job, nbps.Table
print(imported - start, time.perf_counter() - start)
"""
# The clock of time.monotonic() is one for all processes of a machine. The preload runs after nbps has prepared its own.
_JOB = """
import functools, json, os, sys, tempfile, time
import nbps
nbps.Job, nbps.Table  # what they need is imported when they are first named

def note(path):
    with open(path, "w") as file:
        file.write(str(time.monotonic()))

def first_line(worker):
    return time.monotonic()

access = sys.argv[1].split(",")
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "prepared")
    start = time.monotonic()
    tables = [nbps.Table(kind, rows=1000, width=32, access=kind) for kind in access]
    with nbps.Job(tables, workers=2, preload=functools.partial(note, path)) as job:
        entered = time.monotonic()
        first = max(job.run(first_line))
        ran = time.monotonic()
    closed = time.monotonic()
    prepared = float(open(path).read())
later = []
for more in ([], [nbps.Table("more", rows=1000, width=32, dtype="float64")]):
    again = time.monotonic()
    with nbps.Job([*tables, *more], workers=2) as job:
        later.append(max(job.run(first_line)) - again)
print(json.dumps({"first": first - start, "prepared": prepared - start, "entered": entered - start,
                  "close": closed - ran, "second": later[0], "third": later[1]}))
"""


def python(code: str, *arguments: str, cache: str | None = None) -> str:
    """Run `code` in a fresh process and return what it prints."""
    environment = dict(os.environ) if cache is None else {**os.environ, "NBPS_CACHE_DIR": cache}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def start_job(access: str, cache: str) -> dict[str, float]:
    """Return the seconds from the call of `nbps.Job` to several points."""
    return dict(json.loads(python(_JOB, access, cache=cache)))


def cold_start(access: str) -> dict[str, float]:
    """Start a job whose kernels must all be compiled."""
    with tempfile.TemporaryDirectory() as cache:
        return start_job(access, cache)


def measure(given: Options) -> list[Line]:
    """Cold starts first, fewer of them since they take long; then the others in turn."""
    access = "direct" if given.smoke else "direct,exclusive,cached"
    with tempfile.TemporaryDirectory() as cache:
        cold = [start_job(access, cache)]  # fills the folder
        cold += [cold_start(access) for _ in range(given.repeats // 4)]
        candidates: dict[str, Callable[[], Any]] = {
            "import": lambda: [float(seconds) for seconds in python(_IMPORT).split()],
            "warm": lambda: start_job(access, cache),
        }
        samples = in_turn(candidates, given.repeats)
    warm = samples["warm"]

    def seconds(runs: list[dict[str, float]], key: str) -> list[float]:
        return [run[key] for run in runs]

    ready = [run["first"] - run["prepared"] for run in warm]
    return [
        Line("import nbps", "s", [run[0] for run in samples["import"]], target=TARGET_IMPORT_S),
        Line("import nbps, and name Job and Table", "s", [run[1] for run in samples["import"]]),
        Line("job, 2 workers, warm: call to first line", "s", seconds(warm, "first"), target=_TARGET_WARM_S),
        Line("  of it: kernels imported and loaded", "s", seconds(warm, "prepared")),
        Line("  of it: workers forked, opened, called", "s", ready),
        Line("second job of a process: call to first line", "s", seconds(warm, "second"), target=_TARGET_SECOND_S),
        Line("third job, with another table", "s", seconds(warm, "third")),
        Line("job, 2 workers, cold: call to first line", "s", seconds(cold, "first"), target=_TARGET_COLD_S),
        Line("job, closing", "s", seconds(warm, "close")),
    ]


def main() -> None:
    """Measure, print, write ``startup.json``."""
    given = options(__doc__, repeats=9)
    report("startup", "Start-up", measure(given), given)


if __name__ == "__main__":
    main()
