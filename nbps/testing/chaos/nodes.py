"""The probe in jobs of several nodes on this machine: what all their workers did, merged and checked.

`run_on_nodes` starts nodes as processes (`nbps.testing.chaos.cluster`), which carry out one job after the other. Every
worker of every node journals into a folder of its run; one monotonic clock is everybody's. Each run is judged on its
own, by what it added: a run starts with the rows that the one before has left on all nodes, which must be the same to
the bit.
"""

from __future__ import annotations

import contextlib
import operator
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

import nbps
from nbps.testing.chaos.cluster import Cluster, eventually
from nbps.testing.chaos.workers import read_journals
from nbps.testing.consistency.history import Entry, Read, RowKey, Violation, check
from nbps.testing.consistency.probe import Array, Plan, Program, decoded, history_of, prepared

_SCRIPT = """
import sys
from nbps.testing.chaos.nodes import play
play(sys.argv[1])
"""
_JOBS = "jobs"
_TIDY_S = 10.0


class ProbeRun(NamedTuple):
    """A run of the probe, on the tables called `tables`; on all if it is empty."""

    plan: Plan
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeJob:
    """A job that runs the probe on several nodes.

    Attributes
    ----------
    model : BSP, SSP, ESSP, ASP, VAP
    tables : sequence of Table
        Probe tables, as wide as there are workers on all nodes.
    workers : sequence of int
        Of each node.
    runs : sequence of ProbeRun or callable
        Whatever is called gets the worker, as any function that `Job.run` is given.
    preload : callable, optional
        As of `nbps.Job`; it may come from anywhere.
    options : mapping
        More arguments of `nbps.Job`.
    """

    model: Any
    tables: Sequence[nbps.Table]
    workers: Sequence[int]
    runs: Sequence[ProbeRun | Program] = (ProbeRun(Plan()),)
    preload: Callable[[], object] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        tables = ", ".join(
            f"{table.name} {table.rows}x{table.width} {table.dtype} {table.access} {table.sharding}"
            + ("" if table.staleness is None else f" staleness {table.staleness:g}")
            for table in self.tables
        )
        workers = "+".join(map(str, self.workers))
        return f"{workers} workers, {self.model}, {[*self.runs]}, {dict(self.options)}, {tables}"

    def tables_of(self, run: ProbeRun | Program) -> list[nbps.Table]:
        """Return the tables that `run` uses."""
        names = run.tables if isinstance(run, ProbeRun) else ()
        return [table for table in self.tables if not names or table.name in names]


class RunOutcome(NamedTuple):
    """What became of a run.

    Attributes
    ----------
    entries : list of Entry
        What all workers of the probe recorded.
    violations : list of Violation
        Of the history, and of the promise that all nodes end a run with the same rows (``same``).
    results : list
        What the workers returned, by rank; empty if the run failed anywhere. Those of the probe are its `entries`.
    ends : list of dict
        Of each node, if it came to the end on all of them: the values of all tables by name.
    """

    entries: list[Entry]
    violations: list[Violation]
    results: list[Any]
    ends: list[Mapping[str, Array]]


@dataclass(frozen=True)
class NodeOutcome:
    """What became of a job.

    Attributes
    ----------
    job : NodeJob
    errors : list of Exception or None
        What `Job` raised on each node; `LookupError` where a node never came so far.
    runs : list of RunOutcome
        Of those that have begun.
    """

    job: NodeJob
    errors: list[Exception | None]
    runs: list[RunOutcome]

    @property
    def violations(self) -> list[Violation]:
        """Of all runs."""
        return [violation for run in self.runs for violation in run.violations]

    @property
    def entries(self) -> list[Entry]:
        """Everything that was recorded."""
        return [entry for run in self.runs for entry in run.entries]


class ProbeCluster(Cluster):
    """Nodes that carry out `jobs`, one after the other; the arguments are those of `Cluster`."""

    def __init__(self, jobs: Sequence[NodeJob], nodes: int, **arguments: Any) -> None:
        self.jobs = jobs
        self._journals = tempfile.TemporaryDirectory(prefix="nbps-nodes-")
        self.folder = Path(self._journals.name)
        for n, job in enumerate(jobs):
            if len(job.workers) != nodes:
                raise ValueError(f"job {n} says the workers of {len(job.workers)} nodes; there are {nodes}")
            for run in range(len(job.runs)):
                (self.folder / f"{n}-{run}").mkdir()
        (self.folder / _JOBS).write_bytes(cloudpickle.dumps(list(jobs)))
        script = self.folder / "play.py"
        script.write_text(_SCRIPT)
        super().__init__(script, nodes, [str(self.folder)], **arguments)

    def close(self) -> None:
        """Kill what runs and remove all files."""
        super().close()
        self._journals.cleanup()

    def outcome(self, number: int) -> NodeOutcome:
        """Return what became of job `number`, which is over."""
        job, nodes = self.jobs[number], range(len(self.nodes))
        said: list[dict[str, Any]] = []
        for rank in nodes:
            path = self.folder / f"{number}-end-{rank}"
            said.append(pickle.loads(path.read_bytes()) if path.exists() else _no_end(rank))
        runs = []
        before: dict[RowKey, Sequence[int | None]] = {}
        for n, run in enumerate(job.runs):
            done = [one["runs"][n] for one in said if len(one["runs"]) > n]
            if len(done) < len(nodes):
                done = []
            entries = [_since(entry, before) for entry in read_journals(self.folder / f"{number}-{n}")]
            ends, results = [end for _, end in done], [result for results, _ in done for result in results]
            found = _differences(job.tables_of(run), ends)
            if isinstance(run, ProbeRun):
                found = self._check(job, run, entries, ends, before) + found
            if entries or done:
                runs.append(RunOutcome(entries, found, results, ends))
            before = _counts(job, ends[0]) if ends else {}
        return NodeOutcome(job, [one["error"] for one in said], runs)

    def _check(
        self,
        job: NodeJob,
        run: ProbeRun,
        entries: list[Entry],
        ends: Sequence[Mapping[str, Array]],
        before: Mapping[RowKey, Sequence[int | None]],
    ) -> list[Violation]:
        final = ends[0] if ends else None
        history = history_of(entries, final, sum(job.workers), job.model, job.tables_of(run))
        if history.final is not None:
            history.final = {key: _minus(values, before.get(key)) for key, values in history.final.items()}
        return check(history)

    def agents(self) -> dict[int, int]:
        """Return the pid of the agent of each node whose job has started last, by rank."""
        found = {}
        for rank in range(len(self.nodes)):
            with contextlib.suppress(FileNotFoundError):
                found[rank] = int((self.folder / f"agent-{rank}").read_text())
        return found


def run_on_nodes(jobs: Sequence[NodeJob], nodes: int, timeout_s: float = 120.0, **arguments: Any) -> list[NodeOutcome]:
    """Carry out `jobs` on `nodes` nodes of this machine; the arguments are those of `Cluster`.

    Raises
    ------
    TimeoutError
        If they do not end, or leave something behind.
    ChildProcessError
        If a node ended in bad order.

    Examples
    --------
    >>> import nbps
    >>> from nbps.testing.chaos import nodes; from nbps.testing.consistency import probe
    >>> runs = [nodes.ProbeRun(probe.Plan(clocks=3))]
    >>> job = nodes.NodeJob(nbps.SSP(1), probe.probe_tables(2), workers=[1, 1], runs=runs)
    >>> [outcome] = nodes.run_on_nodes([job], nodes=2)
    >>> outcome.violations, outcome.errors
    ([], [None, None])
    """
    with ProbeCluster(jobs, nodes, **arguments) as cluster:
        cluster.start()
        codes = cluster.wait(timeout_s)
        if any(codes):
            stories = "\n".join(node.story() for node in cluster.nodes)
            raise ChildProcessError(f"the nodes ended with exit codes {codes}\n{stories}")
        # The fork server of a driver that was killed ends a moment after it.
        eventually(lambda: not cluster.left_behind(), "all that the nodes left behind to go", _TIDY_S)
        return [cluster.outcome(number) for number in range(len(jobs))]


def play(folder: str) -> None:
    """Be a node: carry out the jobs of a `ProbeCluster`."""
    where = Path(folder)
    jobs: list[NodeJob] = cloudpickle.loads((where / _JOBS).read_bytes())
    rank = nbps.Nodes.from_environment().rank
    for number, job in enumerate(jobs):
        runs: list[tuple[list[Any], Mapping[str, Array]]] = []
        error: Exception | None = None
        try:
            _play_job(job, rank, where, number, runs)
        except Exception as caught:  # judged by who reads it
            error = caught
        path = where / f"{number}-end-{rank}"
        _write(path, cloudpickle.dumps({"runs": runs, "error": error}))


def _play_job(
    job: NodeJob, rank: int, folder: Path, number: int, runs: list[tuple[list[Any], Mapping[str, Array]]]
) -> None:
    options = {"clock_timeout_s": 60.0, **job.options}
    running = nbps.Job(job.tables, workers=job.workers[rank], consistency=job.model, preload=job.preload, **options)
    with running:
        opened = running._open
        assert opened is not None
        assert opened.group is not None
        _write(folder / f"agent-{rank}", str(opened.group.pids[-1]).encode())
        for n, run in enumerate(job.runs):
            if isinstance(run, ProbeRun):
                results = []
                running.run(prepared(job.tables_of(run), job.model, run.plan, str(folder / f"{number}-{n}")))
            else:
                results = running.run(run)
            runs.append((results, {table.name: running.table(table.name).to_numpy() for table in job.tables}))


def _write(path: Path, what: bytes) -> None:
    """Write a file that is never seen half."""
    part = path.with_suffix(".part")
    part.write_bytes(what)
    part.replace(path)


def _no_end(rank: int) -> dict[str, Any]:
    return {"runs": [], "error": LookupError(f"node {rank} did not come to the end of this job")}


def _counts(job: NodeJob, end: Mapping[str, Array]) -> dict[RowKey, Sequence[int | None]]:
    return {
        (table.name, row): decoded(values, table.dtype)
        for table in job.tables
        for row, values in enumerate(end[table.name])
    }


def _minus(values: Sequence[int], before: Sequence[int | None] | None) -> tuple[int, ...]:
    if before is None:
        return tuple(values)
    return tuple(map(operator.sub, values, [0 if value is None else value for value in before]))


def _since(entry: Entry, before: Mapping[RowKey, Sequence[int | None]]) -> Entry:
    """Return `entry` with what a read showed of this run alone."""
    if not isinstance(entry, Read):
        return entry
    return entry._replace(values=_minus(entry.values, before.get((entry.table, entry.row))))


def _differences(tables: Sequence[nbps.Table], ends: Sequence[Mapping[str, Array]]) -> list[Violation]:
    found = []
    for table in tables:
        for rank, end in enumerate(ends[1:], 1):
            one, other = ends[0][table.name], end[table.name]
            # By their bits: NaN is what it is, and the two zeros are not one.
            rows = [row for row in range(table.rows) if one[row].tobytes() != other[row].tobytes()]
            if rows:
                text = (
                    f"after the end row {rows[0]} of table {table.name!r}, and {len(rows) - 1} others, are not the "
                    f"same: {one[rows[0]].tolist()} on node 0, {other[rows[0]].tolist()} on node {rank}"
                )
                found.append(Violation("same", text, None))
    return found
