"""Virtual time: workers, nodes and connections of one scenario, driven by one queue of events.

The workers and nodes are those of `nbps.core`; what is simulated is what they stand on: memory, boards, connections and
time. Whatever happens is drawn from the scenario's seed, so the same scenario gives the same events, in the same order;
`Simulation.log` is a hash over all of them.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.core import messages, worker
from nbps.core.messages import Event, Frame
from nbps.core.node import Node, Settings
from nbps.core.rules import FINISHED
from nbps.core.worker import Await, Group, Poll
from nbps.errors import Error
from nbps.sim.board import SimBoard
from nbps.sim.memory import SimMemory
from nbps.sim.network import Connections
from nbps.sim.scenario import Fault, Scenario
from nbps.sim.worker import Compute, Fetch, Program, SimWorker

_DEPTH = 3  # how many operations may be in the middle at once
_INSTANT_S = 1e-7
_RESTART_S = 0.01  # from the end of a job to its next start
_PARKED = object()  # the answer of an action that waits or takes time
_RESUME, _ARRIVE, _TICK, _FAULT, _HEAL, _DELIVER = range(6)  # kinds of events: the handler's index


class StuckError(Error, RuntimeError):
    """Nothing happens any more, but workers wait."""


class SimNode:
    """A simulated machine: memory, board, workers, and with several machines its `nbps.core.node.Node`."""

    def __init__(self, rank: int, memory: SimMemory, board: SimBoard) -> None:
        self.rank = rank
        self.memory = memory
        self.board = board
        self.workers: list[SimWorker] = []
        self.agent: Node | None = None
        self.alive = True
        self.stopped_until = 0.0
        self.busy = False
        self.inbox: deque[Event] = deque()
        self.fetching: dict[int, list[SimWorker]] = {}
        self.told = board.lowest  # lowest clock of the workers, and barrier, as told to the agent
        self.arrived = 0
        self.needed: set[int] = set()  # clocks waited for, as told to the agent


class Simulation:
    """A run of `scenario`, in which every worker runs `program` on rows that start as `initial`.

    Attributes
    ----------
    now : float
        Virtual seconds.
    log : int
        Hash of everything that has happened.
    events : int
        Number of events.
    nodes : list of SimNode
    connections : Connections
    ended : str or None
        Why the job ended before its workers finished.
    restarts : int
    """

    memory_class: type[SimMemory] = SimMemory  # bench/papers has one that works on whole arrays

    def __init__(self, scenario: Scenario, program: Program, initial: npt.NDArray[Any], validate: bool = False) -> None:
        self.scenario = scenario
        self.program = program
        self.now = 0.0
        self.log = 0
        self.events = 0
        self.ended: str | None = None
        self.restarts = 0
        self.on_restart: Callable[[int], None] = lambda clock: None
        self._initial = initial
        self._validate = validate
        self._random = random.Random(f"network/{scenario.seed}")
        self._heap: list[tuple[float, int, int, Any]] = []
        self._order = itertools.count()
        self._depth = 0
        self._running = 0
        self._moved_at = 0.0  # when a worker did something last, or will have done computing
        self._restart_due = False
        self.connections = Connections(scenario.nodes, scenario.network, self._random)
        self._perform: dict[type, Callable[[SimWorker, Any], Any]] = {
            worker.Flush: lambda who, action: who.flush(),
            worker.Publish: self._publish,
            worker.Await: self._await,
            worker.Poll: self._await,
            worker.Lowest: self._lowest,
            worker.Snapshot: lambda who, action: who.node.board.snapshot(),
            worker.PublishSeen: self._publish_seen,
            worker.Refresh: lambda who, action: who.copy.refresh() if who.copy else None,
            worker.Record: lambda who, action: who.record(action.visible),
            Compute: self._compute,
            Fetch: self._fetch,
        }
        self._handlers: tuple[Callable[[Any], None], ...] = (
            self._resume, self._arrive, self._tick, self._fault, self._heal, self._deliver,
        )  # fmt: skip
        self.nodes: list[SimNode] = []
        self._start(0, [initial] * scenario.nodes)
        for fault in scenario.faults:
            self._schedule(fault.at_s, _FAULT, fault)

    # ----------------------------------------------------------------- running

    def run(self) -> None:
        """Run until all workers have finished and all nodes have everything, or the job has ended.

        Raises
        ------
        StuckError
            If nothing happens any more; says who waits for what.
        ProtocolError
            If the core was driven wrongly or breaks an invariant.
        """
        patience_s = self.scenario.failure_timeout_s + max((f.for_s for f in self.scenario.faults), default=0.0) + 30
        patience_s += 100 * self.scenario.network.longest_s
        heap = self._heap
        while heap:
            if self._running == 0 and self._is_over():
                return
            self._next()
            if self.now > self._moved_at + patience_s:
                break
        if not self._is_over():
            raise StuckError(f"nothing moves any more after {self.now:.3f} virtual seconds: {self._waiting()}")

    @property
    def workers(self) -> list[SimWorker]:
        """All workers, by rank."""
        return [who for node in self.nodes for who in node.workers]

    def final(self) -> npt.NDArray[Any]:
        """Return the owners' rows, shape (rows, width)."""
        return np.concatenate(
            [node.memory.values[node.memory.owned.start : node.memory.owned.stop] for node in self.nodes]
        )

    def _next(self) -> None:
        self.now, order, kind, argument = heapq.heappop(self._heap)
        self.events += 1
        self.log = hash((self.log, self.now, order, kind))
        self._handlers[kind](argument)

    def _schedule(self, at: float, kind: int, argument: Any) -> None:
        heapq.heappush(self._heap, (at, next(self._order), kind, argument))

    def _pause(self) -> None:
        """Let others go on in the middle of an operation."""
        if self._depth < _DEPTH and self._heap and self._random.random() < self.scenario.preemption:
            self._depth += 1
            while self._heap and self._heap[0][2] in (_RESUME, _ARRIVE):
                self._next()
                if self._random.random() < 0.2:
                    break
            self._depth -= 1

    def _is_over(self) -> bool:
        """Whether nobody works and every node with an agent has left or crashed."""
        over = self._running == 0 and not self._restart_due
        return over and not any(node.alive and node.agent is not None for node in self.nodes)

    def _waiting(self) -> str:
        stuck = [f"worker {who.rank} at clock {who.core.now}" for who in self.workers if who.alive and not who.done]
        boards = [f"node {node.rank}: {node.board.slots[Group.COMMITTED]}" for node in self.nodes]
        return f"{', '.join(stuck[:5]) or 'no worker'} of {len(stuck)}; committed slots {'; '.join(boards[:4])}"

    # ----------------------------------------------------------------- starting

    def _start(self, clock: int, rows: list[npt.NDArray[Any]]) -> None:
        """Start every node at `clock` from the rows that each of them loads."""
        scenario = self.scenario
        self.nodes = []
        pause = self._pause if scenario.preemption else lambda: None
        for rank in range(scenario.nodes):
            memory = self.memory_class(rank, rows[rank], scenario.nodes, scenario.sparse, pause)
            board = SimBoard(scenario.workers, scenario.nodes, scenario.cached, clock, self._wake)
            self.nodes.append(SimNode(rank, memory, board))
        for node in self.nodes:
            if scenario.nodes > 1:
                node.agent = Node(self._settings(node.rank, clock), node.memory, node.board, self.now)
                self._schedule(self.now + self._tick_s(), _TICK, node)
            for local in range(scenario.workers):
                rank = node.rank * scenario.workers + local
                core = worker.Worker(local, scenario.terms)
                who = SimWorker(rank, local, scenario.size, node, core, scenario.seed + self.restarts, scenario.cached)
                node.workers.append(who)
                self._running += 1
                self._schedule(self.now, _RESUME, (who, self._whole_life(who, clock), None))

    def _settings(self, rank: int, clock: int) -> Settings:
        scenario = self.scenario
        return Settings(
            rank=rank,
            nodes=scenario.nodes,
            terms=scenario.terms,
            readers=scenario.workers if scenario.cached else 0,
            run=self.restarts,
            clock=clock,
            window=scenario.window,
            window_bytes=scenario.window_bytes,
            retry_s=scenario.retry_s,
            ack_s=scenario.retry_s / 4,
            heartbeat_s=scenario.heartbeat_s,
            failure_timeout_s=scenario.failure_timeout_s,
        )

    def _tick_s(self) -> float:
        return min(self.scenario.retry_s, self.scenario.heartbeat_s) / 4

    def _whole_life(self, who: SimWorker, clock: int) -> Generator[Any, Any, None]:
        yield from who.core.begin(clock)
        yield from self.program(who)
        yield from who.core.finish()
        if who.alive:
            who.done = True
            who.finished_at = self.now
            self._running -= 1

    # ----------------------------------------------------------------- workers

    def _resume(self, argument: tuple[SimWorker, Generator[Any, Any, None], Any]) -> None:
        who, life, answer = argument
        if not who.alive:
            return
        if who.stopped_until > self.now:
            self._schedule(who.stopped_until, _RESUME, argument)
            return
        self._moved_at = max(self._moved_at, self.now)
        send, perform, preemption = life.send, self._perform, self.scenario.preemption
        who.life = life
        try:
            while True:
                action = send(answer)
                if not preemption:
                    answer = perform[type(action)](who, action)
                    if answer is _PARKED:
                        return
                    continue
                if not who.alive:  # killed in the middle of an operation that others interrupted
                    return
                answer = perform[type(action)](who, action)
                if answer is _PARKED or not who.alive:
                    return
                if self._random.random() < preemption:
                    self._schedule(self.now + self._interruption_s(), _RESUME, (who, life, answer))
                    return
        except StopIteration:
            pass
        finally:
            if self._validate and who.alive:
                who.core.validate()

    def _interruption_s(self) -> float:
        """Draw how long a step takes that others interrupt: mostly no time, sometimes about a clock."""
        usual = self._random.random() < 0.7
        return self._random.random() * (_INSTANT_S if usual else self.scenario.speed.mean_s)

    def _wake(self, who: SimWorker, answer: bool) -> None:
        who.wait_s += self.now - who.parked_at
        self._schedule(self.now, _RESUME, (who, who.life, answer))

    def _publish(self, who: SimWorker, action: worker.Publish) -> None:
        group, value, node = action.group, action.value, who.node
        node.board.publish(group, who.local, value)
        if group is Group.COMMITTED:
            if node.agent is not None:
                slots = node.board.slots[Group.COMMITTED]
                if who.core.terms.v0 is not None:
                    each = tuple(slots[: node.board.workers])
                    self._tell(node, messages.Committed(min(each), each))
                elif value == FINISHED or node.told == value - 1:
                    lowest = min(slots[: node.board.workers])
                    if lowest > node.told:
                        node.told = lowest
                        self._tell(node, messages.Committed(lowest))
        elif group is Group.ARRIVED and node.agent is not None:
            lowest = min(node.board.slots[Group.ARRIVED][: node.board.workers])
            if lowest > node.arrived:
                node.arrived = lowest
                self._tell(node, messages.BarrierReached(lowest))

    def _publish_seen(self, who: SimWorker, action: worker.PublishSeen) -> None:
        snapshot, node = action.committed, who.node
        node.board.publish_row(who.local, snapshot)
        if node.agent is not None and who.copy is not None:
            installs = 0 if snapshot is None else snapshot.installs
            self._tell(node, messages.Refreshed(who.local, installs, last=snapshot is None))

    def _await(self, who: SimWorker, action: Await | Poll) -> Any:
        node = who.node
        if node.board.holds(who.local, action):
            return True
        if type(action) is Poll and node.board.has_news(who.local):
            return False
        if action.group is Group.COMMITTED and node.agent is not None and action.target not in node.needed:
            node.needed.add(action.target)
            self._tell(node, messages.Needed(action.target))
        who.parked_at = self.now
        node.board.park(who, who.local, action)
        return _PARKED

    def _lowest(self, who: SimWorker, action: worker.Lowest) -> int:
        board = who.node.board
        return board.lowest_other(who.local) if action.group is Group.COMMITTED else board.seen_of(who.local)

    def _compute(self, who: SimWorker, action: Compute) -> Any:
        self._moved_at = max(self._moved_at, self.now + action.seconds)
        self._schedule(self.now + action.seconds, _RESUME, (who, who.life, None))
        return _PARKED

    def _fetch(self, who: SimWorker, action: Fetch) -> Any:
        node = who.node
        who.parked_at = self.now
        waiting = node.fetching.setdefault(action.row, [])
        waiting.append(who)
        if len(waiting) == 1:
            self._tell(node, messages.Touched(node.memory.owner_of(action.row), (action.row,)))
        return _PARKED

    def evict(self, node: SimNode, row: int) -> None:
        """Keep `row` fresh on `node` no longer, unless somebody waits for it."""
        if row in node.fetching:
            return
        node.memory.forget((row,))
        self._tell(node, messages.Evicted(node.memory.owner_of(row), (row,)))

    # ----------------------------------------------------------------- nodes

    def _tell(self, node: SimNode, event: Event) -> None:
        """Hand an event to a node's agent, after those that it has not come to yet."""
        if node.busy or node.inbox or node.stopped_until > self.now or not node.alive:
            node.inbox.append(event)
            if node.stopped_until > self.now and not node.busy:
                self._schedule(node.stopped_until, _DELIVER, node)
            return
        self._handle(node, event)
        if node.inbox:
            self._deliver(node)

    def _deliver(self, node: SimNode) -> None:
        """Hand over what came while the agent was busy or stopped."""
        while node.inbox and node.alive and not node.busy and node.stopped_until <= self.now:
            self._handle(node, node.inbox.popleft())

    def _handle(self, node: SimNode, event: Event) -> None:
        agent = node.agent
        assert agent is not None
        node.busy = True
        for action in agent.handle(event, self.now):
            if isinstance(action, messages.Send):
                self._send(node.rank, action.peer, action.frame)
            elif isinstance(action, messages.End):
                self._end(node, action.reason)
            else:
                self._leave(node)
        if self._validate:
            agent.validate()
        node.busy = False
        if node.fetching:
            for row in [row for row in node.fetching if node.memory.readable(row)]:
                for who in node.fetching.pop(row):
                    self._wake(who, True)

    def _send(self, source: int, target: int, frame: Frame) -> None:
        times, epoch = self.connections.arrivals(source, target, frame, self.now)
        for at in times:
            self._schedule(at, _ARRIVE, (source, target, epoch, frame))

    def _arrive(self, argument: tuple[int, int, int, Frame]) -> None:
        source, target, epoch, frame = argument
        node = self.nodes[target]
        if node.alive and self.connections.passes(source, target, epoch, self.now):
            self._tell(node, messages.Received(source, frame))

    def _tick(self, node: SimNode) -> None:
        if node.alive and node is self.nodes[node.rank]:
            self._tell(node, messages.Tick())
            self._schedule(self.now + self._tick_s(), _TICK, node)

    def _end(self, node: SimNode, reason: str) -> None:
        """End the workers of a node; its agent stays until the others know why."""
        self.ended = self.ended or reason
        for who in node.workers:
            self._kill_worker(who)
        if node.agent is None:
            self._leave(node)

    def _leave(self, node: SimNode) -> None:
        """Take a node away; when all have gone after a crash, the job may start again."""
        node.alive = False
        if self.ended is None:
            return
        may_restart = self.scenario.restart and self.restarts < self.scenario.may_end
        if may_restart and not any(other.alive for other in self.nodes):
            self._restart_due = True
            self._schedule(self.now + _RESTART_S, _HEAL, None)

    def _kill_worker(self, who: SimWorker) -> None:
        if who.alive and not who.done:
            self._running -= 1
        who.alive = False

    # ----------------------------------------------------------------- faults

    def _fault(self, fault: Fault) -> None:
        until = self.now + fault.for_s
        if fault.kind == "pause_worker":
            who = self.workers[fault.who]
            who.stopped_until = max(who.stopped_until, until)
        elif fault.kind == "pause_node":
            node = self.nodes[fault.who]
            node.stopped_until = max(node.stopped_until, until)
            self._schedule(until, _DELIVER, node)
        elif fault.kind == "cut":
            self.connections.cut(fault.who, fault.other)
            self._both(fault, messages.LinkDown)
            self._schedule(until, _HEAL, fault)
        elif fault.kind == "partition":
            self.connections.silence(fault.who, fault.other, until)
        elif fault.kind == "crash_node":
            self._crash(self.nodes[fault.who])
        elif fault.kind == "crash_worker":
            self._crash_worker(self.workers[fault.who])

    def _both(self, fault: Fault, event: Callable[[int], Event]) -> None:
        for node, peer in ((fault.who, fault.other), (fault.other, fault.who)):
            if self.nodes[node].agent is not None:
                self._tell(self.nodes[node], event(peer))

    def _crash(self, node: SimNode) -> None:
        if node.alive and self._running:
            self.ended = self.ended or f"node {node.rank} crashed"
            for who in node.workers:
                self._kill_worker(who)
            self._leave(node)

    def _crash_worker(self, who: SimWorker) -> None:
        if who.done or not who.alive:
            return
        self._kill_worker(who)
        reason = f"worker {who.rank} died at clock {who.core.now}"
        if who.node.agent is not None:
            self._tell(who.node, messages.WorkerLost(reason))
        else:
            self._end(who.node, reason)

    def _heal(self, fault: Fault | None) -> None:
        if fault is not None:
            if self.connections.heal(fault.who, fault.other):
                self._both(fault, messages.LinkUp)
        else:
            self._restart()

    def _restart(self) -> None:
        """Start the job again from the last clock that every node has saved."""
        saved = [set(node.memory.saved) for node in self.nodes]
        clock = max(set.intersection(*saved), default=0)
        rows = self._initial
        if clock:
            rows = np.concatenate([node.memory.saved[clock] for node in self.nodes])
        kept = [node.memory.saved for node in self.nodes]
        self.restarts += 1
        self.ended = None
        self._restart_due = False
        self.on_restart(clock)
        self._start(clock, [rows] * self.scenario.nodes)
        for node, before in zip(self.nodes, kept, strict=True):
            node.memory.saved.update({at: values for at, values in before.items() if at <= clock})
