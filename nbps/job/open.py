"""What a job holds on the machine while it is open: its tables and board in shared memory, workers, and an agent."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.driver import AgentControl
from nbps.agent.spec import AgentSpec, SavePlan
from nbps.checkpoint.format import later_life
from nbps.consistency import VAP, Consistency
from nbps.errors import ConfigError, JobClosedError, NodeError, WorkerDiedError, WorkerError
from nbps.job import remote
from nbps.job.checkpoints import Resumed, definitions, new_life
from nbps.job.cluster import place_of
from nbps.job.settings import JobSettings
from nbps.job.termination import Termination
from nbps.job.worker_spec import WorkerSpec
from nbps.kernels.claim_layout import claims_bytes
from nbps.memory.segments import SYSTEM_HINTS, Segment
from nbps.nodes.nodes import Nodes
from nbps.runtime import forkserver
from nbps.runtime.board import Board
from nbps.runtime.cores import own_cores
from nbps.runtime.group import WorkerGroup
from nbps.tables.definition import Table
from nbps.tables.driver import JobTable
from nbps.tables.placed import PlacedTable
from nbps.tables.sharding import row_owners
from nbps.transport.mesh.roll import Roll

_Meeting = tuple[int, str, str | None, int]
_meetings: set[_Meeting] = set()  # processes, where their open jobs met other nodes, and as which


@contextlib.contextmanager
def naming_limits() -> Iterator[None]:
    """Raise `WorkerError`, which says what to do, where the system refuses files, memory or processes."""
    try:
        yield
    except OSError as error:
        if error.errno not in SYSTEM_HINTS:
            raise
        hint = SYSTEM_HINTS[error.errno]
        raise WorkerError(f"the job could not be started: {error.strerror}; {hint}") from error


class OpenJob:
    """What a job holds while it is open; `start` gets it, `release` gives it back.

    It does not keep the job, so that one dropped without `close` gives it back as well.

    Attributes
    ----------
    board : Board
    group : WorkerGroup
    agent : AgentControl or None
        With several nodes, or where checkpoints are taken.
    views : dict of str to JobTable
    """

    def __init__(self, settings: JobSettings, resumed: Resumed | None) -> None:
        self._settings = settings
        self._resumed = resumed
        self._owner = os.getpid()
        self._server = forkserver.current()  # before there are segments: it removes them if this process is killed
        self._segments: list[Segment] = []
        self._marks: dict[str, str] = {}  # segments with a byte for each row, by table
        self._states: dict[str, str] = {}
        self._claims: str | None = None
        self.views: dict[str, JobTable] = {}
        self._sizes = [settings.workers]
        self._met: _Meeting | None = None
        self.agent = AgentControl() if settings.nodes.count > 1 or settings.checkpoints is not None else None
        self.group: WorkerGroup | None = None
        self._alone = later_life(self._lineage, new_life())

    @property
    def _lineage(self) -> str | None:
        return None if self._resumed is None else self._resumed.lineage

    def check_owner(self, what: str) -> None:
        """Raise `JobClosedError` in a fork of the driver: answers of workers would come to the wrong one of the two."""
        if not self.is_owned:
            raise JobClosedError(
                f"{what}: this process, {os.getpid()}, is a fork of process {self._owner}, which opened the job and "
                f"alone can use it; open a job of its own here"
            )

    @property
    def is_owned(self) -> bool:
        """Whether this process opened it; a fork of that one has a copy, which is not its to use or to end."""
        return os.getpid() == self._owner

    @property
    def attempt(self) -> str:
        """What checkpoints call this life of the job, on all nodes."""
        return self._alone if self.agent is None else self.agent.attempt

    @property
    def sizes(self) -> tuple[int, ...]:
        """Workers of each node."""
        return tuple(self._sizes)

    def start(self, number: int, run: int, clock: int) -> None:
        """Create the tables, start the processes and find the other nodes of job `number`.

        Its first run, number `run`, starts at `clock`.
        """
        settings, agent = self._settings, self.agent
        bounded, nodes = isinstance(settings.consistency, VAP), settings.nodes
        self._met = _meet(nodes)
        shards, doorbell = (0, -1) if agent is None else (nodes.count, agent.doorbell)
        self.board = board = Board(settings.workers, bounded, shards, doorbell)
        self._segments.append(board.segment)
        kinds = {(table.dtype, table.access, table.is_claimed, table.check_finite) for table in settings.tables}
        kernels = kinds, bounded, 0 if agent is None else nodes.count
        prepared: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(remote.prepare, kernels)]
        if settings.preload is not None:
            prepared.append((settings.preload, ()))
        self.group = group = WorkerGroup(
            self._server,
            settings.workers,
            (remote.load, kernels),
            prepared,
            on_stop=functools.partial(_stop, board, agent, nodes),
            describe=functools.partial(_describe, board, self._sizes, nodes.rank),
            companions={} if agent is None else {"nbps-agent": (agent.remote,)},
            inherited=() if agent is None else (agent.doorbell,),
        )
        initial = {table.name: self._create(table) for table in settings.tables}
        self._create_claims()
        group.start()
        if agent is not None:
            place = place_of(settings, number, self._resumed, initial) if nodes.count > 1 else None
            self._sizes[:] = agent.join(
                group,
                settings.workers,
                AgentSpec(
                    place=place,
                    control=agent.remote,
                    board=board.segment.name,
                    workers=settings.workers,
                    terms=self._spec().terms(),
                    tables=self._placed(),
                    failure_timeout_s=settings.failure_timeout_s,
                    waits=settings.on_failure == "wait",
                    bandwidth_budget=settings.bandwidth_budget,
                    clock=clock,
                    first_run=run,
                    save=_save_plan(settings),
                    lineage=self._lineage,
                ),
            )
        self.open_workers(settings.consistency)

    def open_workers(self, model: Consistency) -> None:
        """Have the workers attach themselves to the job, or do it again under another staleness."""
        assert self.group is not None
        self.group.call(remote.open_worker, dataclasses.replace(self._spec(), consistency=model))

    def run(self, clock: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Call `function` in all workers, from `clock` on; return when all nodes are done."""
        group, agent = self.group, self.agent
        assert group is not None
        self.board.reset(clock)
        if agent is None:
            return group.call(remote.run, clock, function, args, kwargs)
        agent.begin()
        with contextlib.nullcontext() if self._settings.checkpoints is None else Termination(agent.terminate):
            results = group.call(remote.run, clock, function, args, kwargs, listen=agent.listener)
            group.wait_for(agent.listener, agent.is_done)
        return results

    def own_rows(self) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Return the rows that this node owns, numbers and live values by table."""
        own, nodes = {}, self._settings.nodes
        for table in self._settings.tables:
            rows = np.flatnonzero(row_owners(table.rows, nodes.count, table.sharding) == nodes.rank)
            own[table.name] = rows, self.views[table.name].live(rows)
        return own

    def fail(self, error: BaseException) -> None:
        """Tell the other nodes what the program raised between two runs, and end the workers."""
        if self.is_owned and self.group is not None and not self.group.closed:
            self.group.fail(error)

    def release(self) -> None:
        """End the processes and remove the segments; does nothing in a fork of the driver. Idempotent."""
        if not self.is_owned:
            return  # it has a copy of the job, which is not its to end
        for view in self.views.values():
            view.close()
        try:
            if self.agent is not None:
                self.agent.close()
            if self.group is not None:
                self.group.close()
        finally:
            if self._met is not None:
                _meetings.discard(self._met)
            for segment in self._segments:
                segment.unlink()

    def _create(self, table: Table) -> npt.NDArray[Any]:
        """Make the segments of a table; return its live values."""
        from nbps.memory.arrow import create_table_segment

        segment, layout, values = create_table_segment(table.name, table.rows, table.width, table.dtype)
        self._segments.append(segment)
        table.fill(values, self._settings.seed)
        self.views[table.name] = JobTable(table, segment, layout, values)
        if self.agent is not None:
            self._marks[table.name] = self._bytes_of(f"{table.name}-marks", table.rows)
            if table.replicate == "read" and self._settings.nodes.count > 1:
                self._states[table.name] = self._bytes_of(f"{table.name}-states", table.rows)
        return values

    def _create_claims(self) -> None:
        """Make the segment with the claims of rows, if tables have them; row r of each has the same."""
        longest = max((table.rows for table in self._settings.tables if table.is_claimed), default=0)
        if longest > 0:
            segment = Segment("claims", claims_bytes(longest))
            self._segments.append(segment)
            self._claims = segment.name

    def _bytes_of(self, label: str, rows: int) -> str:
        """Make a segment with a byte for each row; return its name."""
        segment = Segment(label, -(-rows // 8) * 8)
        self._segments.append(segment)
        return segment.name

    def _placed(self) -> tuple[PlacedTable, ...]:
        return tuple(
            PlacedTable(
                definition=table.definition,
                layout=self.views[table.name].layout,
                marks=self._marks.get(table.name),
                states=self._states.get(table.name),
                claims=self._claims if table.is_claimed else None,
            )
            for table in self._settings.tables
        )

    def _spec(self) -> WorkerSpec:
        settings, nodes = self._settings, self._settings.nodes
        return WorkerSpec(
            sizes=self.sizes,
            node=nodes.rank,
            shards=nodes.count if self.agent is not None else 0,
            board=self.board.segment.name,
            tables=self._placed(),
            consistency=settings.consistency,
            seed=settings.seed,
            clock_timeout_s=settings.clock_timeout_s,
            oversubscribed=settings.workers + (self.agent is not None) > own_cores(nodes.neighbours),
            record_staleness=settings.record_staleness,
            checkpoint_every=0 if settings.checkpoints is None else settings.checkpoints.every,
        )


def _save_plan(settings: JobSettings) -> SavePlan | None:
    plan = settings.checkpoints
    return None if plan is None else SavePlan(plan.path, plan.every, plan.keep, definitions(settings.tables))


def _meet(nodes: Nodes) -> _Meeting | None:
    """Take the place of a node of a job; None if there are no others to meet.

    Raises
    ------
    ConfigError
        If another job is open there: the nodes of two could not tell each other apart.
    """
    if nodes.count == 1:
        return None
    meeting = (os.getpid(), *nodes.meeting_point, nodes.rank)
    if meeting in _meetings:
        raise ConfigError(
            f"another job of this process is open as node {nodes.rank} at {nodes.transport} {nodes.rendezvous}; "
            f"close it first, or give each of the two nodes=nbps.Nodes(..., rendezvous=...) of its own"
        )
    _meetings.add(meeting)
    if (roll := Roll.found(nodes.roll)) is not None:
        with contextlib.closing(roll):
            roll.begin(nodes.rank)
    return meeting


def _stop(board: Board, agent: AgentControl | None, nodes: Nodes, reason: str, error: BaseException) -> None:
    board.abort()
    if (roll := Roll.found(nodes.roll)) is not None:
        with contextlib.closing(roll):
            roll.fail(nodes.rank, because_of_another=isinstance(error, NodeError))
    if agent is not None:
        agent.fail(reason, gone=isinstance(error, WorkerDiedError))
        agent.close()


def _describe(board: Board, sizes: Sequence[int], node: int, rank: int) -> str:
    """Return what messages call the process `rank` of a node: a worker by its number among all.

    No method of `OpenJob`: the group would then hold what holds the group, and the memory of a job would outlive it.
    """
    several = len(sizes) > 1
    if rank == board.workers:
        return f"the agent of node {node}" if several else "the agent"
    name = f"worker {sum(sizes[:node]) + rank}" + (f" of node {node}" if several else "")
    clock = board.clock(rank)
    return name if clock is None else f"{name} at clock {clock}"
