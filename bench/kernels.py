"""Speed of the row kernels: lossless adds, reads, several processes on the same rows, a copy's flush and refresh.

Rows are measured inside the workers of jobs, in shared memory, through `nbps.kernels`; the loop around is compiled too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import row_loops
from measure import Line, Options, in_turn, options, report

import nbps
from nbps.kernels import copies
from nbps.kernels.claim_layout import claims_bytes
from nbps.kernels.rows import NOBODY_LOOKS
from nbps.tables.shared import SharedRows

_OF_PLAIN = 2.2  # what a lossless addition may take, in plain ones of the same run
_OVER_SWAPS = {"2 processes, Zipf rows": 4.5, "2 processes, 64 rows": 3.0, "8 processes, Zipf rows": 2.5}
_DIRTY_ROWS = 10  # one in so many, for a flush of a sparse change
_WAYS = {"direct": "claims", "swapped": "compare-and-swap", "exclusive": "plain SIMD (loses)"}


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


def open_job(
    stack: contextlib.ExitStack, workers: int, rows: int = row_loops.ROWS, width: int | None = None
) -> nbps.Job:
    """Start a job with the tables that `row_loops` works on."""
    tables = [
        nbps.Table(name, rows, row_loops.WIDTH, access="direct" if name == "direct" else "exclusive") for name in _WAYS
    ]
    with pack_width(width):
        return stack.enter_context(nbps.Job(tables, workers=workers, consistency=nbps.ASP()))


def measure_rows(given: Options) -> list[Line]:
    """One process alone."""
    times = given.size(2000, 20)
    with contextlib.ExitStack() as stack:
        one, narrow = open_job(stack, 1), open_job(stack, 1, width=8)
        pack = one.run(row_loops.pack_bytes)[0]

        def run(job: nbps.Job, table: str, loop: str) -> Callable[[], float]:
            return lambda: float(np.mean(job.run(row_loops.ns_per_float, table, loop, times)))

        samples = in_turn(
            {
                "inc, direct": run(one, "direct", "inc"),
                f"inc, {pack}-byte compare-and-swap": run(one, "swapped", "inc"),
                "inc, 8-byte compare-and-swap": run(narrow, "swapped", "inc"),
                "inc, element by element": run(one, "swapped", "elements"),
                "inc, exclusive": run(one, "exclusive", "inc"),
                f"a bare loop of {pack}-byte packs": run(one, "swapped", "packs"),
                "a bare loop of plain SIMD": run(one, "exclusive", "plain"),
                "get, direct": run(one, "direct", "get"),
                "get, exclusive": run(one, "exclusive", "get"),
            },
            given.repeats,
        )
    ratios = [
        ours / plain for ours, plain in zip(samples["inc, direct"], samples["a bare loop of plain SIMD"], strict=True)
    ]
    return [
        *(Line(name, "ns/float", values) for name, values in samples.items()),
        Line("inc, direct, over plain SIMD", "times", ratios, _OF_PLAIN),
    ]


def measure_contention(given: Options) -> list[Line]:
    """Several processes on the same rows, of a Zipf distribution and few hot ones; sums are exact but of plain SIMD."""
    lines, wrong = [], 0
    for shape, target in _OVER_SWAPS.items():
        workers, rows = int(shape[0]), row_loops.ZIPF_ROWS if "Zipf" in shape else row_loops.ROWS
        times = given.size(2400 // workers, 2)
        added = workers * times * row_loops.ZIPF_BATCH
        with contextlib.ExitStack() as stack:
            job = open_job(stack, workers, rows)

            def rate(table: str, job: nbps.Job = job, times: int = times, added: int = added) -> float:
                starts, ends = zip(*job.run(row_loops.span, table, times), strict=True)
                return added / (max(ends) - min(starts)) / 1e6

            found = in_turn({way: functools.partial(rate, table) for table, way in _WAYS.items()}, given.repeats)
            sums = {table: job.table(table).to_numpy().sum(axis=0, dtype=np.float64) for table in _WAYS}
            wrong += sum(int((sums[table] != added * given.repeats).sum()) for table in ("direct", "swapped"))
        claims, swaps = (found[_WAYS[table]] for table in ("direct", "swapped"))
        lines += [Line(f"{shape}: {way}", "M rows/s", values) for way, values in found.items()]
        ratios = [ours / theirs for ours, theirs in zip(claims, swaps, strict=True)]
        lines.append(Line(f"{shape}: claims over compare-and-swap", "times", ratios, target, at_least=True))
    return [*lines, Line("wrong sums after several processes, lossless", "columns", [wrong], target=0)]


def measure_replica(given: Options) -> list[Line]:
    """Flush and refresh of a ``cached`` table that does not fit a cache, beside a copy of the same bytes."""
    rows, width = given.size(200_000, 200), 32
    parent = np.zeros((rows, width), np.float32)
    values, base, copy, delta = parent.copy(), parent.copy(), parent.copy(), np.zeros(width, np.float32)
    claimed = SharedRows(parent, NOBODY_LOOKS, np.zeros(claims_bytes(rows), np.uint8), True, 0, 1)
    shared = claimed.kernel
    no_norm, peaks = np.zeros(0), np.zeros(width)

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return parent.nbytes / (time.perf_counter() - start) / 1e9

    def flush(step: int, scratch: np.ndarray = no_norm) -> float:
        if step:
            values[::step] += 1
        return timed(lambda: copies.flush(values, base, shared, 0, delta, scratch))

    candidates: dict[str, Callable[[], float]] = {
        "memcpy of the table": lambda: timed(lambda: np.copyto(copy, parent)),
        "refresh": lambda: timed(lambda: copies.refresh(values, base, shared)),
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
    lines = measure_rows(given) + measure_contention(given) + measure_replica(given)
    report("kernels", f"Kernels on rows of {row_loops.WIDTH} float32", lines, given)


if __name__ == "__main__":
    main()
