"""Frames over a stream of bytes: what TCP and TLS have in common.

- Sending is lazy about copies: a short frame is joined into one buffer, the parts of a long one are queued as they are.
- Receiving reads many short frames at once into a buffer that is used again, and a long one into its own array.
- An error of writing is told by `receive`, after what arrived before: the other end may have sent its last frames and
  gone, and they must not be lost because we wrote to it meanwhile. Until then frames are taken and dropped.
"""

from __future__ import annotations

import abc
import errno
import itertools
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nbps.errors import ConnectionLostError
from nbps.kernels import checksum
from nbps.transport.carriers.header import HEADER_BYTES, NUMBERS, read_header, write_header
from nbps.transport.interface import Buffer, Bytes, Connection, Options, total_bytes

_BUFFER_BYTES = 1 << 16
_AFTER_LONG_BYTES = 1 << 12  # read at once after a long frame: the next is likely long too, and this much is copied
_JOINED_BYTES = 1 << 13  # frames up to this length are copied into one buffer, which costs less than two
_GATHERED = 64  # buffers given to the system at once; it takes 1024 at most
GONE = "the other end is gone"
_NO_HEADER = bytes(HEADER_BYTES)


class StreamConnection(Connection):
    """A connection over something that takes and gives bytes without blocking."""

    def __init__(self, peer: str, options: Options) -> None:
        self.peer = peer
        self.frame_limit = options.frame_limit
        self.bytes_sent = 0
        self.bytes_received = 0
        self._queue_limit = options.queue_bytes
        self._user_timeout_s = options.user_timeout_s
        self._lost: str | None = None  # why it ended; every call raises it
        self._broken: str | None = None  # why writing failed, while there may be something to receive
        self._queue: deque[memoryview] = deque()
        self._queued = 0  # bytes in _queue
        self._sent = 0  # frames, modulo NUMBERS
        self._received = 0
        self._array: Bytes = np.empty(_BUFFER_BYTES, np.uint8)
        self._buffer = self._array.data
        self._begin, self._end = 0, 0  # what of the buffer is not parsed yet
        self._read_bytes = _BUFFER_BYTES
        self._empty = False  # whether the last read took all there was
        self._payload: Bytes | None = None  # of a long frame that is arriving
        self._rest = self._buffer[:0]  # what of it is still to come
        self._checksum = 0  # its announced one
        self._state = np.empty(checksum.STATE_WORDS, np.uint64)  # where checksums are computed

    # ------------------------------------------------------------------ what subclasses do

    @abc.abstractmethod
    def _write(self, buffers: list[memoryview]) -> int:
        """Return how many bytes of `buffers`, in their order, were taken; 0 if none can be now."""

    @abc.abstractmethod
    def _read(self, into: memoryview) -> int:
        """Return how many bytes were read, at least 1; -1 if none are there now, 0 if none will come.

        It sets ``_empty`` if the next call would return -1.
        """

    @abc.abstractmethod
    def _release(self, orderly: bool) -> None:
        """Close the descriptor; if `orderly`, take care that what was sent arrives."""

    @abc.abstractmethod
    def _no_more_writing(self) -> None:
        """Have the descriptor poll readable until the end of what arrived is read."""

    # ------------------------------------------------------------------ sending

    @property
    def wants_write(self) -> bool:
        """Whether something is queued."""
        return bool(self._queue)

    def send(self, *parts: Buffer) -> bool:
        """Send the concatenation of `parts` as one frame; False if the queue is full."""
        if self._queue:
            self.flush()
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        if self._broken is not None:
            return True
        length = total_bytes(parts)
        size = HEADER_BYTES + length
        if self._queue and self._queued + size > self._queue_limit:
            return False
        buffers = self._framed(parts, length)
        self._sent = (self._sent + 1) % NUMBERS
        if self._queue or len(buffers) > _GATHERED:
            idle = not self._queue
            self._queue.extend(buffers)
            self._queued += size
            if idle:
                self.flush()
            return True
        taken = self._try_to_write(buffers)
        if taken != size and self._broken is None:
            self._queue.extend(buffers)
            self._queued = size
            self._drop_sent(taken)
        return True

    def _framed(self, parts: Sequence[Any], length: int) -> list[memoryview]:
        """Return the buffers of a frame."""
        if length <= _JOINED_BYTES:
            joined = bytearray().join((_NO_HEADER, *parts))
            view = memoryview(joined)
            found = checksum.checksum(self._state, np.frombuffer(joined, np.uint8), HEADER_BYTES)
            write_header(view, self._sent, length, found)
            return [view]
        header = memoryview(bytearray(HEADER_BYTES))
        buffers = [header]
        checksum.start(self._state)
        for part in parts:
            if not len(part):
                continue
            array = np.frombuffer(part, np.uint8)
            checksum.absorb(self._state, array, 0)
            buffers.append(array.data)
        write_header(header, self._sent, length, checksum.finish(self._state))
        return buffers

    def flush(self) -> None:
        """Go on sending what is queued."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        while self._queue:
            offered = list(itertools.islice(self._queue, _GATHERED))
            taken = self._try_to_write(offered)
            if self._broken is not None or self._drop_sent(taken):
                return

    def _try_to_write(self, buffers: list[memoryview]) -> int:
        """Return how many bytes of `buffers` were taken; sets ``_broken`` if none will be any more."""
        try:
            taken = self._write(buffers)
        except OSError as error:
            self._break(error)
            return 0
        self.bytes_sent += taken
        return taken

    def _break(self, error: OSError) -> None:
        """Write no more."""
        self._broken = self._say(error)
        self._drop_queue()
        self._no_more_writing()

    def _drop_sent(self, taken: int) -> bool:
        """Take the first `taken` bytes off the queue; return whether less was taken than was offered."""
        self._queued -= taken
        for _ in range(min(len(self._queue), _GATHERED)):
            first = self._queue[0]
            if taken < first.nbytes:
                self._queue[0] = first[taken:]
                return True
            taken -= first.nbytes
            self._queue.popleft()
        return False

    # ------------------------------------------------------------------ receiving

    def receive(self) -> Bytes | None:
        """Return the payload of the next frame; None if it is not complete yet."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        try:
            while True:
                frame = self._next_frame()
                if frame is not None:
                    self._received = (self._received + 1) % NUMBERS
                    return frame
                if self._empty:
                    self._empty = False
                    return None
                if not self._read_more():
                    return None
        except ConnectionLostError as error:
            self._lose(str(error))
        except OSError as error:
            found = self._say(error)
            self._lose(found if self._broken in (None, GONE) else self._broken)  # whichever says more

    def _next_frame(self) -> Bytes | None:
        """Return the next payload if it is all here; raise if what is here is not one."""
        if self._payload is not None:
            if self._rest.nbytes:
                return None
            payload, announced = self._payload, self._checksum
            self._payload, self._rest = None, self._buffer[:0]  # nothing of it is held here
        else:
            begin, end = self._begin, self._end
            if begin == end:
                return None
            header = read_header(self._buffer[begin : min(end, begin + HEADER_BYTES)], self._received, self.frame_limit)
            if header is None:
                return None
            length, announced = header
            begin += HEADER_BYTES
            if length > end - begin:
                self._begin_long(length, announced, begin, end)
                return None
            payload = self._array[begin : begin + length].copy()
            self._begin = begin + length
        if checksum.checksum(self._state, payload, 0) != announced:
            raise ConnectionLostError(
                f"frame {self._received} of {payload.size:,} bytes arrived changed: its checksum does not fit"
            )
        return payload

    def _begin_long(self, length: int, announced: int, begin: int, end: int) -> None:
        """Go on receiving into an array of its own; `begin` to `end` of the buffer is its first part."""
        here = end - begin
        self._payload = np.empty(length, np.uint8)
        self._payload[:here] = self._array[begin:end]
        self._rest = self._payload.data[here:]
        self._checksum = announced
        self._begin = self._end = 0
        self._read_bytes = _AFTER_LONG_BYTES if length > _BUFFER_BYTES else _BUFFER_BYTES

    def _read_more(self) -> bool:
        """Read once; return whether something came."""
        if self._payload is not None:
            count = self._read(self._rest)
        else:
            if self._begin:  # less than a header is left over
                left = self._end - self._begin
                self._array[:left] = self._array[self._begin : self._end]
                self._begin, self._end = 0, left
            count = self._read(self._buffer[self._end : self._end + self._read_bytes])
        if count < 0:
            return False
        if count == 0:
            raise ConnectionLostError(self._broken or f"the other end closed it{self._unfinished()}")
        self.bytes_received += count
        if self._payload is not None:
            self._rest = self._rest[count:]
        else:
            self._end += count
        return True

    def _unfinished(self) -> str:
        if self._payload is not None:
            here = self._payload.nbytes - self._rest.nbytes
            return f" within a frame, after {here:,} of {self._payload.nbytes:,} bytes"
        return " within the header of a frame" if self._end else ""

    # ------------------------------------------------------------------ ending

    def close(self, linger: bool = True) -> None:
        """End the connection; what is still queued is dropped."""
        if self._lost is None:
            self._end_with(f"connection to {self.peer}: was closed here", orderly=linger and self._broken is None)

    def _lose(self, reason: str) -> NoReturn:
        self._end_with(f"connection to {self.peer}: {reason}")
        raise ConnectionLostError(self._lost) from None

    def _end_with(self, message: str, orderly: bool = False) -> None:
        self._lost = message
        self._drop_queue()
        self._payload, self._rest = None, self._buffer[:0]
        self._release(orderly)

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0

    def _say(self, error: OSError) -> str:
        """Say what an error of the system means for the connection."""
        if isinstance(error, (ConnectionResetError, BrokenPipeError)):
            return GONE
        if error.errno == errno.ETIMEDOUT:
            return (
                f"the other end took nothing of what was sent for {self._user_timeout_s:g} s (user_timeout_s): does it "
                "hang, or is its machine or the network down?"
            )
        return os.strerror(error.errno) if error.errno else str(error)
