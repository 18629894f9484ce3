"""Which rows are shipped in `nodes.py`, and what they are compared with: all of it in turn, in one run."""

from __future__ import annotations

from collections.abc import Callable

import node_one_core
import node_rows
from measure import Line, Options, in_turn
from node_rows import ROW_BYTES, Case, Pair

_SHARE = 0.6  # of the limits
_ROW_US = 30.0
_ACCESSES = ("exclusive", "direct")
_ADDITIONS = "additions"
_STREAMS = {
    "pushed values": (node_rows.ship_values, node_rows.install_values),
    "pulled values": (node_rows.pull_values, node_rows.serve_values),
    _ADDITIONS: (node_rows.push_additions, node_rows.apply_additions),
}
_TRIPS = {
    "one row asked for and given": (node_rows.get_row, node_rows.give_row),
    "one row added and confirmed": (node_rows.push_row, node_rows.apply_row),
}
_WAYS = {"looking": True, "asleep": False}  # how the two processes wait for each other

Measurements = dict[str, Callable[[], float]]


def measure_rows(given: Options) -> list[Line]:
    """Ship batches of rows and single rows, beside raw sockets and the kernels alone."""
    sizes = [given.size(1_000, 40), given.size(10_000, 80)]
    with Pair(("tcp", "shm")) as pair:
        streams = _streams(given, pair, sizes)
        trips = _trips(given, pair, sizes[0])
        in_turn(streams | trips, 1)
        samples = in_turn(streams | trips, given.repeats)
    lines = [Line(name, "GB/s", samples[name]) for name in streams]
    lines += [_share(samples, what, case) for case in _cases(sizes) for what in _STREAMS]
    for name in trips:
        is_due = name.endswith(f"tcp, table of {sizes[0]:,} rows, looking")
        lines.append(Line(name, "us", samples[name], _ROW_US if is_due else None))
    return lines


def _cases(sizes: list[int]) -> list[Case]:
    return [Case(transport, access, rows) for transport in ("tcp", "shm") for access in _ACCESSES for rows in sizes]


def _name(what: str, case: Case) -> str:
    return f"{what}, {case.transport}, {case.access}, {case.rows:,} rows"


def _streams(given: Options, pair: Pair, sizes: list[int]) -> Measurements:
    """Return what ships batches one after the other, in GB/s of rows; raw TCP in GB/s of what it carries."""
    batches = {rows: given.size(4_000_000, 800) // rows for rows in sizes}

    def shipped(what: str, case: Case) -> Callable[[], float]:
        times = batches[case.rows]
        return lambda: times * case.rows * ROW_BYTES / pair.time(*_STREAMS[what], case, times) / 1e9

    def raw(how: str, rows: int) -> Callable[[], float]:
        size, times = rows * (ROW_BYTES + 8), batches[rows]  # with their ids
        return lambda: times * size / pair.stream_raw(how, size, times) / 1e9

    found: Measurements = {}
    for rows in sizes:
        found |= {f"raw TCP, {how}, {rows:,} rows": raw(how, rows) for how in ("compiled", "Python")}
        for access in _ACCESSES:
            parts = node_one_core.on_one_core(access, rows, max(1, batches[rows] // 8))
            found |= {f"one core, {name}, {access}, {rows:,} rows": part for name, part in parts.items()}
    return found | {_name(what, case): shipped(what, case) for case in _cases(sizes) for what in _STREAMS}


def _trips(given: Options, pair: Pair, rows: int) -> Measurements:
    """Return what sends one row there and back, in microseconds."""
    times = given.size(3_000, 30)

    def trip(what: str, case: Case, spin: bool) -> Callable[[], float]:
        return lambda: pair.time(*_TRIPS[what], case, times, spin) / times * 1e6

    def raw(how: str) -> Callable[[], float]:
        return lambda: pair.trip_raw(how, 64, times) / times * 1e6

    found: Measurements = {f"raw TCP, {how}, 64 bytes": raw(how) for how in ("compiled", "Python")}
    for transport, table in (("tcp", rows), ("shm", rows), ("tcp", 100 * rows)):
        case = Case(transport, "direct", table)
        found |= {
            f"{what}, {transport}, table of {table:,} rows, {way}": trip(what, case, spin)
            for what in _TRIPS
            for way, spin in _WAYS.items()
        }
    return found


def _share(samples: dict[str, list[float]], what: str, case: Case) -> Line:
    """Return throughput as a share of its limit, both measured in the same turn."""
    limits, limit = samples[f"raw TCP, compiled, {case.rows:,} rows"], "raw TCP"
    if what == _ADDITIONS:
        adds = samples[f"one core, add kernel, {case.access}, {case.rows:,} rows"]
        limits, limit = list(map(min, limits, adds)), "the slower of raw TCP and the add kernel"
    name = _name(what, case)
    shares = [speed / most for speed, most in zip(samples[name], limits, strict=True)]
    target = _SHARE if case.transport == "tcp" else None
    return Line(f"{name}, of {limit}", "x", shares, target, at_least=True)
