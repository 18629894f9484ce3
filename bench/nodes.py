"""Several nodes: rows shipped between two processes, empty clocks, factorization, bytes by rows that changed, a soak.

Nodes are processes of this machine, connected by loopback TCP or shared memory. Each part writes a JSON of its own,
``nodes_<part>.json``. The soak, five minutes, runs only if asked for: ``--only soak``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import node_rows
from measure import Line, Options, in_turn, options, report
from node_rows import ROW_BYTES, Case, Pair

_PARTS = ("rows", "clock", "mf", "bytes", "soak")
_VALUES, _ADDITIONS = 0.6, 0.6  # of the limits
_ROW_US = 30.0
_STREAMS = {
    "pushed values": (node_rows.ship_values, node_rows.install_values),
    "pulled values": (node_rows.pull_values, node_rows.serve_values),
    "additions": (node_rows.push_additions, node_rows.apply_additions),
}
_TRIPS = {
    "one row asked for and given": (node_rows.get_row, node_rows.give_row),
    "one row added and confirmed": (node_rows.push_row, node_rows.apply_row),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(_PARTS)} (default: all but soak)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the soak (default %(default)s)")
    data = os.environ.get("NBPS_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=None if data is None else Path(data) / "ml-1m" / "ratings_notime.tsv.gz",
        help="ratings file for the factorization (default: ml-1m in the folder NBPS_DATA, else generated ratings)",
    )


def measure_rows(given: Options) -> list[Line]:
    """Ship batches of rows and single rows, beside raw sockets and the kernels alone."""
    sizes = [given.size(1_000, 40), given.size(10_000, 80)]
    batches = {rows: given.size(4_000_000, 800) // rows for rows in sizes}
    trips = given.size(3_000, 30)
    cases = [Case(*case) for case in [(t, a, r) for t in ("tcp", "shm") for a in ("exclusive", "direct") for r in sizes]]
    few, many = Case("tcp", "direct", sizes[0]), Case("tcp", "direct", given.size(100_000, 200))
    with Pair(("tcp", "shm")) as pair:

        def shipped(what: str, case: Case) -> Callable[[], float]:
            times = batches[case.rows]
            return lambda: times * case.rows * ROW_BYTES / pair.time(*_STREAMS[what], case, times) / 1e9

        def raw(how: str, rows: int) -> Callable[[], float]:
            size, times = rows * (ROW_BYTES + 8), batches[rows]  # with their ids
            return lambda: times * size / pair.stream_raw(how, size, times) / 1e9

        def trip(what: str, case: Case, spin: bool) -> Callable[[], float]:
            return lambda: pair.time(*_TRIPS[what], case, trips, spin) / trips * 1e6

        def raw_trip(how: str) -> Callable[[], float]:
            return lambda: pair.trip_raw(how, 64, trips) / trips * 1e6

        streams: dict[str, Callable[[], float]] = {}
        for rows in sizes:
            streams |= {f"raw TCP, {how}, {rows:,} rows": raw(how, rows) for how in ("compiled", "Python")}
            for access in ("exclusive", "direct"):
                parts = node_rows.on_one_core(access, rows, max(1, batches[rows] // 8))
                streams |= {f"one core, {name}, {access}, {rows:,} rows": part for name, part in parts.items()}
        streams |= {_name(what, case): shipped(what, case) for case in cases for what in _STREAMS}
        waits: dict[str, Callable[[], float]] = {f"raw TCP, {how}, 64 bytes": raw_trip(how) for how in ("compiled", "Python")}
        for case in (few, few._replace(transport="shm"), many):
            for what in _TRIPS:
                for spin in (True, False):
                    how = "looking" if spin else "asleep"
                    waits[f"{what}, {case.transport}, table of {case.rows:,} rows, {how}"] = trip(what, case, spin)
        in_turn(streams | waits, 1)
        samples = in_turn(streams | waits, given.repeats)
    lines = [Line(name, "GB/s", samples[name]) for name in streams]
    lines += _shares(samples, cases)
    for name in waits:
        target = _ROW_US if "tcp" in name and f"{sizes[0]:,} rows, looking" in name else None
        lines.append(Line(name, "us", samples[name], target))
    return lines


def _name(what: str, case: Case) -> str:
    return f"{what}, {case.transport}, {case.access}, {case.rows:,} rows"


def _shares(samples: dict[str, list[float]], cases: list[Case]) -> list[Line]:
    """Return throughput as a share of its limit, both measured in the same turn."""
    lines = []
    for case in cases:
        raw = samples[f"raw TCP, compiled, {case.rows:,} rows"]
        adds = samples[f"one core, add kernel, {case.access}, {case.rows:,} rows"]
        for what in _STREAMS:
            target = _VALUES
            limits, limit = raw, "raw TCP"
            if what == "additions":
                target = _ADDITIONS
                limits, limit = list(map(min, raw, adds)), "the slower of raw TCP and the add kernel"
            found = samples[_name(what, case)]
            shares = [speed / most for speed, most in zip(found, limits, strict=True)]
            lines.append(
                Line(f"{_name(what, case)}, of {limit}", "x", shares, target if case.transport == "tcp" else None, True)
            )
    return lines


def main() -> None:
    """Run the chosen parts, print, write."""
    given = options(__doc__, repeats=5, add=add_arguments)
    parts = given.arguments.only.split(",") if given.arguments.only else [part for part in _PARTS if part != "soak"]
    if unknown := sorted(set(parts) - set(_PARTS)):
        raise SystemExit(f"--only: unknown {', '.join(unknown)}; known: {', '.join(_PARTS)}")
    if "rows" in parts:
        report("nodes_rows", f"Shipping rows of {ROW_BYTES} bytes between two processes", measure_rows(given), given)


if __name__ == "__main__":
    main()
