"""Nodes that are threads of one process, for tests and trials: frames go through queues, copied.

An address is any name. What one end sends lies in the queue of the other, which an eventfd announces; a queue is
bounded by the sender's ``Options.queue_bytes``. As over a network the two ends share nothing else: each array that
`Connection.receive` returns is the caller's own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

import numpy as np

from nbps.errors import ConfigError, ConnectionLostError, TransportError
from nbps.transport.interface import Buffer, Bytes, Connection, Listener, Options, Transport, total_bytes

_PAUSE_S = 0.005  # between two looks for a listener


class _Bell:
    """A descriptor that polls readable while it rings."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)


class _Pair:
    """What the two ends of a connection share; everything in it is changed under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queues: tuple[deque[Bytes], deque[Bytes]] = (deque(), deque())  # frames to each end
        self.queued = [0, 0]  # bytes of them
        self.bells: list[_Bell | None] = [None, None]  # of each end; None when it is closed
        self.refused = [0, 0]  # bytes of a frame of each end that found no room, until that end was woken for it


class InprocTransport(Transport):
    """Frames between threads of this process."""

    name = "inproc"
    crosses_processes = False
    address_form = "a name, as in node-0"

    def listen(self, address: str, options: Options) -> InprocListener:
        """Listen at any name."""
        _check(address, options)
        return InprocListener(address, options)

    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to a name that another thread listens at."""
        _check(address, options)
        start = time.monotonic()
        while True:
            with _lock:
                listener = _listeners.get(address)
                if listener is not None:
                    return listener.connected(options)
            left = start + timeout_s - time.monotonic()
            if left <= 0:
                raise TransportError(
                    f"nobody answers at {address!r} (tried for {time.monotonic() - start:.1f} s; last error: no thread "
                    "of this process listens there): does the other node run, in this process, and is this its address?"
                )
            time.sleep(min(_PAUSE_S, left))

    def canonical(self, address: str) -> str | None:
        """Return any name but the empty one."""
        return address or None

    def is_local(self, address: str) -> bool:
        """Return True: no other process can connect."""
        return True

    def free_rendezvous(self, job: str) -> str:
        """Return the name of the job."""
        return job


_lock = threading.Lock()  # of the two below and of listeners' queues
_listeners: dict[str, InprocListener] = {}


def _check(address: str, options: Options) -> None:
    if not address:
        raise TransportError("an address of inproc is any name, for instance node-0; found an empty one")
    if options.tls is not None:
        raise ConfigError("inproc needs no TLS: nothing leaves the process; leave tls out, or take the transport tcp")


class InprocListener(Listener):
    """Accepts connections at a name."""

    def __init__(self, address: str, options: Options) -> None:
        self.address = address
        self._options = options
        self._arrived: deque[InprocConnection] = deque()
        with _lock:
            if address in _listeners:
                raise TransportError(
                    f"cannot listen at {address!r}: another thread of this process does; choose another name, or "
                    "close its listener"
                )
            self._bell = _Bell()
            _listeners[address] = self

    def connected(self, options: Options) -> InprocConnection:
        """Return the far end of a new connection, the near one being ours; call it under the module's lock."""
        pair = _Pair()
        near = InprocConnection(pair, 0, f"{self.address} (which connected)", self._options)
        far = InprocConnection(pair, 1, self.address, options)
        self._arrived.append(near)
        self._bell.ring()
        return far

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._bell.descriptor if _listeners.get(self.address) is self else -1

    def accept(self) -> Connection | None:
        """Return a new connection; None if there is none now."""
        with _lock:
            if self._arrived:
                return self._arrived.popleft()
            if _listeners.get(self.address) is self:
                self._bell.silence()
            return None

    def close(self) -> None:
        """Stop listening; connections that nobody accepted end."""
        with _lock:
            if _listeners.get(self.address) is not self:
                return
            del _listeners[self.address]
            left = list(self._arrived)
            self._arrived.clear()
            os.close(self._bell.descriptor)
        for connection in left:
            connection.close()


class InprocConnection(Connection):
    """One end: `side` 0 is that of the listener."""

    def __init__(self, pair: _Pair, side: int, peer: str, options: Options) -> None:
        self.peer = peer
        self.frame_limit = options.frame_limit
        self.bytes_sent = 0
        self.bytes_received = 0
        self._queue_limit = options.queue_bytes
        self._pair = pair
        self._side = side
        self._bell = _Bell()
        self._lost: str | None = None
        pair.bells[side] = self._bell

    def fileno(self) -> int:
        """Descriptor that polls readable when there may be something to receive, or room again."""
        self._check()
        return self._bell.descriptor

    @property
    def wants_write(self) -> bool:
        """False: what `send` takes is at the other end at once."""
        return False

    def send(self, *parts: Buffer) -> bool:
        """Send the concatenation of `parts` as one frame; False if the other end has too much to read."""
        self._check()
        length = total_bytes(parts)
        there = 1 - self._side
        with self._pair.lock:
            bell = self._pair.bells[there]
            if bell is None:  # told by `receive`, after what has arrived; nobody will read this
                return True
            if not self._fits(length):
                self._pair.refused[self._side] = max(length, 1)
                return False
            arrays = [np.frombuffer(part, np.uint8) for part in parts if total_bytes([part])]
            self._pair.queues[there].append(np.concatenate([np.empty(0, np.uint8), *arrays]))
            self._pair.queued[there] += length
            bell.ring()
        self.bytes_sent += length
        return True

    def flush(self) -> None:
        """Do nothing."""
        self._check()

    def receive(self) -> Bytes | None:
        """Return the payload of the next frame; None if there is none."""
        self._check()
        here = self._side
        with self._pair.lock:
            queue = self._pair.queues[here]
            if not queue:
                if self._pair.bells[1 - here] is not None:
                    if not self._room_again():
                        self._bell.silence()
                    return None
                reason = "the other end closed it"
            else:
                frame = queue.popleft()
                self._pair.queued[here] -= frame.size
                other = self._pair.bells[1 - here]
                if self._pair.refused[1 - here] and other is not None:
                    other.ring()
                if frame.size <= self.frame_limit:
                    self.bytes_received += frame.size
                    return frame
                reason = f"a frame of {frame.size:,} bytes was announced; at most {self.frame_limit:,} are taken here"
        self._end_with(f"connection to {self.peer}: {reason}")
        raise ConnectionLostError(self._lost)

    def close(self, linger: bool = True) -> None:
        """End the connection; what the other end has not received yet it still receives."""
        if self._lost is None:
            self._end_with(f"connection to {self.peer}: was closed here")

    def _fits(self, length: int) -> bool:
        there = 1 - self._side
        return not self._pair.queues[there] or self._pair.queued[there] + length <= self._queue_limit

    def _room_again(self) -> bool:
        """Return, once, whether a refused frame would be taken now: then the bell may be for that, and goes on."""
        length, self._pair.refused[self._side] = self._pair.refused[self._side], 0
        if length and not self._fits(length):
            self._pair.refused[self._side] = max(length, 1)
            return False
        return length > 0

    def _end_with(self, message: str) -> None:
        self._lost = message
        with self._pair.lock:
            self._pair.bells[self._side] = None
            self._pair.queues[self._side].clear()
            other = self._pair.bells[1 - self._side]
            if other is not None:
                other.ring()
            os.close(self._bell.descriptor)

    def _check(self) -> None:
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
