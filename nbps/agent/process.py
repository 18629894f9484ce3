"""The agent's loop: board, connections and driver in, the runs of the protocol core in the middle, actions out.

What happens is told to the core one event after the other, and what it asks for is carried out before the next. Nothing
else decides: the agent knows whether its workers are at work, and when it may end.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as DriverConnection
from typing import Any

import numpy as np

from nbps.agent.board import AgentBoard
from nbps.agent.memory import NodeMemory, nap
from nbps.agent.peers import Peers
from nbps.agent.saver import Saver
from nbps.agent.share import share_of
from nbps.agent.spec import AgentSpec, Ended, Fail, Joined, Run, RunDone, Terminate, Traffic
from nbps.agent.turns import compiled_turns
from nbps.checkpoint.format import later_life
from nbps.core import messages
from nbps.core.messages import Action, Begin, Event, Evicted, Received, Saved, Spare, Tick, Touched, WorkerLost
from nbps.core.runs import Phase, Runs
from nbps.core.settings import Settings
from nbps.errors import CheckpointError, LocalProtocolError
from nbps.kernels import layout
from nbps.memory.heap import tune_heap
from nbps.memory.segments import attach
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.wire import HEADER_BYTES

_log = logging.getLogger("nbps.agent")

_UNUSED_CLOCKS = 64  # a row that nobody has read for one to two times as many is let go of
_EARLY_MS = 2
_EARLY_BYTES = 4096  # less is not worth a batch
_ACK_S = 0.1
_TICK_S = 0.05
_SLEEP_MS = 50  # the driver's death, of which the supervisor tells by SIGKILL, needs no waking
_SPIN_S = 50e-6  # longer than a frame takes there and back, short beside a time slice
_FAREWELL_S = 2.0  # how long others have to hear why this node goes


def serve(spec: AgentSpec) -> None:
    """Be the agent of a node, in a process of its own, until its driver has closed the job."""
    tune_heap()
    agent = Agent(spec)
    try:
        agent.join()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # from now on the driver says what is to be done
        gc.freeze()  # what is there by now stays: a connection that breaks need not look through it
        agent.exchange()
    finally:
        agent.close()


class Agent:
    """The agent of one node: `join`, `exchange` until the driver has closed the job, `close` in any case."""

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        place = spec.place
        self._rank, self._nodes = (0, 1) if place is None else (place.rank, place.nodes)
        self._driver = DriverConnection(spec.control)
        self._board = AgentBoard(
            attach(spec.board).view(np.int64), spec.workers, self._rank, self._nodes, spec.terms.v0 is not None
        )
        self._doorbell = int(self._board.words[layout.DOORBELL])
        tables = [share_of(table, self._nodes, spec.workers) for table in spec.tables]
        self._memory = NodeMemory(self._rank, self._nodes, tables, self._board.answer, self._wait_for_claim)
        frame_limit = HEADER_BYTES + self._memory.batch_limit + (1 << 16)
        self._poll = select.poll()
        self._mesh = None if place is None else Mesh(place, frame_limit)
        self._peers = Peers(self._mesh, self._poll)
        self._runs: Runs  # made by `join`
        self._saver: Saver | None = None
        self._saved = 0  # checkpoints that were written, as told to the core
        self._lacks_rows = False  # additions of other nodes were left out, as the job is ending
        self._left_out = 0  # checkpoints that would lack them
        self._ended: Ended | None = None  # the job has, for whatever reason
        self._closing_at: float | None = None
        self._tick_at = 0.0
        self._fetches = any(table.states is not None for table in spec.tables)
        self._let_go_at = 0
        self._compiled = compiled_turns(spec, self._nodes, self._board, self._memory, self._peers)
        self._early_at = 0.0  # when additions were sent before their clock last, and by how much that was too much
        self._early_debt = 0
        self._missing: set[int] = set()  # nodes that are waited for
        self._perform: dict[type, Callable[[Any], None]] = {
            messages.Send: lambda action: self._peers.send(*action),
            messages.Refuse: lambda action: self._peers.refuse(*action),
            messages.Save: self._save,
            messages.Done: self._finish,
            messages.End: self._end,
            messages.Leave: lambda action: None,  # what `exchange` looks for
        }

    def _settings(self) -> Settings:
        spec = self._spec
        return Settings(
            rank=self._rank,
            nodes=self._nodes,
            terms=spec.terms,
            readers=spec.workers if any(table.definition.access == "cached" for table in spec.tables) else 0,
            run=spec.first_run,
            clock=spec.clock,
            retry_s=float("inf"),  # connections lose nothing while they stand
            ack_s=_ACK_S,
            heartbeat_s=min(1.0, spec.failure_timeout_s / 10),
            failure_timeout_s=float("inf") if spec.waits else spec.failure_timeout_s,
        )

    def join(self) -> None:
        """Find the other nodes, and listen from then on."""
        spec, incarnation = self._spec, secrets.randbits(64)
        workers, addresses = [spec.workers], list[str]()
        if self._mesh is not None:
            members = self._mesh.open()
            incarnation, workers = members[0].incarnation, [int(member.card["workers"]) for member in members]
            addresses = [member.address for member in members]
            self._poll.register(self._mesh.fileno(), select.POLLIN)
        for source in (self._driver.fileno(), self._doorbell):
            self._poll.register(source, select.POLLIN)
        attempt = later_life(spec.lineage, f"{incarnation:016x}")
        if spec.save is not None:
            self._saver = Saver(spec.save, attempt, self._rank, self._nodes, self._ring)
        self._driver.send(Joined(tuple(workers), tuple(addresses), attempt))
        # Only now: the time until all nodes were found is not silence of theirs.
        self._runs = Runs(self._settings(), self._memory, self._board, time.monotonic(), connected=())
        self._take_connections()  # others are heard from now on

    def exchange(self) -> None:
        """Exchange rows with the other nodes until the job is over; if this fails, they hear why."""
        try:
            while not self._is_over():
                self._turn()
        except Exception as error:
            self._tell_why(f"its agent failed: {type(error).__name__}: {error}")
            raise

    def close(self) -> None:
        """End connections and threads."""
        self._peers.close()
        if self._mesh is not None:
            self._mesh.close()
        if self._saver is not None:
            self._saver.close()

    def _tell_why(self, reason: str) -> None:
        """Have the other nodes hear that this one failed; its own part of the protocol may be what failed."""
        for rank, frame in self._runs.last_words(reason, time.monotonic()):
            with contextlib.suppress(Exception):
                self._peers.send(rank, frame)
                self._peers.flush(rank)

    def _ring(self) -> None:
        os.eventfd_write(self._doorbell, 1)

    # ----------------------------------------------------------------- the loop

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        board, ready = self._board, []
        if not self._is_running:
            ready = self._poll.poll(_SLEEP_MS)
        elif (taken := self._take_compiled_turns()) is not None:
            ready = taken
        elif not (ready := self._spin()) and board.doze():
            ready = self._poll.poll(_SLEEP_MS if self._spec.bandwidth_budget is None else _EARLY_MS)
            board.wake()
        for descriptor, _ in ready:
            self._look_at(descriptor)
        if self._is_running:
            self._look_at_board()
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_S
            self._tell(Tick())
            self._take_connections()
            self._heed_the_gone()
            if self._spec.waits:
                self._tell_who_is_missing(now)
        if self._saver is not None:
            self._look_at_disk(self._saver)

    @property
    def _is_running(self) -> bool:
        return self._runs.phase is Phase.RUNNING

    def _tell(self, event: Event) -> None:
        """Tell the core what happened, and carry out what it asks for."""
        self._carry_out(self._runs.handle(event, time.monotonic()))
        self._tell_changes()

    def _tell_changes(self) -> None:
        """Tell the core which connections were made or broke."""
        changes = self._peers.changes
        while changes:
            self._carry_out(self._runs.handle(changes.popleft(), time.monotonic()))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            self._perform[type(action)](action)

    def _look_at_board(self) -> None:
        board = self._board
        for event in board.news():
            if self._is_running:
                self._tell(event)
        if board.wanted and self._is_running:
            self._fetch()
        if self._spec.bandwidth_budget is not None and self._is_running:
            self._send_early(self._spec.bandwidth_budget)
        if self._fetches and self._is_running and self._let_go_at <= self._runs.clock < layout.FINISHED:
            self._let_go()

    def _fetch(self) -> None:
        """Ask for rows that workers want."""
        self._board.wanted = False
        for owner, rows in self._memory.wanted():
            self._tell(Touched(owner, rows))

    def _send_early(self, budget: float) -> None:
        """Send what changes rows most, as far as the budget goes since it was used last."""
        now = time.monotonic()
        limit = int(budget * min(now - self._early_at, 1.0)) - self._early_debt
        if limit < _EARLY_BYTES:
            return
        self._early_at, (before, _) = now, self._peers.traffic()
        share = max(1, limit // max(1, self._nodes - 1))
        for owner in range(self._nodes):
            if owner != self._rank:
                self._tell(Spare(owner, share))
        self._early_debt = max(0, self._peers.traffic()[0] - before - limit)

    def _let_go(self) -> None:
        """Let go of rows that nobody reads any more."""
        self._let_go_at = self._runs.clock + _UNUSED_CLOCKS
        for owner, rows in self._memory.unused():
            self._tell(Evicted(owner, rows))

    def _look_at_disk(self, saver: Saver) -> None:
        """Tell of checkpoints that were written; one that could not be ends the job."""
        # Only a job that has ended is told that the copy of one that was left out is free: to others it would be saved.
        written = saver.written + (0 if self._ended is None else self._left_out)
        if saver.error is not None:
            known = isinstance(saver.error, CheckpointError)
            self._close(f"{'' if known else f'{type(saver.error).__name__}: '}{saver.error}", unsaved=True)
        while self._saved < written:
            self._saved += 1
            self._tell(Saved())

    def _tell_who_is_missing(self, now: float) -> None:
        """Say once which nodes are waited for that would be lost under another policy."""
        timeout_s = self._spec.failure_timeout_s
        missing = self._runs.silent(timeout_s, now)
        for rank in sorted(missing - self._missing):
            text = f"node {rank} was not heard for {timeout_s:g} s; waiting for it (on_failure='wait')"
            print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._missing = missing

    def _spin(self) -> list[tuple[int, int]]:
        """Look for news for a while, without sleeping; return the descriptors that are ready."""
        until = time.monotonic() + _SPIN_S
        while not (ready := self._poll.poll(0)) and not self._board.has_news() and time.monotonic() < until:
            os.sched_yield()  # to a worker, say, that this very wait is for
        return ready

    def _take_compiled_turns(self) -> list[tuple[int, int]] | None:
        """Have compiled code do what is common; return which descriptors are ready then, None if it cannot just now."""
        if self._compiled is None or self._mesh is None:
            return None
        others = self._doorbell, self._driver.fileno(), self._mesh.fileno()
        unread = self._compiled.take(self._runs, others, self._tick_at, _SPIN_S, _SLEEP_MS)
        return None if unread is None else unread + self._poll.poll(0)

    def _look_at(self, descriptor: int) -> None:
        rank = self._peers.rank_of(descriptor)
        if rank is not None:
            self._look_at_peer(rank)
        elif descriptor == self._doorbell:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(descriptor)
        elif descriptor == self._driver.fileno():
            self._listen_to_driver()
        else:
            self._take_connections()

    def _wait_for_claim(self, times: int) -> bool:
        """Let a worker go on that claims a row; return False if the job is ending.

        One that is stopped holds up this node, as the staleness bound would; the others hear that the node lives.
        """
        for rank, frame in self._runs.signs_of_life(time.monotonic()):
            self._peers.send(rank, frame)
            self._peers.flush(rank)
        self._lacks_rows = self._board.is_aborted  # for good
        return not self._lacks_rows and nap(times)

    def _look_at_peer(self, rank: int) -> None:
        for frame in self._peers.receive(rank):
            self._tell(Received(rank, frame))
        self._tell_changes()

    def _take_connections(self) -> None:
        made = self._peers.take()
        self._tell_changes()
        for rank in made:
            self._look_at_peer(rank)

    def _heed_the_gone(self) -> None:
        """Tell the core of nodes that will not come back, though they have not said so themselves."""
        for rank, why in ({} if self._mesh is None else self._mesh.gone()).items():
            if self._ended is None and rank not in self._runs.node.gone:
                self._tell(WorkerLost(f"node {rank} ended the job: {why}", rank))

    def _is_over(self) -> bool:
        if self._closing_at is None:
            return False
        return self._runs.has_left or time.monotonic() > self._closing_at + _FAREWELL_S

    # ----------------------------------------------------------------- the driver

    def _listen_to_driver(self) -> None:
        try:
            message = self._driver.recv()
        except (EOFError, OSError):
            self._poll.unregister(self._driver.fileno())
            self._close("its driver was killed", gone=True)
            return
        if isinstance(message, Run):
            self._begin()
        elif isinstance(message, Fail):
            self._close(message.reason, message.gone)
        elif isinstance(message, Terminate):
            self._tell(messages.Terminate())
        else:
            self._close("its job was closed; all nodes must call run equally often")

    def _begin(self) -> None:
        if self._ended is not None:
            self._say(self._ended)  # again: the driver may have heard it while it waited for results of the run before
            return
        clock = self._runs.clock
        self._board.begin(clock)
        self._memory.forget_requests()
        self._let_go_at = clock + _UNUSED_CLOCKS
        self._tell(Begin())

    def _close(self, reason: str, gone: bool = False, unsaved: bool = False) -> None:
        """Tell the others that this node goes, and go."""
        if self._closing_at is None:
            self._closing_at = time.monotonic()
            self._peers.reconnects = False
            self._tell(WorkerLost(reason, self._rank if gone else None, unsaved))

    def _say(self, message: RunDone | Ended) -> None:
        try:
            self._driver.send(message)
        except OSError:  # it closes the job, or was killed: its end of the sockets says so
            _log.debug("node %d: the driver is gone and did not hear: %s", self._rank, message)

    # ----------------------------------------------------------------- what the core asks for

    def _save(self, action: messages.Save) -> None:
        if self._saver is None:
            raise LocalProtocolError(f"node {self._rank} shall save clock {action.clock}, but not where")
        if self._lacks_rows:
            self._left_out += 1
        else:
            self._saver.save(*action)

    def _finish(self, action: messages.Done) -> None:
        sent, received = self._peers.traffic()
        self._say(RunDone(Traffic(sent, received, self._memory.rows_sent, self._memory.rows_received)))

    def _end(self, action: messages.End) -> None:
        self._ended = Ended(*action)
        self._peers.reconnects = False
        self._say(self._ended)  # before workers end, also those of a run that begins just now: why is heard first
        self._board.abort()
