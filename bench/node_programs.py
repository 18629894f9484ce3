"""What every node runs in the parts of `nodes.py` that need whole jobs.

Called as ``python node_programs.py PROGRAM ARGUMENTS``, the arguments as JSON; the environment says which node.
The last line of standard output is JSON with what was found.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nbps
from nbps.data import generate_ratings, read_ratings
from nbps.models import MatrixFactorization

_TICKS_PER_S = 100  # of /proc/<pid>/stat, on all machines that nbps supports


# --------------------------------------------------------------------------- an empty clock


def count_clocks(worker: nbps.Worker, clocks: int) -> float:
    """Call ``worker.clock()`` so often; return microseconds for each."""
    worker.barrier()
    start = time.perf_counter_ns()
    for _ in range(clocks):
        worker.clock()
    return (time.perf_counter_ns() - start) / clocks / 1e3


def cpu_seconds(pid: int) -> np.ndarray:
    """Return the seconds that a process has computed: exact, and split into user's and system's by ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    exact = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return np.array([exact, int(fields[11]) / _TICKS_PER_S, int(fields[12]) / _TICKS_PER_S])


def clock(clocks: int) -> dict[str, Any]:
    """Time empty clocks under ESSP(0), and what the agent of this node computes for each."""
    with nbps.Job([], workers=1, consistency=nbps.ESSP(0)) as job:
        agent = agent_of(job)
        job.run(count_clocks, max(1, clocks // 10))
        before = cpu_seconds(agent)
        times = job.run(count_clocks, clocks)
        used = (cpu_seconds(agent) - before) / clocks * 1e6
    return {"us": max(times), "agent_us": used[0], "agent_user_us": used[1], "agent_system_us": used[2]}


def agent_of(job: nbps.Job) -> int:
    """Return the pid of this node's agent."""
    assert job._open is not None
    assert job._open.group is not None
    return job._open.group.pids[-1]


# --------------------------------------------------------------------------- bytes


def change_rows(worker: nbps.Worker, share: float, clocks: int) -> None:
    """Add to that share of the rows, spread evenly over the table, in each clock."""
    table = worker.table("rows")
    rows, width = table.shape
    count = round(share * rows)
    ids = np.arange(count) * rows // max(count, 1)
    deltas = np.ones((count, width), np.float32)
    for _ in range(clocks):
        if count:
            table.inc(ids, deltas)
        worker.clock()


def bytes_(rows: int, width: int, shares: list[float], clocks: int) -> dict[str, Any]:
    """Count what this node sends in a clock in which all nodes change such shares of the rows."""
    sent, started, seconds = [], [], []
    with nbps.Job([nbps.Table("rows", rows, width)], workers=1, consistency=nbps.ESSP(0)) as job:
        assert job._open is not None
        assert job._open.agent is not None
        for share in shares:
            before = job._open.agent.traffic
            start = time.perf_counter()
            job.run(change_rows, share, clocks)
            seconds.append((time.perf_counter() - start) / clocks)
            after = job._open.agent.traffic
            sent.append((after.bytes_sent - before.bytes_sent) / clocks)
            started.append((after.rows_sent - before.rows_sent) / clocks)
    return {"shares": shares, "bytes": sent, "rows": started, "seconds": seconds}


# --------------------------------------------------------------------------- factorization


def factorize(data: str | None, epochs: int, rank: int, workers: int, small: bool) -> dict[str, Any]:
    """Train matrix factorization; return speed and error of every epoch."""
    if data is None:
        users, items, count = (300, 200, 8_000) if small else (6040, 3706, 1_000_209)
        ratings = generate_ratings(users=users, items=items, ratings=count)
    else:
        ratings = read_ratings(Path(data))
    train, test = ratings.split(0.1, 0)
    model = MatrixFactorization(rank=rank, epochs=epochs, workers=workers, random_state=0).fit(train, validation=test)
    return {
        "ratings": len(train),
        "seconds": [record.seconds for record in model.history_],
        "rmse": [record.validation_rmse for record in model.history_],
    }


# --------------------------------------------------------------------------- soak


def exchange(worker: nbps.Worker, clocks: int, until: float) -> int:
    """Add to random rows for so many clocks; node 0 says in a table of its own whether it is late."""
    live, copied, over = worker.table("live"), worker.table("copied"), worker.table("over")
    draw = np.random.default_rng(worker.rank)
    rows, width = live.shape
    for _ in range(clocks):
        ids = draw.integers(rows, size=rows // 10)
        live.inc(ids, np.ones((ids.size, width), np.float32))
        copied.inc(ids, np.ones((ids.size, width), np.float32))
        copied.get(ids[:10])
        worker.clock()
    if worker.rank == 0 and time.time() > until:
        over.inc(0, np.ones(1, np.int64))
    return clocks


def soak(seconds: float, folder: str, rows: int, clocks: int) -> dict[str, Any]:
    """Exchange rows in run after run, with checkpoints, until time is over."""
    tables = [
        nbps.Table("live", rows, 32),
        nbps.Table("copied", rows, 32, access="cached"),
        nbps.Table("over", 1, 1, dtype="int64"),
    ]
    until, runs = time.time() + seconds, 0
    every = max(1, clocks // 4)
    with nbps.Job(
        tables, workers=1, consistency=nbps.ESSP(1), checkpoints=nbps.Checkpoints(folder, every, keep=2)
    ) as job:
        print("running", flush=True)
        while not job.table("over").to_numpy().any():
            job.run(exchange, clocks, until)
            runs += 1
        expected = runs * clocks * 2 * (rows // 10) * 32
        lost = {name: expected - int(job.table(name).to_numpy().sum(dtype=np.float64)) for name in ("live", "copied")}
    return {"runs": runs, "clocks": runs * clocks, "lost": lost}


PROGRAMS = {"clock": clock, "bytes": bytes_, "factorize": factorize, "soak": soak}

if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
