"""A job: tables in shared memory and the workers that train on them."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from nbps.checkpoint.format import lineage_of
from nbps.checkpoint.progress import Progress
from nbps.consistency import VAP
from nbps.errors import AbortedError, CheckpointError, ConfigError, JobClosedError, NodeError, TableError
from nbps.job.checkpoints import (
    Resumed,
    last_of_life,
    read_checkpoint,
    say,
    say_if_shared,
    write_checkpoint,
)
from nbps.job.cluster import surviving_nodes
from nbps.job.open import OpenJob, naming_limits
from nbps.job.report import Report
from nbps.job.settings import JobSettings, taking
from nbps.memory.segments import remove_orphans
from nbps.runtime.descriptors import fill_standard_descriptors
from nbps.tables.definition import Table
from nbps.tables.driver import JobTable

R = TypeVar("R")
_numbers = itertools.count()


class Job:
    """Parameter tables and worker processes that share them under one consistency model.

    Use it as a context manager: entering creates the tables and starts the workers, leaving ends them and gives the
    memory back. The first job of a process also starts one that stays, with Numba and kernels loaded, from which the
    later ones fork their workers in less than a tenth of a second; it ends with this process.

    All arguments but the first two are given by name; `settings` holds what they came to (`JobSettings`).

    Parameters
    ----------
    tables : sequence of Table
    workers : int, optional
        Processes on this node; by default ``NBPS_WORKERS``, else all cores that this process may use; nodes on
        one machine share them. At most 819: `Worker.sum` has no room for more.
    consistency : BSP, SSP, ESSP, ASP, VAP
        ``ESSP(2)`` by default.
    seed : int
        Seeds the tables' initial values, ``worker.random`` and workers' global generators; the same on all nodes.
    clock_timeout_s : float
        How long a worker waits for the others before `ClockTimeoutError`; it says for whom it waits after 30 s.
    preload : callable, optional
        Called once, without arguments, in the process from which the workers are forked: compile or import there what
        all of them need.
    nodes : Nodes, optional
        Where this process stands among the nodes of the job; read from the environment by default
        (`Nodes.from_environment`), one node where it says nothing.
    failure_timeout_s : float
        A node that is not heard for so long is lost: the job ends on all others, which name it.
    on_failure : {"fail", "continue", "wait"}
        What happens when a node is lost. ``fail``: the job ends everywhere with the reason. ``continue``: the other
        nodes start the run again from the last checkpoint, with fewer workers, if they are more than half of the nodes
        (or half, with node 0); else, or without a checkpoint of this run, it ends with the reason. ``wait``: nobody is
        ever lost; a network that comes back is as if it had never been away, a machine that does not holds up the job.
    bandwidth_budget : float, optional
        With several nodes, under `SSP`, `ESSP` and `ASP`: bytes a second for additions that are sent to their owners
        before the clock that commits them, those first that change their rows most (Wei et al., SoCC 2015). None for
        nothing between clocks, which is right unless clocks are long.
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

    @taking(JobSettings)
    def __init__(self, settings: JobSettings) -> None:
        self.settings = settings
        self.resumed: Resumed | None = None
        self._run = 0  # number of the next run
        self._saved = 0  # checkpoints between runs
        self._number = 0  # of the jobs that this script has started over several nodes: other nodes count alike
        self._run_lock = threading.Lock()
        self._open: OpenJob | None = None
        self._gave_up: NodeError | None = None  # why it could not go on without a lost node
        self._report: Report | None = None
        self._cleanup: weakref.finalize[Any, Any] | None = None

    def __repr__(self) -> str:
        settings = self.settings
        state = "open" if self._open is not None else "closed" if self._cleanup is not None else "not started"
        nodes = "" if settings.nodes.count == 1 else f" on node {settings.nodes.rank} of {settings.nodes.count}"
        tables = ", ".join(repr(table.name) for table in settings.tables) or "none"
        workers = f"{settings.workers} worker{'s' * (settings.workers > 1)}"
        return f"<Job: {workers}{nodes}, {settings.consistency}, tables {tables}; {state}>"

    def __enter__(self) -> Self:
        if self._cleanup is not None:
            raise JobClosedError("this job was started before; make a new Job to run again")
        if self.settings.nodes.count > 1:
            self._number = next(_numbers)
        fill_standard_descriptors()
        remove_orphans()
        self._start()
        return self

    def _start(self) -> None:
        plan = self.settings.checkpoints
        if plan is not None and self.settings.nodes.rank == 0:
            say_if_shared(plan.path, None if self.resumed is None else self.resumed.lineage)
        with naming_limits():
            self._open = OpenJob(self.settings, self.resumed)
            self._cleanup = weakref.finalize(self, self._open.release)
            try:
                self._open.start(self._number, self._run, self._first_clock())
            except BaseException:
                self._open = None
                self._cleanup()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_well = isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)
        if error is not None and not ended_well and self._open is not None and not self._run_lock.locked():
            self._open.fail(error)
        self.close()

    def run(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> list[R]:
        """Call ``function(worker, *args, **kwargs)`` in every worker of this node.

        Clocks start at 0, in the first run of a job that was resumed at that of the checkpoint.

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
        CheckpointError
            If a node could not write a checkpoint.
        JobClosedError
            If the job is not open, has failed before, is running, or this process is a fork of the one that opened it.
        ConfigError
            If `function` cannot be called.
        KeyboardInterrupt
            After Ctrl-C: once ends the workers in good order, twice at once.
        SystemExit
            143 after SIGTERM, if the job takes `checkpoints` and runs in the main thread: the next one has been taken.
        """
        if not callable(function):
            raise ConfigError(f"run: function is {function!r}; expected one whose first argument is the worker")
        self._check_running()
        if not self._run_lock.acquire(blocking=False):
            raise JobClosedError("run: another thread runs or saves this job; wait for it to end")
        try:
            return self._carry_out(function, args, kwargs)
        except (Exception, AbortedError):
            if self._open is not None or self._gave_up is not None:
                raise
            # Which error it was depends: a worker ended, or a closed connection was looked at.
            raise JobClosedError("run: another thread closed the job") from None
        finally:
            self._run += 1
            self._run_lock.release()

    def _carry_out(self, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[R]:
        while True:
            assert self._open is not None
            try:
                return self._open.run(self._first_clock(), function, args, kwargs)
            except NodeError as error:
                if self.settings.on_failure != "continue" or error.lost is None:
                    raise
                self._go_on_without(error, error.lost)

    def _go_on_without(self, error: NodeError, lost: int) -> None:
        """Open the job anew on the nodes that are left, from the last checkpoint.

        Raises
        ------
        NodeError
            If that cannot be: says why.
        """
        assert self._open is not None
        assert self._open.agent is not None
        settings = self.settings
        nodes = surviving_nodes(settings.nodes, self._open.agent.addresses, error, lost)
        try:
            if settings.checkpoints is None:
                raise CheckpointError("the job takes none; give it checkpoints=nbps.Checkpoints(path, every=...)")
            last = last_of_life(settings.checkpoints, self._open.attempt, self.resumed)
            tables, resumed = read_checkpoint(last, settings.tables)
            if resumed.run != self._run:
                raise CheckpointError(f"the last one is of run {resumed.run}, this is run {self._run}")
        except CheckpointError as missing:
            raise NodeError(f"{error}; it cannot go on without node {lost} and a checkpoint: {missing}") from error
        self._keep_report()
        assert self._cleanup is not None
        self._cleanup()
        self.resumed = resumed
        try:
            self.settings = dataclasses.replace(settings, nodes=nodes, tables=tables)
            self._start()
        except Exception as failed:
            self._gave_up = NodeError(f"{error}; it cannot go on with the {nodes.count} nodes left: {failed}")
            raise self._gave_up from failed
        say(f"node {lost} is lost; {nodes.count} nodes go on from clock {resumed.clock}, {resumed.path}")

    @classmethod
    def resume(
        cls, path: str | Path, tables: Sequence[Table] | None = None, newest_intact: bool = False, **options: Any
    ) -> Self:
        """Make a job that goes on from the newest complete checkpoint at `path`, with any number of nodes and workers.

        The first `run` starts at the clock of the checkpoint (``worker.current_clock``), and `resumed` tells which it
        was. It goes on taking checkpoints as the job did that took this one, into the folder of this one, unless
        `checkpoints` says otherwise (None for no more). All nodes call this.

        Parameters
        ----------
        path : str or Path
            What `Checkpoints` or `checkpoint` was given, or the folder of one checkpoint in it.
        tables : sequence of Table, optional
            Those of the checkpoint by default; others must have the same names, shapes and dtypes, and start with its
            values all the same.
        newest_intact : bool
            Read and verify all data first, and take the newest checkpoint of that job that is not damaged; which ones
            were is said. By default a damaged newest one is an error, which names older ones.
        **options
            As of `Job`.

        Raises
        ------
        CheckpointError
            If there is no complete checkpoint, it is damaged, or has other tables.
        """
        found, resumed = read_checkpoint(path, tables, newest_intact)
        job = cls(found, **{"checkpoints": resumed.plan, **options})
        job.resumed = resumed
        job._run = resumed.run
        for note in resumed.notes if job.settings.nodes.rank == 0 else ():
            say(note)
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
            How many of this job's checkpoints stay there; all by default.

        Raises
        ------
        CheckpointError
            If it cannot be written: older ones stay as they were.
        JobClosedError
            If the job is not open, or runs: give `Job` ``checkpoints`` to save during a run.
        """
        if self._open is not None:
            self._open.check_owner("checkpoint")
        if self._open is None or not self._run_lock.acquire(blocking=False):
            raise JobClosedError("checkpoint: expected an open job that is not running; use Job(checkpoints=...) there")
        try:
            opened, settings = self._open, self.settings
            if settings.nodes.rank == 0:
                say_if_shared(path, lineage_of(opened.attempt))
            self._saved += 1
            write_checkpoint(
                path, f"{opened.attempt}-saved{self._saved}", settings.nodes, settings.tables, opened.own_rows(), keep,
                self._first_clock(), self._progress(path, keep, state).to_json(), settings.failure_timeout_s,
            )  # fmt: skip
        finally:
            self._run_lock.release()

    def _progress(self, path: str | Path, keep: int | None, state: object) -> Progress:
        """Return where the job stands, and how one that goes on from a checkpoint at `path` takes them there."""
        plan = self.settings.checkpoints
        if plan is not None and keep is None and str(plan.path) == str(path):
            keep = plan.keep
        return Progress(self._run, 0 if plan is None else plan.every, keep, state)

    def _first_clock(self) -> int:
        """Return the clock at which the next run starts."""
        return self.resumed.clock if self.resumed is not None and self._run == self.resumed.run else 0

    @property
    def size(self) -> int:
        """Workers of all nodes."""
        return sum((self.settings.workers,) if self._open is None else self._open.sizes)

    def table(self, name: str) -> JobTable:
        """Return the table called `name`; readable until the job is closed.

        Raises
        ------
        TableError
            If there is none of that name.
        JobClosedError
            If the job is not open.
        """
        if self._open is None:
            raise JobClosedError(f"table {name!r}: the job is not open; use it inside `with job:`")
        if name not in self._open.views:
            known = ", ".join(map(repr, self._open.views)) or "none"
            raise TableError(f"unknown table {name!r}; this job's tables: {known}")
        return self._open.views[name]

    def report(self) -> Report:
        """Return what the job measured so far on this node; also after it was closed.

        After it went on without a lost node (``on_failure="continue"``): since then.
        """
        if self._open is not None:
            self._keep_report()
        if self._report is None:
            raise JobClosedError("report: the job has not run; use it inside `with job:`")
        return self._report

    def _keep_report(self) -> None:
        assert self._open is not None
        settings = self.settings
        counters = [self._open.board.statistics(rank) for rank in range(settings.workers)]
        agent, sizes = self._open.agent, self._open.sizes
        self._report = Report.from_counters(
            str(settings.consistency),
            counters,
            bounded=isinstance(settings.consistency, VAP),
            recorded=settings.record_staleness,
            traffic=agent.traffic if agent is not None and len(sizes) > 1 else None,
            first=sum(sizes[: settings.nodes.rank]),
        )

    def close(self) -> None:
        """End the workers and give the shared memory back. Idempotent; in a fork of this process it does nothing."""
        if self._open is not None and self._open.is_owned:
            self._keep_report()
            if self._run_lock.locked():
                self._open.board.abort()  # workers in a run end at their next wait, not at the end of it
        self._open = None
        # Not a call of it, which does nothing in a handler of atexit that runs after those of weakref.
        if self._cleanup is not None and (cleanup := self._cleanup.detach()) is not None:
            _, release, args, kwargs = cleanup
            release(*args, **(kwargs or {}))

    def _check_running(self) -> None:
        if self._open is None or self._open.group is None:
            raise JobClosedError("run: the job is not open; use it inside `with job:`")
        self._open.check_owner("run")
        if self._open.group.closed:
            raise JobClosedError("run: the workers were stopped after an error or Ctrl-C; make a new Job to run again")
