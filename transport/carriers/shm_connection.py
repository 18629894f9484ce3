"""One end of a connection through shared memory: two rings of bytes, and a socket that carries bells.

A bell is a byte that wakes the other end; it is sent only if that end announced that it waits, for bytes or for room.
So two ends that are busy make no system call. A bell says neither what for it is nor for which of several
announcements. Hence the rule here: only `ShmConnection.receive` takes bells away, and before it says that nothing is
there it announces anew, and looks again at, everything that they may have been about: room and bytes. It does not send:
an end that was refused by `send` waits for the descriptor, and would not be told.

The kernel closes the socket of a process that ends, however it does, and what that put into its ring before is still
there. Bytes count only when the tail was moved past them, so a writer that is killed leaves no torn frame, only one
that never ends.

A frame is its length, 8 bytes, and its payload. There is no checksum: nothing lies between the two ends that could
change a bit, and computing one takes longer than the copies. But lengths and counts are another process's, and checked.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from nbps.errors import ConnectionLostError
from nbps.kernels import ring
from nbps.transport.interface import Buffer, Bytes, Connection, Options, total_bytes

_HEADER_BYTES = 8
_JOINED_BYTES = 1 << 13  # frames up to this length are copied into one buffer: that costs less than a kernel call more
_BELL = b"\x01"
_BELLS = 64  # taken away at once; few are ever there, since each answers an announcement


class Ring(NamedTuple):
    """The arrays of one direction, as `nbps.kernels.ring` has them."""

    words: npt.NDArray[np.int64]
    data: Bytes


class ShmConnection(Connection):
    """A connection through two rings of bytes.

    A loop that neither spins nor hangs: poll `fileno` for reading, and for writing if `wants_write`, which does no
    harm; after any event call `flush` if `wants_write`, then `receive` until it returns None. The descriptor never
    polls writable: a socket that carries only bells always would. Room in the ring is told by a bell, so that it polls
    readable; until `flush` or `send` if `receive` found it.

    Parameters
    ----------
    connected : socket
        To the other end; belongs to the connection from now on.
    outgoing, incoming : Ring
        Their arrays hold the shared memory.
    peer : str
    options : Options
    """

    def __init__(self, connected: socket.socket, outgoing: Ring, incoming: Ring, peer: str, options: Options) -> None:
        self.peer = peer
        self.frame_limit = options.frame_limit
        self.bytes_sent = 0  # also the tail of the outgoing ring
        self.bytes_received = 0  # also the head of the incoming ring
        self._queue_limit = options.queue_bytes
        self._lost: str | None = None  # why it ended; every call raises it
        self._closed_there = False  # and there may still be something to receive
        self._outgoing: Ring | None = outgoing
        self._incoming: Ring | None = incoming
        self._queue: deque[Bytes] = deque()
        self._queued = 0  # bytes of _queue that are not in the ring yet
        self._start = 0  # of them in its first buffer
        self._header: Bytes = np.empty(_HEADER_BYTES, np.uint8)
        self._payload: Bytes | None = None  # of the frame whose header has arrived
        self._filled = 0  # bytes that are in _payload or else in _header
        self._socket = connected
        connected.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(connected, select.EPOLLIN)
        self._has_room = False  # and the descriptor polls readable for that

    def fileno(self) -> int:
        """Descriptor that polls readable when there may be something to receive, or room again, but never writable."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        return self._epoll.fileno()

    # ------------------------------------------------------------------ sending

    @property
    def wants_write(self) -> bool:
        """Whether something is queued; when there is room for it, the descriptor polls readable, not writable."""
        return bool(self._queue)

    def send(self, *parts: Buffer) -> bool:
        """Send the concatenation of `parts` as one frame; False if the queue is full."""
        if self._queue:
            self.flush()
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        if self._closed_there:  # told by `receive`, after what has arrived; nobody will read this
            return True
        length = total_bytes(parts)
        if self._queue and self._queued + _HEADER_BYTES + length > self._queue_limit:
            return False
        header = length.to_bytes(_HEADER_BYTES, "little")
        if length <= _JOINED_BYTES:
            pieces: Sequence[Any] = (header, *parts)
            self._queue.append(np.frombuffer(bytearray().join(pieces), np.uint8))
        else:
            self._queue.append(np.frombuffer(bytearray(header), np.uint8))
            self._queue.extend(np.frombuffer(part, np.uint8) for part in parts if total_bytes([part]))
        self._queued += _HEADER_BYTES + length
        if self._queued == _HEADER_BYTES + length:
            self.flush()
        return True

    def flush(self) -> None:
        """Go on sending what is queued; takes no bell away, so call `receive` before polling again."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        self._tell_room(False)
        while self._queue:
            assert self._outgoing is not None
            words, data = self._outgoing
            source = self._queue[0]
            written, status = ring.write(words, data, self.bytes_sent, source, self._start)
            self.bytes_sent += written
            self._start += written
            self._queued -= written
            self._heed(status)
            if self._start == source.size:
                self._queue.popleft()
                self._start = 0
            elif status == ring.DONE and self._must_wait_for_room():
                return

    def _must_wait_for_room(self) -> bool:
        """Announce that this end waits for room; return whether it has to."""
        assert self._outgoing is not None
        words, data = self._outgoing
        # Half the ring, if so much is queued: to be woken after each piece that the other end took is far too often.
        wanted = self.bytes_sent - data.size + min(self._queued, (data.size + 1) // 2)
        return bool(ring.announce(words, ring.WRITER_AWAITS, ring.HEAD, wanted))

    def _tell_room(self, there_is: bool) -> None:
        """Have the descriptor poll readable as long as there is room that nobody has used."""
        if there_is != self._has_room:
            self._has_room = there_is
            # The socket polls writable, hence the epoll readable.
            self._epoll.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if there_is else 0))

    # ------------------------------------------------------------------ receiving

    def receive(self) -> Bytes | None:
        """Return the payload of the next frame; None if it is not complete yet."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            if self._closed_there:
                self._lose(f"the other end closed it{self._unfinished()}")
            self._take_bells()
            if self._closed_there:
                continue  # what it wrote before is in the ring
            if self._queue:
                self._tell_room(not self._must_wait_for_room())
            assert self._incoming is not None
            words = self._incoming.words
            if ring.announce(words, ring.READER_AWAITS, ring.TAIL, self.bytes_received + 1):
                return None

    def _take(self) -> Bytes | None:
        """Take the next frame from the ring; None if it is not all there."""
        if self._payload is None:
            if not self._fill(self._header):
                return None
            length = int.from_bytes(self._header.tobytes(), "little")
            if length > self.frame_limit:
                self._lose(f"a frame of {length:,} bytes was announced; at most {self.frame_limit:,} are taken here")
            self._payload, self._filled = np.empty(length, np.uint8), 0
        if not self._fill(self._payload):
            return None
        payload, self._payload, self._filled = self._payload, None, 0
        return payload

    def _fill(self, target: Bytes) -> bool:
        """Read on into `target`; return whether it is full."""
        assert self._incoming is not None
        words, data = self._incoming
        while self._filled < target.size:
            count, status = ring.read(words, data, self.bytes_received, target, self._filled)
            self.bytes_received += count
            self._filled += count
            self._heed(status)
            if count == 0:
                return False
        return True

    def _unfinished(self) -> str:
        if self._payload is not None:
            return f" within a frame, after {self._filled:,} of {self._payload.size:,} bytes"
        return " within the header of a frame" if self._filled else ""

    # ------------------------------------------------------------------ bells

    def _heed(self, status: int) -> None:
        """Do what a kernel asks for."""
        if status == ring.WAKE:
            # If the socket is full there are bells that wake as well; if nobody is there `receive` will tell.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                self._socket.send(_BELL, socket.MSG_NOSIGNAL)
        elif status == ring.BROKEN:
            self._lose("the counts in its shared memory make no sense: it was overwritten by something else")

    def _take_bells(self) -> None:
        try:
            bells = self._socket.recv(_BELLS)
        except BlockingIOError:
            return
        except ConnectionResetError:  # an end without having taken all bells away
            bells = b""
        if strange := bells.strip(_BELL):
            self._lose(f"what arrived is not a bell: {strange!r}")
        self._closed_there = not bells

    # ------------------------------------------------------------------ ending

    def close(self, linger: bool = True) -> None:
        """End the connection; what is still queued is dropped."""
        if self._lost is None:
            self._end_with(f"connection to {self.peer}: was closed here")

    def _lose(self, reason: str) -> NoReturn:
        self._end_with(f"connection to {self.peer}: {reason}")
        raise ConnectionLostError(self._lost)

    def _end_with(self, message: str) -> None:
        self._lost = message
        self._queue.clear()
        self._queued = self._start = self._filled = 0
        self._payload = self._outgoing = self._incoming = None
        self._epoll.close()
        # Ends it also if a child process holds a copy of the descriptor.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
