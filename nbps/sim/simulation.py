"""Workers, nodes and connections of one scenario in virtual time, driven by one queue of events.

The workers and nodes are those of `nbps.core`; what is simulated is what they stand on: memory, boards, connections and
time. Whatever happens is drawn from the scenario's seed, so the same scenario gives the same events, in the same order;
`Simulation.log` is a hash over all of them.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.core import messages, worker
from nbps.core.messages import Action, Frame, Received, Send, Tick
from nbps.core.runs import Phase, Runs
from nbps.core.worker import Await, Group, Poll
from nbps.errors import Error, RemoteProtocolError
from nbps.sim.board import SimBoard
from nbps.sim.faults import Faults
from nbps.sim.memory import SimMemory
from nbps.sim.network import Connections
from nbps.sim.node import SimNode
from nbps.sim.scenario import Scenario
from nbps.sim.timeline import Timeline
from nbps.sim.worker import Compute, Fetch, Program, SimWorker

_DEPTH = 3  # how many operations may be in the middle at once
_INSTANT_S = 1e-7
_RESTART_S = 0.01  # from the end of a job to its next start
_REST_S = 0.02  # at most, from the end of a run on a node to the next
_RUNS_OF_A_LIFE = 1000  # numbers that a restarted job leaves free: its frames must not be taken for those before
_PARKED = object()  # the answer of an action that waits or takes time
_TIME_PASSED = Tick()
_RESUME, _ARRIVE, _TICK, _CALL, _WRITTEN, _WAKE = range(6)  # kinds of events: the handler's index


class StuckError(Error, RuntimeError):
    """Nothing happens any more, but workers wait."""


class Simulation(Timeline):
    """The runs of `scenario`, in which every worker runs `program`, on rows that start as `initial`.

    Attributes
    ----------
    nodes : list of SimNode
    connections : Connections
    ended : str or None
        Why the job ended before its workers finished.
    restarts : int
    retired : list of SimWorker
        Workers of runs that are over on their node.
    """

    memory_class: type[SimMemory] = SimMemory  # bench/papers has one that works on whole arrays

    def __init__(self, scenario: Scenario, program: Program, initial: npt.NDArray[Any], validate: bool = False) -> None:
        super().__init__()
        self.scenario = scenario
        self.program = program
        self.ended: str | None = None
        self.restarts = 0
        self.retired: list[SimWorker] = []
        self.on_restart: Callable[[int, int], None] = lambda run, clock: None
        self.on_rest: Callable[[SimNode], None] = lambda node: None  # a run is over there, or the next begins
        self._initial = initial
        self._validate = validate
        self._tick_s = scenario.tick_s
        self._random = random.Random(f"network/{scenario.seed}")
        self._depth = 0
        self._running = 0  # workers
        self._resting = 0  # machines without an agent between two runs
        self._is_stuck = False  # nothing moves but the agents' clocks
        self._moved_at = 0.0  # when a worker did something last, or will have done computing
        self._restart_due = False
        self.connections = Connections(scenario.nodes, scenario.network, self._random)
        self._perform: dict[type, Callable[[SimWorker, Any], Any]] = {
            worker.Flush: lambda who, action: who.flush(),
            worker.Publish: self._publish,
            worker.Await: self._await,
            worker.Poll: self._await,
            worker.Lowest: lambda who, action: who.node.board.lowest_of(action.group, who.local),
            worker.Snapshot: lambda who, action: who.node.board.snapshot(),
            worker.PublishSeen: self._publish_seen,
            worker.Refresh: lambda who, action: who.copy.refresh() if who.copy else None,
            worker.Record: lambda who, action: who.record(action.visible),
            Compute: self._compute,
            Fetch: self._fetch,
        }
        self.handlers = self._resume, self._arrive, self._tick, operator.call, self._written, self._resume_all
        self.nodes: list[SimNode] = []
        self._crews: list[list[SimWorker]] = []
        self._start(0, 0, [initial] * scenario.nodes)
        faults = Faults(self)
        for fault in scenario.faults:
            self.call(fault.at_s, functools.partial(faults.strike, fault))

    # ----------------------------------------------------------------- running

    def run(self) -> None:
        """Run until all workers have finished their last run and all nodes have everything, or the job has ended.

        Raises
        ------
        StuckError
            If nothing happens any more; says which workers wait for what.
        ProtocolError
            If the core was driven wrongly or breaks an invariant.
        """
        while (self._running or not self._is_over()) and not self._is_stuck and self.step():
            pass
        if not self._is_over():
            raise StuckError(f"nothing moves any more after {self.now:.3f} virtual seconds: {self._waiting()}")

    @property
    def workers(self) -> list[SimWorker]:
        """All workers, by rank, each in the run that its node is in."""
        return [who for crew in self._crews for who in crew]

    def final(self) -> npt.NDArray[Any]:
        """Return the owners' rows, shape (rows, width)."""
        return np.concatenate(
            [node.memory.values[node.memory.owned.start : node.memory.owned.stop] for node in self.nodes]
        )

    def call(self, at: float, function: Callable[[], None]) -> None:
        """Call `function` at time `at`."""
        self.schedule(at, _CALL, function)

    def _pause(self) -> None:
        """Let others go on in the middle of an operation."""
        if self._depth < _DEPTH and self.next_kind() is not None and self._random.random() < self.scenario.preemption:
            self._depth += 1
            while self.next_kind() in (_RESUME, _ARRIVE, _WAKE):
                self.step()
                if self._random.random() < 0.2:
                    break
            self._depth -= 1

    def _is_over(self) -> bool:
        """Whether nobody works and every node with an agent has left or crashed."""
        over = self._running == 0 and not self._restart_due and not self._resting
        return over and not any(node.alive and node.runs is not None for node in self.nodes)

    def _waiting(self) -> str:
        stuck = [f"worker {who.rank} at clock {who.core.now}" for who in self.workers if who.alive and not who.done]
        boards = [f"node {node.rank}: {node.board.slots[Group.COMMITTED]}" for node in self.nodes]
        return f"{', '.join(stuck[:5]) or 'no worker'} of {len(stuck)}; committed slots {'; '.join(boards[:4])}"

    # ----------------------------------------------------------------- starting

    def _start(self, run: int, clock: int, rows: list[npt.NDArray[Any]]) -> None:
        """Start every node in run number `run` at `clock`, from the rows that each of them loads."""
        scenario = self.scenario
        self.nodes = []
        self._crews = [[] for _ in range(scenario.nodes)]
        pause = self._pause if scenario.preemption else lambda: None
        for rank in range(scenario.nodes):
            memory = self.memory_class(rank, rows[rank], scenario.nodes, scenario.sparse, pause)
            board = SimBoard(scenario.workers, scenario.nodes, scenario.cached, scenario.terms, self._wake)
            runs = None
            if scenario.nodes > 1:
                settings = scenario.settings(rank, _RUNS_OF_A_LIFE * self.restarts + run, clock)
                runs = Runs(settings, memory, board, self.now)
            self.nodes.append(SimNode(rank, memory, board, runs, self))
        for node in self.nodes:
            if node.runs is not None:
                self.schedule(self.now + self._tick_s, _TICK, node)
            self._begin(node, run, clock)

    def _begin(self, node: SimNode, run: int, clock: int) -> None:
        """Begin a run on a node."""
        scenario = self.scenario
        node.begin(run, clock)
        self.retired += self._crews[node.rank]
        self._crews[node.rank] = crew = []
        for local in range(scenario.workers):
            rank = node.rank * scenario.workers + local
            seed = scenario.seed + self.restarts + _RUNS_OF_A_LIFE * run
            core = worker.Worker(local, scenario.terms)
            crew.append(who := SimWorker(rank, local, scenario.size, node, core, seed, scenario.cached))
            self._running += 1
            self.schedule(self.now, _RESUME, (who, self._whole_life(who, clock), None))

    def _rest(self, node: SimNode) -> None:
        """End a run on a node, and begin the next a while later."""
        self.on_rest(node)
        if node.run + 1 == self.scenario.runs:
            node.alive = node.runs is None
            return
        self._resting += node.runs is None
        self.call(self.now + self._random.random() * _REST_S, functools.partial(self._go_on, node))

    def _go_on(self, node: SimNode) -> None:
        """Begin the next run on a node, if there is still a job."""
        self._resting -= node.runs is None
        if node.alive and (node.runs is None or node.runs.phase is Phase.WAITING):
            self.on_rest(node)
            self._begin(node, node.run + 1, 0)

    def _whole_life(self, who: SimWorker, clock: int) -> Generator[Any, Any, None]:
        yield from who.core.begin(clock)
        yield from self.program(who)
        yield from who.core.finish()
        if who.alive:
            who.done = True
            who.finished_at = self.now
            self._running -= 1
            if who.node.runs is None and all(other.done for other in self._crews[who.node.rank]):
                self._rest(who.node)

    # ----------------------------------------------------------------- workers

    def _resume(self, argument: tuple[SimWorker, Generator[Any, Any, None], Any]) -> None:
        who, life, answer = argument
        if not who.alive:
            return
        if who.stopped_until > self.now:
            self.schedule(who.stopped_until, _RESUME, argument)
            return
        if self.now > self._moved_at:
            self._moved_at = self.now
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
                    self.schedule(self.now + self._interruption_s(), _RESUME, (who, life, answer))
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

    def _wake(self, crew: list[SimWorker], answer: bool) -> None:
        """Have workers go on that waited: one after the other, together unless others may come in between."""
        for who in crew:
            who.wait_s += self.now - who.parked_at
        for together in [[who] for who in crew] if self.scenario.preemption else [crew]:
            self.schedule(self.now, _WAKE, (together, answer))

    def _resume_all(self, argument: tuple[list[SimWorker], bool]) -> None:
        for who in argument[0]:
            self._resume((who, who.life, argument[1]))

    def _publish(self, who: SimWorker, action: worker.Publish) -> int:
        if who.node.board.publish_own(action.group, who.local, action.value):
            who.node.ring()
        return who.node.board.held

    def _publish_seen(self, who: SimWorker, action: worker.PublishSeen) -> None:
        if who.node.board.publish_row(who.local, action.committed):
            who.node.ring()

    def _await(self, who: SimWorker, action: Await | Poll) -> Any:
        board = who.node.board
        if board.holds(who.local, action):
            return True
        if type(action) is Poll and board.has_news(who.local):
            return False
        if action.group is Group.COMMITTED and board.need(who.local, action.target):
            who.node.ring()
        who.parked_at = self.now
        board.park(who, who.local, action)
        return _PARKED

    def _compute(self, who: SimWorker, action: Compute) -> Any:
        who.compute_s += action.seconds
        self._moved_at = max(self._moved_at, until := self.now + action.seconds)
        self.schedule(until, _RESUME, (who, who.life, None))
        return _PARKED

    def _fetch(self, who: SimWorker, action: Fetch) -> Any:
        node = who.node
        who.parked_at = self.now
        waiting = node.fetching.setdefault(action.row, [])
        waiting.append(who)
        if len(waiting) == 1:
            node.want(messages.Touched(node.memory.owner_of(action.row), (action.row,)))
        return _PARKED

    def evict(self, node: SimNode, row: int) -> None:
        """Keep `row` fresh on `node` no longer, unless somebody waits for it."""
        if row in node.fetching:
            return
        node.memory.forget((row,))
        node.want(messages.Evicted(node.memory.owner_of(row), (row,)))

    # ----------------------------------------------------------------- nodes

    def carry_out(self, node: SimNode, actions: list[Action]) -> None:
        """Carry out what the agent of a node asks for."""
        for action in actions:
            if isinstance(action, Send):
                peer, frame = action
                argument = (node.rank, peer, self.connections.epochs[node.rank][peer], frame)
                for at in self.connections.arrivals(node.rank, peer, frame, self.now):
                    self.schedule(at, _ARRIVE, argument)
            elif isinstance(action, messages.Save):
                node.disk_free_at = max(self.now, node.disk_free_at) + self.scenario.disk_s * self._random.random()
                self.schedule(node.disk_free_at, _WRITTEN, (node, action))
            elif isinstance(action, messages.Done):
                self._rest(node)
            elif isinstance(action, messages.End):
                self.end(node, action.reason)
            elif isinstance(action, messages.Leave):
                self._leave(node)
            else:
                raise RemoteProtocolError(f"node {node.rank} refuses its peer {action.peer}: {action.reason}")
        if self._validate and node.runs is not None:
            node.runs.validate()
        if node.fetching:
            for row in [row for row in node.fetching if node.memory.readable(row)]:
                self._wake(node.fetching.pop(row), True)

    def _arrive(self, argument: tuple[int, int, int, Frame]) -> None:
        source, target, epoch, frame = argument
        node = self.nodes[target]
        if node.alive and self.connections.passes(source, target, epoch, self.now):
            node.tell(Received(source, frame))

    def _tick(self, node: SimNode) -> None:
        self._is_stuck = self.now > self._moved_at + self.scenario.patience_s
        if node.alive and node is self.nodes[node.rank]:
            node.tell(_TIME_PASSED)
            self.schedule(self.now + self._tick_s, _TICK, node)

    def _written(self, argument: tuple[SimNode, messages.Save]) -> None:
        node, save = argument
        if node.alive:
            node.saved[save.run % _RUNS_OF_A_LIFE, save.clock] = save.rows
            node.tell(messages.Saved())

    def end(self, node: SimNode, reason: str) -> None:
        """End the workers of a node; its agent stays until the others know why."""
        self.ended = self.ended or reason
        for who in self._crews[node.rank]:
            self.kill(who)
        if node.runs is None:
            self._leave(node)

    def crash(self, node: SimNode) -> None:
        """Take a node away with all that is on it, while anybody works."""
        if node.alive and self._running:
            self.ended = self.ended or f"node {node.rank} crashed"
            for who in self._crews[node.rank]:
                self.kill(who)
            self._leave(node)

    def kill(self, who: SimWorker) -> None:
        """End a worker."""
        if who.alive and not who.done:
            self._running -= 1
        who.alive = False

    def _leave(self, node: SimNode) -> None:
        """Take a node away; when all have gone after a crash, the job may start again."""
        node.alive = False
        if self.ended is None:
            return
        may_restart = self.scenario.restart and self.restarts < self.scenario.may_end
        if may_restart and not any(other.alive for other in self.nodes):
            self._restart_due = True
            self.call(self.now + _RESTART_S, self._restart)

    def _restart(self) -> None:
        """Start the job again from the last checkpoint that every node has on its disk."""
        run, clock = latest = max(set.intersection(*(set(node.saved) for node in self.nodes)), default=(0, 0))
        rows = np.concatenate([node.saved[latest] for node in self.nodes]) if clock else self._initial
        kept = [node.saved for node in self.nodes]
        self.restarts += 1
        self.ended = None
        self._restart_due = False
        self.on_restart(run, clock)
        self._start(run, clock, [rows] * self.scenario.nodes)
        for node, before in zip(self.nodes, kept, strict=True):
            node.saved.update({at: values for at, values in before.items() if at <= latest})
