"""What goes wrong in a simulation, and when it is right again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nbps.core.messages import Event, LinkDown, LinkUp, Terminate, WorkerLost
from nbps.sim.network import Connections
from nbps.sim.node import SimNode
from nbps.sim.scenario import Fault
from nbps.sim.worker import SimWorker


class Target(Protocol):
    """What faults strike: a simulation."""

    now: float
    nodes: list[SimNode]
    connections: Connections

    @property
    def workers(self) -> Sequence[SimWorker]:
        """All workers, by rank."""

    def crash(self, node: SimNode) -> None:
        """Take a machine away with everything on it."""

    def kill(self, who: SimWorker) -> None:
        """End a worker."""

    def end(self, node: SimNode, reason: str) -> None:
        """End the job on a machine."""

    def call(self, at: float, function: Callable[[], None]) -> None:
        """Call a function at a time."""


class Faults:
    """Strikes `target`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._strike: dict[str, Callable[[Fault], None]] = {
            "pause_worker": self._pause_worker,
            "pause_node": self._pause_node,
            "cut": self._cut,
            "partition": self._partition,
            "crash_node": self._crash_node,
            "crash_worker": self._crash_worker,
            "terminate": self._terminate,
        }

    def strike(self, fault: Fault) -> None:
        """Let `fault` happen now."""
        self._strike[fault.kind](fault)

    def _until(self, fault: Fault) -> float:
        return self._target.now + fault.for_s

    def _pause_worker(self, fault: Fault) -> None:
        who = self._target.workers[fault.who]
        who.stopped_until = max(who.stopped_until, self._until(fault))

    def _pause_node(self, fault: Fault) -> None:
        node = self._target.nodes[fault.who]
        node.stopped_until = max(node.stopped_until, self._until(fault))
        self._target.call(self._until(fault), node.turn)

    def _cut(self, fault: Fault) -> None:
        self._target.connections.cut(fault.who, fault.other)
        self._tell_both(fault, LinkDown)
        self._target.call(self._until(fault), lambda: self._heal(fault))

    def _heal(self, fault: Fault) -> None:
        if self._target.connections.heal(fault.who, fault.other):
            self._tell_both(fault, LinkUp)

    def _tell_both(self, fault: Fault, event: Callable[[int], Event]) -> None:
        for rank, peer in ((fault.who, fault.other), (fault.other, fault.who)):
            if self._target.nodes[rank].runs is not None:
                self._target.nodes[rank].tell(event(peer))

    def _partition(self, fault: Fault) -> None:
        self._target.connections.silence(fault.who, fault.other, self._until(fault))

    def _crash_node(self, fault: Fault) -> None:
        self._target.crash(self._target.nodes[fault.who])

    def _terminate(self, fault: Fault) -> None:
        if self._target.nodes[fault.who].runs is not None:
            self._target.nodes[fault.who].tell(Terminate())

    def _crash_worker(self, fault: Fault) -> None:
        who = self._target.workers[fault.who]
        if who.done or not who.alive:
            return
        self._target.kill(who)
        reason = f"worker {who.rank} died at clock {who.core.now}"
        if who.node.runs is not None:
            who.node.tell(WorkerLost(reason))
        else:
            self._target.end(who.node, reason)
