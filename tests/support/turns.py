"""The same happens to two nodes: one takes it by the core alone, the other in compiled turns where it may.

After everything that happens their frames, boards, rows, connections and cores have to be equal, to the last field.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from nbps.agent.batch import sections
from nbps.agent.board import AgentBoard
from nbps.agent.turns import NodeArrays, may_enter
from nbps.core.messages import Frame, LinkDown, LinkUp, Push, Received, Refuse, Send, Ship
from nbps.core.node import Node, State
from nbps.core.rules import FINISHED, is_checkpoint
from nbps.core.settings import Settings
from nbps.core.terms import Terms
from nbps.errors import ConnectionLostError, RemoteProtocolError
from nbps.kernels import checksum, layout
from nbps.kernels.turns import loop
from nbps.transport.carriers.header import HEADER_BYTES, NUMBERS, read_header, write_header
from nbps.transport.carriers.stream import StreamConnection
from nbps.transport.carriers.tcp_connection import TcpConnection
from nbps.transport.interface import Lent, Options
from nbps.transport.wire import decode, encode
from support.agent_tables import Kind, TestNode

WORKERS, ROWS = 2, 12
TABLE = Kind("t", ROWS, 2, "int64", sharding="hash")


def content(batch: np.ndarray) -> list[Any]:
    """Return the rows of a batch; what lies between them is nothing."""
    return [(*part[:4], part.ids.tobytes(), part.values.tobytes()) for part in sections(batch, [8], [2])]


class Written(bytearray):
    """What was written to a connection since it was taken last."""

    taken = 0

    def take(self) -> list[Any]:
        """Take its frames: those without rows as they are."""
        found, begin = [], 0
        while begin < len(self):
            head = self[begin : begin + HEADER_BYTES]
            length, checksum = read_header(memoryview(head), self.taken, 1 << 16)  # type: ignore[misc]
            payload = np.frombuffer(bytes(self[begin + HEADER_BYTES : begin + HEADER_BYTES + length]), np.uint8)
            begin += HEADER_BYTES + length
            self.taken = (self.taken + 1) % NUMBERS
            found.append((checksum, payload.tobytes()) if length == 64 else facts(decode(payload)))
        assert begin == len(self)
        self.clear()
        return found


class Fed(TcpConnection):
    """A connection whose bytes a test hands over, in both directions."""

    def __init__(self) -> None:
        StreamConnection.__init__(self, "peer", Options(frame_limit=1 << 16))
        self._socket = self  # type: ignore[assignment]
        self.arrived = b""
        self.written = Written()

    def fileno(self) -> int:
        return -1

    def _write(self, buffers: list[memoryview]) -> int:
        data = b"".join(buffers)
        self.written.extend(data)
        return len(data)

    def _read(self, into: memoryview) -> int:
        count = min(len(into), len(self.arrived))
        into[:count], self.arrived = self.arrived[:count], self.arrived[count:]
        return count or -1

    def _release(self, orderly: bool) -> None:
        pass


class Side:
    """A node with all that its agent has: board, rows, and a connection to each other node."""

    def __init__(self, settings: Settings) -> None:
        nodes, sources = settings.nodes, WORKERS + settings.nodes
        self.words = np.zeros(layout.board_words(sources, False, nodes), np.int64)
        self.words[layout.DOORBELL], self.words[layout.ONE] = -1, 1
        self.words[layout.WAITERS] = 1  # workers are woken as they should be
        self.board = AgentBoard(self.words, WORKERS, settings.rank, nodes, bounded=False)
        self.board.begin(0)
        self.rows = TestNode(settings.rank, nodes, [TABLE])
        for store in self.rows.memory._tables:
            store.base[store.ids[settings.rank]] = 0  # of own rows there is none, whatever stands there
        self.node = Node(settings, self.rows.memory, self.board, 0.0)
        self.connections = {peer: Fed() for peer in self.node.links}
        self.actions: list[Any] = []
        self.lost: list[tuple[int, str]] = []

    def tell(self, event: Any, now: float) -> None:
        """Tell the core, and carry out what it asks for."""
        for action in self.node.handle(event, now):
            if isinstance(action, Send):
                self.connections[action.peer].send(*encode(action.frame))
            else:
                self.actions.append(action)
            if isinstance(action, Refuse):
                self.reconnect(action.peer, now)

    def reconnect(self, peer: int, now: float) -> None:
        """Have another connection to a peer."""
        self.connections[peer] = Fed()
        for event in (LinkDown(peer), LinkUp(peer)):
            self.tell(event, now)

    def look(self, now: float) -> None:
        """Look at the board."""
        if self.board.has_news():
            self.take_news(now)

    def take_news(self, now: float) -> None:
        """Tell the core what is new on the board."""
        for event in self.board.news():
            if self.node.state is State.RUNNING:
                self.tell(event, now)

    def receive(self, peer: int, now: float) -> None:
        """Take what has come from a peer."""
        connection = self.connections[peer]
        try:
            while self.connections[peer] is connection and (payload := connection.receive()) is not None:
                self.tell(Received(peer, decode(payload)), now)
        except (ConnectionLostError, RemoteProtocolError) as error:
            self.lost.append((peer, str(error)))
            self.reconnect(peer, now)


class CompiledSide(Side):
    """The same in compiled turns: `take_news` and `take_frames` are those of the loop, or mutants of them."""

    def __init__(self, settings: Settings, rules: Any = loop) -> None:
        super().__init__(settings)
        self.arrays = NodeArrays(settings.nodes, WORKERS, self.board, self.rows.memory.changes())
        self.rules = rules
        self.common = self.rare = 0

    def _enter(self, lent: dict[int, Lent]) -> None:
        self.arrays.enter(self.node)
        for peer, connection in lent.items():
            self.arrays.connections[peer] = (*connection, 0, 0, 0, 0)

    def _leave(self, lent: dict[int, Lent]) -> None:
        arrays = self.arrays
        arrays.leave(self.node)
        for peer in lent:
            *words, error, unsent, begin, end = arrays.connections[peer].tolist()
            self.connections[peer].written.extend(arrays.outgoing[peer, :unsent])
            words[3] += unsent
            self.connections[peer].take_back(
                Lent(*words), arrays.outgoing[peer, :0], arrays.incoming[peer, begin:end], error
            )

    def look(self, now: float) -> None:
        """Look at the board in a compiled turn; what is rare on it has changed nothing."""
        lent = {peer: connection.lend() for peer, connection in self.connections.items()}
        if not (may_enter(self.node) and all(lent.values()) and self.board.has_news()):
            super().look(now)
            return
        self._enter(lent)
        before = self._state()
        is_common = bool(self.rules.take_news(self.arrays.state, now))
        assert is_common or self._state() == before, "something has changed before it was left to the core"
        self.common += is_common
        self.rare += not is_common
        self._leave(lent)
        self.board.catch_up(is_new=not is_common)
        self.take_news(now)

    def receive(self, peer: int, now: float) -> None:
        """Take frames in a compiled turn, as far as they are common; the rest is still in the buffer."""
        lent = {peer: connection.lend() for peer, connection in self.connections.items()}
        if may_enter(self.node) and all(lent.values()):
            self._enter(lent)
            connection, words = self.connections[peer], self.arrays.state.peers[peer]
            count = connection._read(words.incoming.data)
            words.begin, words.end = 0, max(0, count)
            words.bytes_received += max(0, count)
            before = self._state()
            is_common = self.rules.take_frames(self.arrays.state, peer, now)
            taken = int(self.arrays.state.node.events[0])
            assert is_common or taken or self._state() == before, "a rare frame has changed something"
            assert is_common == (words.begin == words.end), "what was taken is not what was common"
            self.common += taken
            self.rare += not is_common
            self._leave(lent)
        super().receive(peer, now)

    def _state(self) -> tuple[bytes, ...]:
        state = self.arrays.state
        node = [state.node[name].tobytes() for name in state.node.dtype.names if name not in ("checksum", "scratch")]
        return (*node, state.peers.tobytes(), self.words.tobytes(), state.told.tobytes())


class Twins:
    """Both sides, of node 0; what happens to one happens to the other, and then they are equal.

    What is common and what is not is exactly as `nbps.kernels.turns` promises: neither is more left to the core than
    has a reason there, nor less.
    """

    def __init__(self, rules: Any = loop, every: int = 0, **settings: Any) -> None:
        given = Settings(0, terms=Terms(staleness=0, checkpoint_every=every), retry_s=math.inf, **settings)
        self.core, self.compiled = Side(given), CompiledSide(given, rules)
        self.now = 0.0
        self.steps = 0

    def happen(self, act: Callable[[Side], None], reason: Callable[[Side], bool] | None = None) -> None:
        """Do the same on both sides, and compare; what was left to the core alone has one of the reasons, if given."""
        entered, rare, before = may_enter(self.compiled.node), self.compiled.rare, Before(self.core)
        for side in (self.core, self.compiled):
            act(side)
        core, compiled = facts(self.core), facts(self.compiled)
        found = differences(core, compiled)
        assert not found, found
        self.core.node.validate()
        self.compiled.node.validate()
        if entered and reason is not None and self.compiled.rare > rare:
            assert reason(self.core) or before.is_reason(self.core), "the event was common, but left to the core"
        self.steps += 1

    # ----------------------------------------------------------------- what can happen

    def commit(self, *clocks: int) -> None:
        """Have each worker publish a clock, and the agent look at the board."""

        def act(side: Side) -> None:
            for worker, clock in enumerate(clocks):
                side.words[layout.committed(worker)] = clock
            side.look(self.now)

        every = self.core.node.settings.terms.checkpoint_every
        self.happen(act, lambda side: min(clocks) == FINISHED or is_checkpoint(min(clocks), every))

    def need(self, worker: int, clock: int) -> None:
        """Have a worker wait for a clock."""

        def act(side: Side) -> None:
            side.words[layout.needed(WORKERS + len(side.node.links) + 1, worker)] = clock
            side.look(self.now)

        self.happen(act, lambda side: False)

    def arrive(self, count: int) -> None:
        """Have the workers come to a barrier."""

        def act(side: Side) -> None:
            for worker in range(WORKERS):
                side.words[layout.arrived(WORKERS + len(side.node.links) + 1, worker)] = count
            side.look(self.now)

        self.happen(act)

    def change(self, row: int) -> None:
        """Have a worker add to a row."""
        self.happen(lambda side: side.rows.add(0, row, 1))

    def feed(self, peer: int, data: bytes, frame: Frame | None = None) -> None:
        """Have bytes come from a peer: just this frame, if it is given."""

        def act(side: Side) -> None:
            side.connections[peer].arrived = data
            side.receive(peer, self.now)

        def is_rare(side: Side) -> bool:
            assert frame is not None
            message, run = frame.message, side.node.settings.run
            if isinstance(message, (Push, Ship)):
                return message.rows is not None or frame.run != run
            return message is not None or frame.run != run

        self.happen(act, None if frame is None else is_rare)

    def hear(self, peer: int, frame: Frame) -> None:
        """Have a frame come from a peer."""
        self.feed(peer, self.framed(peer, frame), frame)

    def framed(self, peer: int, *frames: Frame) -> bytes:
        """Return the bytes of the next frames of a peer."""
        data = b""
        for n, frame in enumerate(frames):
            payload = b"".join(bytes(part) for part in encode(frame))
            found = checksum.checksum(np.zeros(checksum.STATE_WORDS, np.uint64), np.frombuffer(payload, np.uint8), 0)
            head = bytearray(HEADER_BYTES)
            number = (self.core.connections[peer]._received + n) % NUMBERS
            write_header(memoryview(head), number, len(payload), int(found))
            data += bytes(head) + payload
        return data

    def tell(self, event: Any) -> None:
        """Have something happen of which only the core hears."""
        self.happen(lambda side: side.tell(event, self.now) if side.node.state is State.RUNNING else None)

    def break_off(self, peer: int) -> None:
        """Have a connection break, and another one made."""
        self.happen(lambda side: side.reconnect(peer, self.now))

    # ----------------------------------------------------------------- what peers may say

    def frame(self, peer: int, message: Any, acknowledges: int = 0, skips: int = 0) -> Frame:
        """Return the next frame of a peer, or one after or before it, that acknowledges so many messages more."""
        link = self.core.node.links[peer]
        number = 0 if message is None else max(1, link.received + 1 + skips)
        return Frame(self.core.node.settings.run, number, max(0, link.acknowledged + acknowledges), message)

    def push(self, peer: int, clocks: int = 1, batches: int = 1, rows: Any = None) -> Push:
        """Return the next push of a peer, so many clocks after the last, or at the end of a run if -1."""
        shard = self.core.node.shard
        clock = FINISHED if clocks == -1 else min(FINISHED, shard.clocks[peer] + clocks)
        return Push(shard.applied[peer] + batches, clock, rows)

    def ship(
        self, peer: int, clocks: int = 1, ships: int = 1, lacks: int = 0, answers: int = 0, rows: Any = None
    ) -> Ship:
        """Return the next ship of a peer; it `lacks` the last batches of this node."""
        replica = self.core.node.replicas[peer]
        clock = FINISHED if clocks == -1 else max(0, min(FINISHED, replica.clock + clocks))
        return Ship(replica.ships + ships, clock, max(0, replica.number - lacks), replica.requests + answers, rows)


class Before:
    """What of a node was so before an event that the core had to take it."""

    def __init__(self, side: Side) -> None:
        memory = side.rows.memory
        self.has_changes = any(store.dirty.any() or store.summary.any() for store in memory._tables)
        self.clock = side.node.shard.clock
        self.unapplied = [len(replica.unapplied) for replica in side.node.replicas.values()]
        self.actions, self.lost, self.node_clock = len(side.actions), len(side.lost), side.node.clock

    def is_reason(self, side: Side) -> bool:
        """Whether rows, an end, a checkpoint or a full link, or what was wrong, had to do with what happened."""
        node, shard = side.node, side.node.shard
        due = shard.save_due or any(shard.ship_due) or any(r.push_due for r in node.replicas.values())
        says = shard.clock > self.clock or node.clock > self.node_clock
        told = len(side.actions) > self.actions or len(side.lost) > self.lost
        unapplied = [len(replica.unapplied) for replica in node.replicas.values()]
        ends = says and FINISHED in (node.clock, shard.clock)
        return due or told or ends or unapplied != self.unapplied or (says and self.has_changes)


_CODE = (FunctionType, MethodType, Enum, type)
_NOT_STATE = {
    "_memory", "_board", "_replicas", "settings", "_settings", "terms", "_halting", "halting", "now", "out", "_socket",
    "_buffer", "_array", "_payload", "_begin", "_end", "_rest", "_state", "_empty", "taken", "seen", "shared", "share",
    "memory", "arrays", "rules", "common", "rare", "owners",
}  # fmt: skip


def facts(thing: Any) -> Any:
    """Return all of what `thing` knows, so that it can be compared: code, settings and places to work in aside."""
    if isinstance(thing, np.ndarray):
        is_batch = thing.dtype == np.uint8 and thing.size >= 64
        return content(thing) if is_batch else (thing.dtype.str, thing.shape, thing.tobytes())
    if isinstance(thing, Written):
        return thing.take()
    if isinstance(thing, (list, tuple, deque)):
        return type(thing).__name__, [facts(part) for part in thing]
    if isinstance(thing, dict) and type(thing) is dict:
        return {str(key): facts(value) for key, value in thing.items() if not isinstance(value, _CODE)}
    if isinstance(thing, _CODE) or not hasattr(thing, "__class__") or type(thing).__module__ == "builtins":
        return getattr(thing, "__qualname__", str(thing)) if isinstance(thing, _CODE) else thing
    names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", ())]
    found = {name: facts(getattr(thing, name)) for name in names if name not in _NOT_STATE}
    if isinstance(thing, dict):
        found["items"] = {key: facts(value) for key, value in thing.items()}
    if isinstance(thing, Node):
        found["halting"] = facts(thing.halting)
    if isinstance(thing, Side):
        found["stores"] = [facts(store) for store in thing.rows.memory._tables]
    return found


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Say where two facts differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [text for key in one for text in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for n, (mine, its) in pairs for text in differences(mine, its, f"{path}[{n}]")]
    return [] if one == other else [f"{path}: {one!r}, compiled {other!r}"]
