"""Speed of the row kernels: lossless adds, reads, two processes on the same rows, and a copy's flush and refresh.

Rows are measured inside the workers of jobs, in shared memory, through `nbps.kernels`; the loop around is compiled too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import row_loops
from measure import Line, Options, in_turn, options, report

import nbps
from nbps.kernels import copies
from nbps.kernels.rows import NOBODY_LOOKS

_TARGET_NS = 2.0
_DIRTY_ROWS = 10  # one in so many, for a flush of a sparse change


@contextlib.contextmanager
def pack_width(width: int | None) -> Iterator[None]:
    """Have jobs that start inside use a compare-and-swap of `width` bytes."""
    if width is None:
        yield
        return
    os.environ["NBPS_CAS_BYTES"] = str(width)
    try:
        yield
    finally:
        del os.environ["NBPS_CAS_BYTES"]


def open_job(stack: contextlib.ExitStack, workers: int, width: int | None = None) -> nbps.Job:
    """Start a job with the tables that `row_loops` works on."""
    tables = [nbps.Table(access, row_loops.ROWS, row_loops.WIDTH, access=access) for access in ("direct", "exclusive")]
    with pack_width(width):
        return stack.enter_context(nbps.Job(tables, workers=workers, consistency=nbps.ASP()))


def measure_rows(given: Options) -> list[Line]:
    """One process alone, and two on the same 64 rows."""
    times = given.size(2000, 20)
    added = 2 * times * row_loops.BATCH // row_loops.ROWS * given.repeats  # to each element, by two processes
    with contextlib.ExitStack() as stack:
        one, two, narrow = open_job(stack, 1), open_job(stack, 2), open_job(stack, 1, 8)
        pack = one.run(row_loops.pack_bytes)[0]

        def run(job: nbps.Job, table: str, loop: str) -> Callable[[], float]:
            return lambda: float(np.mean(job.run(row_loops.ns_per_float, table, loop, times)))

        candidates = {
            f"inc, lossless, {pack}-byte": run(one, "direct", "inc"),
            "inc, lossless, 8-byte": run(narrow, "direct", "inc"),
            "inc, lossless, element by element": run(one, "direct", "elements"),
            "inc, exclusive": run(one, "exclusive", "inc"),
            f"a bare loop of {pack}-byte packs": run(one, "direct", "packs"),
            "a bare loop of plain SIMD": run(one, "direct", "plain"),
            "get": run(one, "direct", "get"),
            f"inc, lossless, {pack}-byte, 2 processes": run(two, "direct", "inc"),
            "inc, exclusive, 2 processes (loses)": run(two, "exclusive", "inc"),
        }
        samples = in_turn(candidates, given.repeats)
        wrong = int((two.table("direct").to_numpy() != added).sum())
        lost = 1 - two.table("exclusive").to_numpy().mean(dtype=np.float64) / added
    target = {f"inc, lossless, {pack}-byte": _TARGET_NS}
    return [
        *(Line(name, "ns/float", values, target.get(name)) for name, values in samples.items()),
        Line("wrong sums after 2 processes, lossless", "elements", [wrong], target=0),
        Line("updates lost by 2 processes, exclusive", "%", [100 * lost]),
    ]


def measure_replica(given: Options) -> list[Line]:
    """Flush and refresh of a ``cached`` table that does not fit a cache, beside a copy of the same bytes."""
    rows, width = given.size(200_000, 200), 32
    parent = np.zeros((rows, width), np.float32)
    values, base, copy, delta = parent.copy(), parent.copy(), parent.copy(), np.zeros(width, np.float32)
    no_norm, peaks = np.zeros(0), np.zeros(width)

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return parent.nbytes / (time.perf_counter() - start) / 1e9

    def flush(step: int, scratch: np.ndarray = no_norm) -> float:
        if step:
            values[::step] += 1
        return timed(lambda: copies.flush(values, base, parent, NOBODY_LOOKS, 0, delta, scratch))

    candidates: dict[str, Callable[[], float]] = {
        "memcpy of the table": lambda: timed(lambda: np.copyto(copy, parent)),
        "refresh": lambda: timed(lambda: copies.refresh(values, base, parent)),
        "flush, every row changed": lambda: flush(1),
        "flush, every row changed, with its norm": lambda: flush(1, peaks),
        f"flush, every {_DIRTY_ROWS}th row changed": lambda: flush(_DIRTY_ROWS),
        "flush, no row changed": lambda: flush(0),
    }
    in_turn(candidates, 1)
    samples = in_turn(candidates, given.repeats)
    streams = {"memcpy of the table": 2, "refresh": 5, "flush, every row changed": 5}
    return [
        Line(name, "GB/s of table", speeds, note=f"moves {streams[name]} times these bytes" if name in streams else "")
        for name, speeds in samples.items()
    ]


def main() -> None:
    """Measure, print, write ``kernels.json``."""
    given = options(__doc__, repeats=9)
    lines = measure_rows(given) + measure_replica(given)
    report("kernels", f"Kernels on rows of {row_loops.WIDTH} float32", lines, given)


if __name__ == "__main__":
    main()
