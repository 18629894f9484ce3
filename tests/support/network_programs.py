"""Nodes that carry out jobs as they are told, for the tests of jobs over networks: ``network_programs.py FOLDER``.

Order n is a file ``FOLDER/n`` with the name of a job in `JOBS`; without a name nodes end. A node says in a line of JSON
how it ended. Jobs that are to meet a broken network run until there is a file ``enough``: the time that anything takes
decides nothing. Files of a job are in a folder of its own.
"""

import dataclasses
import functools
import itertools
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nbps
from nbps.testing.consistency.probe import Plan, prepared, probe_tables

NODES = 3
CYCLE = 16  # rows of the table that counts clocks
LEARNED_CLOCKS = 12
NAP_S = 0.003
ESSP, SSP = nbps.ESSP(2), nbps.SSP(2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A job, and what its workers do in each run: called with the worker, the case and a folder.

    `workers` is of each node, `secrets` what each node has for a secret instead of its own.
    """

    model: Any
    tables: Sequence[nbps.Table]
    programs: Sequence[Callable[..., Any]]
    workers: int = 1
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoints_every: int | None = None
    secrets: Sequence[str | None] = ()


# --------------------------------------------------------------------------- what workers do


def probe_once(worker, case, folder):
    """Probe for a while."""
    _probe(worker, case, folder, Plan(clocks=25, operations=3, sleep_s=NAP_S))


def probe_on(worker, case, folder):
    """Probe over and over, until it is enough. Without barriers: who has ended meets nobody any more."""
    plan = Plan(clocks=10, operations=2, sleep_s=NAP_S, no_wait=0.0, barriers=0.0)
    for turn in itertools.count():
        if (folder / "enough").exists():
            return
        _probe(worker, case, folder, dataclasses.replace(plan, seed=turn))


def _probe(worker, case, folder, plan):
    journal = folder / f"journal-{plan.seed}"
    journal.mkdir(exist_ok=True)
    prepared(case.tables, case.model, plan, str(journal))(worker)


def count_on(worker, _case, folder):
    """Count clocks, each in its row, until it is enough; return how many there were."""
    table = worker.table("counted")
    one = np.zeros(table.shape[1], np.int64)
    one[worker.rank] = 1
    while not (folder / "enough").exists():
        table.inc(worker.current_clock % CYCLE, one)
        worker.clock()
        (folder / f"clock-{worker.rank}-of-{worker.size}").write_text(str(worker.current_clock))
        time.sleep(NAP_S)
    return worker.current_clock


def add_bulk(worker, _case, _folder, clocks):
    """Change every row in every clock."""
    table = worker.table("bulk")
    every, deltas = np.arange(table.shape[0]), np.full(table.shape, worker.rank + 1, np.int64)
    for _ in range(clocks):
        table.inc(every, deltas)
        worker.clock()


def learn(worker, _case, _folder, which):
    """Add floats that depend on all that was read, at another pace each time; return a checksum of every read."""
    numbers = np.random.default_rng([worker.rank, 2])
    pace = np.random.default_rng(time.perf_counter_ns())
    table, every = worker.table(which), np.arange(21)
    seen = 0
    for _ in range(LEARNED_CLOCKS):
        rows = table.get(every)
        seen = zlib.crc32(rows.tobytes(), seen)
        table.inc(every, (0.1 * numbers.standard_normal(rows.shape) - 0.3 * rows).astype(np.float32))
        time.sleep(0.005 * pace.random())
        worker.clock()
    return seen


# --------------------------------------------------------------------------- jobs


def _probed(workers=1):
    """Probe tables of all access modes, with a column for each worker."""
    tables = probe_tables(NODES * workers, 5)
    return [
        dataclasses.replace(table, sharding=how) for table, how in zip(tables, ("block", "hash", "hash"), strict=True)
    ]


_COUNTED = [nbps.Table("counted", CYCLE, NODES, dtype="int64", access="cached", sharding="hash")]
_BULK, _LESS = [
    [nbps.Table("bulk", rows, 256, dtype="int64", access="cached")] for rows in (512, 128)
]  # 1 MB, and a quarter
_LEARNED = [
    nbps.Table(
        which, 21, 3, dtype="float32", access="cached", init=np.linspace(-1, 1, 63).reshape(21, 3), sharding="hash"
    )
    for which in ("first", "again")
]
JOBS = {
    "probe ESSP": Case(ESSP, _probed(2), [probe_once], workers=2),
    "probe SSP": Case(SSP, _probed(2), [probe_once], workers=2),
    "healed": Case(ESSP, _probed(), [probe_on]),
    "fail": Case(ESSP, _probed(), [probe_on], options={"failure_timeout_s": 1.0}),
    "wait": Case(SSP, _probed(), [probe_on], options={"failure_timeout_s": 1.0, "on_failure": "wait"}),
    "continue": Case(
        ESSP, _COUNTED, [count_on], checkpoints_every=5,
        options={"failure_timeout_s": 1.0, "on_failure": "continue", "start_timeout_s": 8.0},
    ),
    "bulk ESSP": Case(ESSP, _BULK, [functools.partial(add_bulk, clocks=5)]),
    "bulk ASP": Case(nbps.ASP(), _LESS, [functools.partial(add_bulk, clocks=200)]),
    "learn": Case(nbps.BSP(), _LEARNED, [functools.partial(learn, which=which) for which in ("first", "again")]),
    "no secret": Case(SSP, _COUNTED, [count_on], secrets=[None] * NODES),
    "other secrets": Case(SSP, _COUNTED, [count_on], secrets=["one", "two", "one"], options={"start_timeout_s": 8.0}),
}  # fmt: skip


def carry_out(name, folder):
    """Carry out a job; return how it ended."""
    case, options = JOBS[name], {}
    rank = int(os.environ["NBPS_NODE_RANK"])
    environment = dict(os.environ)
    for secret in case.secrets[rank : rank + 1]:
        del environment["NBPS_SECRET"]
        environment |= {} if secret is None else {"NBPS_SECRET": secret}
    if case.checkpoints_every is not None:
        options["checkpoints"] = nbps.Checkpoints(folder / "checkpoints", case.checkpoints_every)
    end = {"job": name, "results": [], "error": None, "traffic": None, "resumed": None}
    try:
        nodes = nbps.Nodes.from_environment(environment)
        options |= {"workers": case.workers, "consistency": case.model, "nodes": nodes, "clock_timeout_s": 120}
        with nbps.Job(case.tables, **options, **case.options) as job:
            for program in case.programs:
                end["results"].append(job.run(program, case, folder))
            np.savez(
                folder / f"end-{rank}.npz", **{table.name: job.table(table.name).to_numpy() for table in case.tables}
            )
            end["traffic"] = job.report().traffic._asdict()
            end["resumed"] = job.resumed and job.resumed.clock
    except nbps.errors.Error as error:
        end["error"] = f"{type(error).__name__}: {error}"
    return end


def main(where):
    """Be a node."""
    for number in itertools.count():
        order = Path(where) / str(number)
        while not order.exists():
            time.sleep(0.01)
        name = order.read_text()
        if not name:
            return
        end = carry_out(name, Path(where) / f"job-{number}")
        os.write(1, f"{json.dumps(end)}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
