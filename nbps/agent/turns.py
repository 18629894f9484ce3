"""Compiled turns: an agent's loop where all that happens is common, on a node's state in arrays (`nbps.kernels.turns`).

The core stays the specification. `may_enter` says in which states of a node the compiled rules are the same; `enter`
brings such a state into the arrays, `leave` brings it back, with all that the rules have done to it meanwhile.
"""

from __future__ import annotations

import math
import select
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nbps.agent.board import AgentBoard
from nbps.agent.memory import NodeMemory
from nbps.agent.peers import Peers
from nbps.agent.spec import AgentSpec
from nbps.core.messages import Committed, Event, Frame, Message, Needed, Push, Received, Ship
from nbps.core.node import Node, State
from nbps.core.rules import FINISHED
from nbps.core.runs import Runs
from nbps.kernels.turns import frames, state
from nbps.kernels.turns.loop import BOARD, TIME, take_turns
from nbps.transport.interface import Lent

_SKIPPED_LIMIT = 64  # turns of Python in a row, where compiled ones do not pay


# --------------------------------------------------------------------------- a node's state, into arrays and back


def may_enter(node: Node) -> bool:
    """Whether the compiled rules know the state of `node`."""
    settings, shard, halting = node.settings, node.shard, node.halting
    terms = settings.terms
    if node.state is not State.RUNNING or node.unsaved or shard.save_due or shard.clock == FINISHED or halting.begun:
        return False
    if not terms.pushes or terms.ordered or terms.v0 is not None or settings.window > state.KEPT:
        return False
    if node.links.due or any(wanted is not None for wanted in shard.wanted):
        return False
    if any(replica.asked is not None for replica in node.replicas.values()):
        return False
    return all(link.up for link in node.links.values())


def _words(records: npt.NDArray[np.void], first: str, last: str) -> npt.NDArray[np.int64]:
    """Return these fields and those between them, 8 bytes each, of all records: a view, int64[records, fields]."""
    fields = records.dtype.fields
    assert fields is not None
    begin, end = fields[first][1], fields[last][1] + 8
    whole = records.view(np.ndarray).view(np.uint8).reshape(records.size, records.itemsize)
    return whole[:, begin:end].view(np.int64)


class NodeArrays:
    """The state of a node of `nodes` in arrays.

    Attributes
    ----------
    state : nbps.kernels.turns.state.State
    connections : int64[nodes, 9]
        Where the connection to each peer stands: `Lent`, then its error, bytes to be sent, and which are not taken of
        `outgoing` and `incoming`, uint8[nodes, n].
    """

    def __init__(
        self, nodes: int, workers: int, board: AgentBoard, changes: Sequence[tuple[int, int, int, int]]
    ) -> None:
        self.state = state.new_state(nodes, len(changes), board.words, board.told, board.seen)
        self.connections = _words(self.state.peers, "descriptor", "end")
        self.outgoing, self.incoming = (np.asarray(self.state.peers[name]) for name in ("outgoing", "incoming"))
        self._node = _words(self.state.node, "rank", "events")[0]
        self._times = _words(self.state.peers, "owed_at", "moved_at").view(np.float64)
        self._peers = _words(self.state.peers, "sent", "answered")
        self._clocks, self._kept = (np.asarray(self.state.peers[name]) for name in ("clock", "kept"))
        self._workers = workers
        self._sent = [0] * nodes  # messages to each peer, at the beginning
        for n, words in enumerate(changes):
            self.state.tables[n] = words

    def enter(self, node: Node) -> None:
        """Bring the state of `node` into the arrays."""
        settings, shard = node.settings, node.shard
        self._node[:] = (
            settings.rank, settings.nodes, self._workers, settings.run, settings.window,
            settings.terms.checkpoint_every, shard.clock, 0,
        )  # fmt: skip
        self._clocks[settings.rank] = node.clock
        for rank, link in node.links.items():
            replica = node.replicas[rank]
            unapplied = replica.unapplied
            owed_at = math.nan if link.owed_at is None else link.owed_at
            self._times[rank] = owed_at, link.heard_at, link.sent_at, link.moved_at
            self._peers[rank] = (
                link.sent, link.acknowledged, link.received, link.told,
                replica.number, replica.clock, replica.ships, replica.requests,
                unapplied[0][0] if unapplied else FINISHED,
                len(unapplied) >= settings.window or replica.unapplied_bytes >= settings.window_bytes,
                shard.clocks[rank], shard.applied[rank], shard.ships[rank], shard.answered[rank],
            )  # fmt: skip
            self._sent[rank] = link.sent

    def leave(self, node: Node) -> None:
        """Bring what the arrays say back to `node`."""
        settings, shard = node.settings, node.shard
        *_, shard.clock, events = self._node.tolist()
        node.clock = shard.clocks[settings.rank] = int(self._clocks[settings.rank])
        for rank, link in node.links.items():
            replica = node.replicas[rank]
            sent, acknowledged, link.received, link.told, *others = self._peers[rank].tolist()
            owed_at, link.heard_at, link.sent_at, link.moved_at = self._times[rank].tolist()
            link.owed_at = None if math.isnan(owed_at) else owed_at
            del link.kept[: acknowledged - link.acknowledged]
            first = max(self._sent[rank], acknowledged) + 1
            link.kept += [self._frame(settings.run, rank, number) for number in range(first, sent + 1)]
            link.sent, link.acknowledged = sent, acknowledged
            replica.number, replica.clock, replica.ships, *_ = others
            shard.clocks[rank], shard.applied[rank], shard.ships[rank], _ = others[-4:]
        shard.behind = shard.clocks.count(shard.clock)
        for number in range(max(0, events - state.STORY), events):
            node.told += self._event(number % state.STORY)

    def _frame(self, run: int, rank: int, number: int) -> Frame:
        """Return a message to a peer that was not acknowledged."""
        kind, acknowledged, *numbers = self._kept[rank, number % state.KEPT].tolist()
        return Frame(run, number, acknowledged, _message(kind, numbers))

    def _event(self, n: int) -> tuple[float, Event]:
        """Return an event of the story, and when it was."""
        node = self.state.node
        event, first, kind, run, number, acknowledged, *numbers = node["story"][0, n].tolist()
        now = float(node["told_at"][0, n])
        if event == state.RECEIVED:
            return now, Received(first, Frame(run, number, acknowledged, _message(kind, numbers)))
        return now, (Committed(first) if event == state.COMMITTED else Needed(first))


def _message(kind: int, numbers: Sequence[int]) -> Message | None:
    """Return the message of a frame without rows."""
    if kind == frames.PUSH:
        return Push(numbers[0], numbers[1], None)
    return Ship(numbers[0], numbers[1], numbers[2], numbers[3], None) if kind == frames.SHIP else None


# --------------------------------------------------------------------------- an agent's turns


def compiled_turns(
    spec: AgentSpec, nodes: int, board: AgentBoard, memory: NodeMemory, peers: Peers
) -> CompiledTurns | None:
    """Return compiled turns for an agent; None where it is alone, or has to do what they know nothing of."""
    terms = spec.terms
    is_common = terms.pushes and not terms.ordered and terms.v0 is None and spec.bandwidth_budget is None
    if nodes == 1 or not is_common or any(table.states is not None for table in spec.tables):
        return None
    return CompiledTurns(NodeArrays(nodes, spec.workers, board, memory.changes()), board, peers)


class CompiledTurns:
    """Compiled turns of an agent with these arrays, for the node that is in them and the others.

    Attributes
    ----------
    events : int
        Events that were taken in compiled turns.
    """

    def __init__(self, arrays: NodeArrays, board: AgentBoard, peers: Peers) -> None:
        self.events = 0
        self._arrays = arrays
        self._board = board
        self._peers = peers
        self._others = arrays.state.peers.size - 1
        self._polled: list[tuple[int, int]] = []
        self._run = -1
        self._skipped = self._to_skip = 0  # calls in which no turn was taken since the last one, and shall be

    def take(
        self, runs: Runs, others: Sequence[int], until: float, spin_s: float, sleep_ms: int
    ) -> list[tuple[int, int]] | None:
        """Take turns of a run until time is `until`, or something is not common.

        `others` are the doorbell, and descriptors of which only something rare is heard.

        Returns
        -------
        list of (int, int) or None
            Descriptors that have to be looked at, as of a poll: what has come is not in the socket any more. None if no
            turn was taken: the node is in another state, or such turns do not pay just now.
        """
        if runs.run != self._run:
            self._run, self._to_skip = runs.run, 0
        if self._skipped < self._to_skip:
            self._skipped += 1
            return None
        node, arrays = runs.node, self._arrays
        lent = self._peers.lend(self._others) if may_enter(node) and not self._board.wanted else None
        if lent is None:
            self._learn(0, is_paid=False)
            return None
        arrays.enter(node)
        self._poll_for(lent, others)
        for rank, connection in lent.items():
            arrays.connections[rank] = (*connection, 0, 0, 0, 0)
        why = take_turns(arrays.state, until, spin_s, sleep_ms)
        arrays.leave(node)
        self._board.catch_up(is_new=why == BOARD)
        unread = [rank for rank in lent if self._take_back(rank)]
        events = int(arrays.state.node["events"][0])
        self._learn(events, is_paid=why == TIME or events > self._others)
        return [(self._peers.descriptor(rank), select.POLLIN) for rank in unread]

    def _poll_for(self, lent: dict[int, Lent], others: Sequence[int]) -> None:
        """Have these descriptors polled."""
        polled = [(connection.descriptor, rank) for rank, connection in lent.items()]
        polled += zip(others, (state.BELL, *(state.ANY for _ in others[1:])), strict=True)
        if polled != self._polled:
            self._polled, node = polled, self._arrays.state.node
            node["descriptors"] = len(polled)
            for n, (descriptor, whose) in enumerate(polled):
                node["polled"][0, n] = descriptor, select.POLLIN
                node["whose"][0, n] = whose

    def _take_back(self, rank: int) -> bool:
        """Give a connection back to its owner; return whether what came on it, or broke it, is to be looked at."""
        *lent, error, unsent, begin, end = self._arrays.connections[rank].tolist()
        outgoing, incoming = self._arrays.outgoing[rank], self._arrays.incoming[rank]
        self._peers.take_back(rank, Lent(*lent), outgoing[:unsent], incoming[begin:end], error)
        return bool(begin < end or error)

    def _learn(self, events: int, is_paid: bool) -> None:
        """Enter less often after turns in which little was common before something was not, or none could be taken."""
        self.events += events
        self._skipped = 0
        self._to_skip = 0 if is_paid else min(2 * self._to_skip + 1, _SKIPPED_LIMIT)
