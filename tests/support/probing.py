"""Tables, jobs and programs for the tests of nodes. Imports no pytest: nodes import this file."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

import nbps
from nbps.testing.consistency.probe import probe_tables

ACCESS = ("direct", "cached", "exclusive")
CLOCKS = 12


def node_tables(workers, rows=5, access=ACCESS, shardings=("block", "hash"), **options):
    """Return probe tables of each access mode and sharding; `options` are those of `probe_tables`."""
    return [
        dataclasses.replace(table, name=f"{table.name} {sharding}", sharding=sharding)
        for sharding in shardings
        for table in probe_tables(workers, rows, access, **options)
    ]


def renamed(tables, suffix):
    """Return the same tables under other names."""
    return [dataclasses.replace(table, name=f"{table.name} {suffix}") for table in tables]


def modes(model):
    """Return the access modes that can be used under `model` on several nodes."""
    if isinstance(model, nbps.VAP):
        return ("cached",)
    return ("cached", "exclusive") if isinstance(model, nbps.BSP) else ACCESS


# --------------------------------------------------------------------------- many additions


def counted_tables(model):
    """Return tables for `add_much`: integers and floats that all workers add to, of all modes that can be."""
    return [
        nbps.Table(f"much {dtype} {access} {sharding}", 9, 3, dtype=dtype, access=access, sharding=sharding)
        for dtype, sharding in (("int64", "hash"), ("int32", "block"), ("float32", "hash"), ("float64", "block"))
        for access in modes(model)
        if access != "exclusive"
    ]


def add_much(worker):
    """Add to the same rows as everybody, as fast as can be; return what was added to each table of integers."""
    draw = np.random.default_rng([worker.rank, 1])
    names = [name for name in worker._tables if name.startswith("much")]
    sums = {name: np.zeros(worker.table(name).shape, np.int64) for name in names if "int" in name}
    for _ in range(CLOCKS):
        for name in names:
            table = worker.table(name)
            ids = draw.integers(0, 9, 40)  # they repeat
            if name in sums:
                deltas = draw.integers(-9, 10, (40, 3))
                np.add.at(sums[name], ids, deltas)
                table.inc(ids, deltas)
            else:
                table.inc(ids, draw.standard_normal((40, 3)).astype(table.dtype))
        worker.clock()
    return sums


def add_up(worker):
    """Add up numbers and arrays, with barriers and clocks in between; return the sums."""
    numbers = np.random.default_rng(worker.rank)
    sums = []
    for turn in range(CLOCKS):
        sums.append(worker.sum(numbers.random()))
        if turn % 3 == 0:
            worker.barrier()
        sums.append(worker.sum(numbers.integers(-9, 9, (2, 3))).tolist())
        if turn % 4:
            worker.clock()
    sums.append(worker.sum(numbers.random(6000)).tobytes())  # in pieces
    return sums


# --------------------------------------------------------------------------- the same bits

LEARNED = [
    nbps.Table(
        f"learned {which} {dtype}",
        7,
        3,
        dtype=dtype,
        access="cached",
        init=np.linspace(-1, 1, 21).reshape(7, 3),
        sharding="hash",
    )
    for which in ("first", "again")
    for dtype in ("float32", "float64")
]


def learn(worker, which, sleep_s):
    """Add floats that depend on all that was read, at another pace each time; return the bytes of every read."""
    numbers = np.random.default_rng([worker.rank, 2])
    pace = np.random.default_rng(time.perf_counter_ns())
    seen = b""
    for _ in range(CLOCKS):
        for dtype in ("float32", "float64"):
            table = worker.table(f"learned {which} {dtype}")
            ids = np.arange(7)
            rows = table.get(ids)
            seen += rows.tobytes()
            table.inc(ids, (0.1 * numbers.standard_normal(rows.shape) - 0.3 * rows).astype(rows.dtype))
        if pace.random() < 0.5:
            time.sleep(sleep_s * pace.random())
        worker.clock()
    return seen


def learn_first(worker):
    """Learn without naps."""
    return learn(worker, "first", 0.0)


def learn_again(worker):
    """Learn the same, with naps."""
    return learn(worker, "again", 0.01)
