"""A job: tables in shared memory and the workers that train on them."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from nbps import init, remote
from nbps.agent.driver import AgentControl
from nbps.agent.sharding import row_owners
from nbps.agent.spec import AgentSpec, SavePlan, SharedTable
from nbps.checkpoints import Checkpoints, Resumed, definitions, new_attempt, read_checkpoint
from nbps.checks import whole
from nbps.consistency import BSP, ESSP, VAP, Consistency, check_consistency
from nbps.errors import AbortedError, ConfigError, JobClosedError, TableError
from nbps.job_nodes import check_nodes, default_workers, place_of, sharding_of
from nbps.job_table import JobTable
from nbps.nodes import Nodes
from nbps.report import Report
from nbps.runtime.board import Board
from nbps.runtime.cores import usable_cores
from nbps.runtime.group import WorkerGroup, fill_standard_descriptors
from nbps.runtime.segments import Segment, remove_orphans
from nbps.table import Table, checked_tables, with_staleness
from nbps.worker_spec import TableSpec, WorkerSpec

R = TypeVar("R")
_LONGEST_S = 1e9  # a limit of thirty years is none


class Job:
    """Parameter tables and worker processes that share them under one consistency model.

    Use it as a context manager: entering creates the tables and starts the workers, leaving ends them and gives the
    memory back.

    Parameters
    ----------
    tables : sequence of Table
    workers : int, optional
        Processes on this node; by default ``NBPS_WORKERS``, else all cores that this process may use.
    consistency : BSP, SSP, ESSP, ASP, VAP
        ``ESSP(2)`` by default.
    seed : int
        Seeds the tables' initial values and ``worker.random``.
    clock_timeout_s : float
        How long a worker waits for the others before `ClockTimeoutError`; it says for whom it waits after 30 s.
    preload : callable, optional
        Called once, without arguments, in the process from which the workers are forked: compile or import there what
        all of them need.
    staleness : mapping of str to int, optional
        Staleness of tables by name, where it shall differ from the job's and from what `Table` says.
    nodes : Nodes, optional
        Where this process stands among the nodes of the job; read from the environment by default
        (`Nodes.from_environment`), one node where it says nothing.
    failure_timeout_s : float
        A node that is not heard for so long is lost: the job ends on all others, which name it.
    start_timeout_s : float
        How long the nodes wait for each other at the start.
    checkpoints : Checkpoints, optional
        Save the tables while the job runs.
    record_staleness : bool
        Record the clock differential of every read. Without it a ``get`` of one row takes an eighth less time, and the
        report has none.

    Examples
    --------
    >>> import nbps
    >>> def count(worker):
    ...     table = worker.table("counts")
    ...     for _ in range(3):
    ...         table.inc(0, 1)
    ...         worker.clock()
    ...     return worker.rank
    >>> with nbps.Job([nbps.Table("counts", rows=1, width=1, dtype="int64")], workers=2) as job:
    ...     print(job.run(count), job.table("counts").to_numpy())
    [0, 1] [[6]]
    """

    def __init__(
        self,
        tables: Sequence[Table],
        workers: int | None = None,
        consistency: Consistency | None = None,
        seed: int = 0,
        clock_timeout_s: float = 600.0,
        preload: Callable[[], object] | None = None,
        staleness: Mapping[str, float] | None = None,
        record_staleness: bool = True,
        nodes: Nodes | None = None,
        failure_timeout_s: float = 30.0,
        start_timeout_s: float = 60.0,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.tables = with_staleness(checked_tables(tables), {} if staleness is None else staleness)
        self.workers = default_workers() if workers is None else whole("Job: workers", workers, 1)
        self.nodes = Nodes.from_environment() if nodes is None else nodes
        self.consistency = ESSP() if consistency is None else consistency
        self.seed = whole("Job: seed", seed, 0)
        self.clock_timeout_s = _seconds("clock_timeout_s", clock_timeout_s)
        self.failure_timeout_s = _seconds("failure_timeout_s", failure_timeout_s)
        self.start_timeout_s = _seconds("start_timeout_s", start_timeout_s)
        check_consistency(self.consistency, "Job")
        _check_strict(self.consistency, self.tables)
        if self.nodes.count > 1:
            check_nodes(self.nodes, self.tables, self.consistency)
        if not isinstance(record_staleness, bool):
            raise ConfigError(f"Job: record_staleness is {record_staleness!r}; expected True or False")
        self.record_staleness = record_staleness
        if not isinstance(checkpoints, Checkpoints | None):
            raise ConfigError(f"Job: checkpoints is {checkpoints!r}; expected nbps.Checkpoints(path, every=...)")
        self.checkpoints = checkpoints
        self.resumed: Resumed | None = None
        self._run = 0  # number of the next run
        self._saved = 0  # checkpoints between runs
        self._preload = preload
        self._run_lock = threading.Lock()
        self._views: dict[str, JobTable] = {}
        self._group: WorkerGroup | None = None
        self._board: Board | None = None
        self._agent: AgentControl | None = None
        self._marks: dict[str, str] = {}  # segments with a byte for each row, by table
        self._sizes = (self.workers,)  # workers of each node
        self._report: Report | None = None
        self._cleanup: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        if self._cleanup is not None:
            raise JobClosedError("this job was started before; make a new Job to run again")
        fill_standard_descriptors()
        remove_orphans()
        bounded = isinstance(self.consistency, VAP)
        kinds = {(table.dtype, table.access, table.check_finite) for table in self.tables}
        several = self.nodes.count > 1
        needs_agent = several or self.checkpoints is not None
        preload: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(remote.prepare, (kinds, bounded, needs_agent))]
        if self._preload is not None:
            preload.append((self._preload, ()))
        held = _Held()
        self._cleanup = weakref.finalize(self, held.release)
        try:
            self._agent = held.agent = AgentControl() if needs_agent else None
            doorbell = -1 if self._agent is None else self._agent.doorbell
            self._board = board = Board(self.workers, bounded, self.nodes.count if needs_agent else 0, doorbell)
            held.segments.append(board.segment)
            self._group = held.group = WorkerGroup(
                self.workers,
                preload,
                on_stop=self._on_stop(board),
                describe=functools.partial(_describe, board, self.nodes.rank, several),
                companions=int(needs_agent),
                inherited=() if self._agent is None else self._agent.inherited,
            )
            for table in self.tables:
                self._create(table, held.segments)
            self._group.start()
            if self._agent is not None:
                self._sizes = self._agent.join(self._group, self.workers, self._agent_spec(self._agent, board))
            self._group.call(remote.open_worker, self._spec())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> list[R]:
        """Call ``function(worker, *args, **kwargs)`` in every worker of this node; clocks start at 0.

        `function` may come from a notebook or ``__main__``. Workers see arrays among the arguments read-only; those
        from 64 KiB on are put into shared memory once, and not copied. When a worker returns, its updates are
        committed and it holds nobody back any more.

        With several nodes every one of them calls `run`, with a function of its own script, and gets the results of its
        own workers. It returns when all workers of all nodes have, and then every node's tables hold the same.

        Returns
        -------
        list
            One result for each worker of this node, in rank order.

        Raises
        ------
        Exception
            What `function` raised in a worker, with that worker's traceback as a note. The job then runs no more; its
            tables can still be read.
        WorkerError
            In its place if it cannot be raised here, or would end the program, as `SystemExit` does.
        WorkerDiedError
            If a worker process was killed.
        NodeError
            If another node failed, ended the job, or was lost.
        KeyboardInterrupt
            After Ctrl-C: once ends the workers in good order, twice at once.
        """
        group, board = self._running()
        if not self._run_lock.acquire(blocking=False):
            raise JobClosedError("run: another thread runs this job; wait for it to end")
        try:
            clock = self._first_clock()
            self._run += 1
            board.reset(clock)
            if self._agent is None:
                return group.call(remote.run, clock, function, args, kwargs)
            self._agent.begin()
            results = group.call(remote.run, clock, function, args, kwargs, listen=self._agent.listener)
            group.wait_for(self._agent.listener, self._agent.is_done)
            return results
        except (Exception, AbortedError):
            if self._board is None:  # a worker ended, or a closed connection was looked at: it depends
                raise JobClosedError("run: another thread closed the job") from None
            raise
        finally:
            self._run_lock.release()

    @classmethod
    def resume(cls, path: str | Path, tables: Sequence[Table] | None = None, **options: Any) -> Self:
        """Make a job that goes on from the newest complete checkpoint at `path`, with any number of nodes and workers.

        The first `run` starts at the clock of the checkpoint (``worker.current_clock``), and `resumed` tells which it
        was. All nodes call this.

        Parameters
        ----------
        path : str or Path
            What `Checkpoints` or `checkpoint` was given, or the folder of one checkpoint in it.
        tables : sequence of Table, optional
            Those of the checkpoint by default; others must have the same names, shapes and dtypes, and start with its
            values all the same.
        **options
            As of `Job`.

        Raises
        ------
        CheckpointError
            If there is no complete checkpoint, it is damaged, or has other tables.
        """
        found, resumed = read_checkpoint(path, tables)
        job = cls(found, **options)
        job.resumed = resumed
        job._run = resumed.run
        return job

    def checkpoint(self, path: str | Path, state: object = None, keep: int | None = None) -> None:
        """Save the tables between two runs; all nodes call this.

        On node 0 it returns when the checkpoint is complete, on others when their part is written.

        Parameters
        ----------
        path : str or Path
            As of `Checkpoints`.
        state : object
            JSON that `resumed` gives back; that of node 0 counts.
        keep : int, optional
            How many checkpoints stay; all by default.

        Raises
        ------
        CheckpointError
            If it cannot be written: older ones stay as they were.
        """
        from nbps.runtime.checkpoint import CheckpointWriter

        if self._board is None or self._run_lock.locked():
            raise JobClosedError("checkpoint: expected an open job that is not running; use Job(checkpoints=...) there")
        attempt = self._agent.attempt if self._agent is not None else new_attempt()
        nodes = self.nodes
        writer = CheckpointWriter(
            path, f"{attempt}-saved{self._saved}", nodes.rank, nodes.count, definitions(self.tables), keep
        )
        self._saved += 1
        parts = {}
        for table in self.tables:
            own = np.flatnonzero(row_owners(table.rows, nodes.count, sharding_of(table)) == nodes.rank)
            parts[table.name] = own, self._views[table.name].rows(own)
        clock = self._first_clock()
        writer.write(clock, parts)
        if nodes.rank == 0:
            writer.complete(clock, self.failure_timeout_s, lambda: False, {"run": self._run, "user": state})

    def _first_clock(self) -> int:
        """Return the clock at which the next run starts."""
        return self.resumed.clock if self.resumed is not None and self._run == self.resumed.run else 0

    @property
    def size(self) -> int:
        """Workers of all nodes."""
        return sum(self._sizes)

    def table(self, name: str) -> JobTable:
        """Return the table called `name`; readable until the job is closed.

        Raises
        ------
        TableError
            If there is none of that name.
        """
        if self._cleanup is None or self._board is None:
            raise JobClosedError(f"table {name!r}: the job is not open; use it inside `with job:`")
        if name not in self._views:
            known = ", ".join(map(repr, self._views)) or "none"
            raise TableError(f"unknown table {name!r}; this job's tables: {known}")
        return self._views[name]

    def report(self) -> Report:
        """Return what the job measured so far; also after it was closed."""
        if self._board is not None:
            counters = [self._board.statistics(rank) for rank in range(self.workers)]
            return Report.from_counters(
                str(self.consistency), counters, isinstance(self.consistency, VAP), self.record_staleness
            )
        if self._report is None:
            raise JobClosedError("report: the job has not run; use it inside `with job:`")
        return self._report

    def close(self) -> None:
        """End the workers and give the shared memory back. Idempotent."""
        if self._board is not None:
            self._report = self.report()
            if self._run_lock.locked():
                self._board.abort()  # workers in a run end at their next wait, not at the end of it
        self._board = None
        for view in self._views.values():
            view.close()
        if self._cleanup is not None:
            self._cleanup()

    def _create(self, table: Table, segments: list[Segment]) -> None:
        from nbps.runtime.arrow import create_table_segment

        segment, layout, values = create_table_segment(table.name, table.rows, table.width, table.dtype)
        segments.append(segment)
        assert callable(table.init)
        try:
            table.init(values, init.generator(self.seed, table.name))
        except Exception as error:
            error.add_note(f"while initialising table {table.name!r}")
            raise
        self._views[table.name] = JobTable(table, segment, layout, values)
        if self._agent is not None:
            marks = Segment(f"{table.name}-marks", -(-table.rows // 8) * 8)
            segments.append(marks)
            self._marks[table.name] = marks.name

    def _spec(self) -> WorkerSpec:
        assert self._board is not None
        tables = tuple(
            TableSpec(
                name=table.name,
                layout=self._views[table.name].layout,
                marks=self._marks.get(table.name),
                access=table.access,
                staleness=self.consistency.staleness if table.staleness is None else table.staleness,
                check_finite=table.check_finite,
            )
            for table in self.tables
        )
        return WorkerSpec(
            workers=self.workers,
            shards=self.nodes.count if self._agent is not None else 0,
            node=self.nodes.rank,
            first=sum(self._sizes[: self.nodes.rank]),
            size=sum(self._sizes),
            board=self._board.segment.name,
            tables=tables,
            consistency=self.consistency,
            seed=self.seed,
            clock_timeout_s=self.clock_timeout_s,
            oversubscribed=self.workers + (self._agent is not None) > usable_cores(),
            record_staleness=self.record_staleness,
            checkpoint_every=0 if self.checkpoints is None else self.checkpoints.every,
        )

    def _agent_spec(self, agent: AgentControl, board: Board) -> AgentSpec:
        tables = [(table, self._views[table.name]) for table in self.tables]
        several, plan = self.nodes.count > 1, self.checkpoints
        return AgentSpec(
            place=place_of(self, [(table, view.to_numpy()) for table, view in tables]) if several else None,
            control=agent.remote,
            board=board.segment.name,
            workers=self.workers,
            terms=self._spec().terms(),
            tables=tuple(
                SharedTable(
                    table.name, view.layout, self._marks[table.name], table.access,
                    sharding_of(table), table.replicate == "clock",
                )
                for table, view in tables
            ),
            failure_timeout_s=self.failure_timeout_s,
            spins=self.workers + 1 < usable_cores(),
            clock=self._first_clock(),
            first_run=self._run,
            save=None if plan is None else SavePlan(plan.path, plan.keep, definitions(self.tables)),
        )  # fmt: skip

    def _on_stop(self, board: Board) -> Callable[[str], None]:
        agent = self._agent

        def stop(reason: str) -> None:
            board.abort()
            if agent is not None:
                agent.fail(reason)
                agent.close()

        return stop

    def _running(self) -> tuple[WorkerGroup, Board]:
        if self._group is None or self._board is None:
            raise JobClosedError("run: the job is not open; use it inside `with job:`")
        if self._group.closed:
            raise JobClosedError("run: the workers were stopped after an error or Ctrl-C; make a new Job to run again")
        return self._group, self._board


class _Held:
    """What a job holds on the machine.

    It does not refer to the job, so that a job dropped without `close` gives it back as well.
    """

    def __init__(self) -> None:
        self.group: WorkerGroup | None = None
        self.agent: AgentControl | None = None
        self.segments: list[Segment] = []
        self._owner = os.getpid()

    def release(self) -> None:
        """End the workers and remove the segments; does nothing in a fork of the driver."""
        if os.getpid() != self._owner:
            return  # it has a copy of the job, which is not its to end
        try:
            if self.agent is not None:
                self.agent.close()
            if self.group is not None:
                self.group.close()
        finally:
            for segment in self.segments:
                segment.unlink()


def _seconds(name: str, value: Any) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value > 0:
        raise ConfigError(f"Job: {name} is {value!r}; expected seconds > 0")
    return float(min(value, _LONGEST_S))


def _describe(board: Board, node: int, several: bool, rank: int) -> str:
    if rank == board.workers:
        return f"the agent of node {node}"
    if several:
        return f"{_describe(board, node, False, rank)} of node {node}"
    clock = board.clock(rank)
    return f"worker {rank}" if clock is None else f"worker {rank} at clock {clock}"


def _check_strict(model: Consistency, tables: tuple[Table, ...]) -> None:
    live = [table.name for table in tables if table.access == "direct"]
    if isinstance(model, BSP) and live:
        raise ConfigError(
            f"Job: BSP() with table {live[0]!r}, access 'direct': direct rows show updates of the running clock, so "
            f"runs would not be reproducible; expected access='cached', or 'exclusive' where each row has one "
            f"writer in a clock, or SSP(0) for the bound alone"
        )
