"""What a `ChaosProxy` does to the bytes of its connections; none of it knows threads or listeners.

A `Direction` holds the conditions and counters of one direction of all connections. A `Pipe` holds, for one direction
of one connection, what was taken from one socket and not yet given to the other; a `Link` is the two of a connection.
"""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import struct
from collections import deque

_CHUNK_BYTES = 1 << 18
_HELD_BYTES = 16 << 20  # of one direction of one connection; then nothing more is read, and the sender is held back
_BURST_S = 0.01  # a rate is kept over stretches of this length
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

_END_MARK = b""  # the sender ended its stream in good order
_RESET_MARK = None  # the sender is gone


class Direction:
    """What is done to the bytes of one direction, of all connections together."""

    def __init__(self, name: str, seed: int) -> None:
        self.forwarded = 0
        self.flipped = 0
        self.cut_after: int | None  # so many bytes are still forwarded, then everything is closed
        self._received = 0
        self._flip_draw = random.Random(f"{seed} flip {name}")
        self._delay_draw = random.Random(f"{seed} delay {name}")
        self.clear()

    def clear(self) -> None:
        """Let everything pass at once."""
        self.cut_after = None
        self.delay_s = self.jitter_s = 0.0
        self.stalled_until = -math.inf
        self.limit(math.inf)
        self.plan_flips(0, 1)

    def limit(self, bytes_per_s: float) -> None:
        """Let so many bytes a second pass."""
        self._bytes_per_s = bytes_per_s
        self._burst = max(1.0, bytes_per_s * _BURST_S)
        self._allowed = 0.0
        self._counted_at = -math.inf

    def plan_flips(self, count: int, within_bytes: int) -> None:
        """Flip `count` bits, each within so many bytes after the one before it."""
        self._flips_left = count
        self._within_bytes = within_bytes
        self._next_flip = self._received + self._flip_draw.randrange(within_bytes)

    def due(self, now: float) -> float:
        """Return when a chunk that came in now may go out."""
        jitter_s = self.jitter_s * self._delay_draw.random() if self.jitter_s else 0.0
        return now + self.delay_s + jitter_s

    def allowed(self, now: float, size: int) -> tuple[int, float]:
        """Return how many of `size` bytes may go now, and if none, when to ask again."""
        if self._bytes_per_s < math.inf:
            self._allowed = min(self._burst, self._allowed + (now - self._counted_at) * self._bytes_per_s)
            self._counted_at = now
            wanted = min(size, self._burst)
            if self._allowed < wanted:
                return 0, now + (wanted - self._allowed) / self._bytes_per_s
            size = min(size, int(self._allowed))
        return (size if self.cut_after is None else min(size, self.cut_after)), now

    def count(self, sent: int) -> None:
        """Take note that bytes were forwarded."""
        self.forwarded += sent
        self._allowed -= sent if self._bytes_per_s < math.inf else 0
        if self.cut_after is not None:
            self.cut_after -= sent

    def spoil(self, chunk: bytes) -> bytes:
        """Return `chunk`, which just came in, with the bits flipped whose turn it is."""
        first, self._received = self._received, self._received + len(chunk)
        if not self._flips_left or self._next_flip >= self._received:
            return chunk
        spoiled = bytearray(chunk)
        while self._flips_left and self._next_flip < self._received:
            spoiled[self._next_flip - first] ^= 1 << self._flip_draw.randrange(8)
            self._flips_left -= 1
            self.flipped += 1
            self._next_flip += 1 + self._flip_draw.randrange(self._within_bytes)
        return bytes(spoiled)


class Pipe:
    """One direction of one connection: what was taken from `source` and not yet given to `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        self.source = source
        self.sink = sink
        self.direction = direction
        self.blocked = False  # the sink takes nothing now
        self.done = False  # the end of the stream was passed on
        self._ended = False
        self._held: deque[tuple[float, memoryview | bytes | None]] = deque()
        self._held_bytes = 0

    @property
    def wants_read(self) -> bool:
        """Whether more may be taken from the source."""
        return not self._ended and self._held_bytes < _HELD_BYTES

    def read(self, now: float) -> None:
        """Take what the source has."""
        try:
            chunk = self.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.reset(now)
            return
        if chunk:
            self._hold(memoryview(self.direction.spoil(chunk)), now)
            self._held_bytes += len(chunk)
        else:
            self._ended = True
            self._hold(_END_MARK, now)

    def reset(self, now: float) -> None:
        """Take note that the source is gone; the sink learns of it when all before has been forwarded."""
        self._ended = True
        self._hold(_RESET_MARK, now)

    def drop(self) -> None:
        """Take and give nothing more: the sink is gone, or has been told of the end."""
        self._ended = self.done = True
        self.blocked = False
        self._held.clear()

    def hurry(self) -> None:
        """Make due what was delayed."""
        self._held = deque((-math.inf, what) for _, what in self._held)

    def _hold(self, what: memoryview | bytes | None, now: float) -> None:
        # One that is due earlier waits for those before it: TCP would not let it overtake either.
        self._held.append((self.direction.due(now), what))

    def pump(self, now: float) -> float:
        """Forward what is due; return when to come again.

        Raises
        ------
        ConnectionResetError
            If the mark of a sender that is gone is due.
        BrokenPipeError
            If the sink is gone.
        """
        while self._held and not self.blocked:
            due, what = self._held[0]
            due = max(due, self.direction.stalled_until)
            if due > now:
                return due
            if what is None:
                raise ConnectionResetError
            if what == _END_MARK:
                with contextlib.suppress(OSError):  # the other side is gone already
                    self.sink.shutdown(socket.SHUT_WR)
                self.drop()
                break
            allowed, later = self.direction.allowed(now, len(what))
            if not allowed:
                return later
            try:
                sent = self.sink.send(what[:allowed])
            except BlockingIOError:
                self.blocked = True
                break
            except OSError as error:
                raise BrokenPipeError from error
            self._held_bytes -= sent
            self.direction.count(sent)
            if sent < len(what):
                self._held[0] = due, what[sent:]
            else:
                self._held.popleft()
            if self.direction.cut_after == 0:
                return now
        return math.inf


class Link:
    """A connection: the client's socket, ours to the target, and a pipe each way."""

    def __init__(self, client: socket.socket, target: socket.socket, up: Direction, down: Direction) -> None:
        self.client = client
        self.target = target
        self.up = Pipe(client, target, up)
        self.down = Pipe(target, client, down)
        self.connected = False
        self.up.blocked = True  # until connected

    def pump(self, now: float) -> float:
        """Forward what is due in both directions; return when to come again, -inf if the link is over."""
        again = math.inf
        for pipe, other in ((self.up, self.down), (self.down, self.up)):
            try:
                again = min(again, pipe.pump(now))
            except ConnectionResetError:
                pipe.sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return -math.inf
            except BrokenPipeError:
                pipe.drop()
                other.reset(now)
                again = min(again, now)
        return -math.inf if self.up.done and self.down.done else again

    def handle(self, ours: socket.socket, events: int, now: float) -> None:
        """Take note that `ours`, one of the two sockets, is ready."""
        incoming, outgoing = (self.up, self.down) if ours is self.client else (self.down, self.up)
        if events & selectors.EVENT_WRITE:
            outgoing.blocked = False
            if ours is self.target:
                self.connected = True  # or refused, as the next call finds
        if events & selectors.EVENT_READ:
            incoming.read(now)

    def interests(self) -> list[tuple[socket.socket, int]]:
        """Return what to wait for at each socket."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        return [
            (self.client, read * self.up.wants_read | write * self.down.blocked),
            (self.target, read * (self.connected and self.down.wants_read) | write * self.up.blocked),
        ]
