"""Lines of several processes on one stream: whole, in the order in which they came, at most so many held."""

from __future__ import annotations

import os
import select

_HELD_BYTES = 1 << 16  # of output that is read before it can be written: then the nodes wait
_LINE_LIMIT = 1 << 20  # a longer line is broken
_READ_BYTES = 1 << 16


class Sink:
    """A stream of ours; written to only when it takes something, so that nobody waits for it.

    Attributes
    ----------
    fd : int
    pending : bytearray
        What is still to be written.
    broken : bool
        Whether nobody reads it any more.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = bytearray()
        self.broken = False

    @property
    def has_room(self) -> bool:
        """Whether more is to be read from the nodes."""
        return len(self.pending) < _HELD_BYTES

    def add(self, data: bytes) -> None:
        """Take what is to be written."""
        if not self.broken:
            self.pending += data

    def write(self) -> None:
        """Write a part of what is pending; call it when the descriptor polls writable.

        A pipe that polls writable takes ``PIPE_BUF`` bytes without blocking. They end with a line if possible: the
        first node may write to the same terminal.
        """
        end = self.pending.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
        try:
            written = os.write(self.fd, self.pending[:end])
        except OSError:
            # As with an inherited stream, it is for those that print to fail: the nodes' pipes are closed.
            self.broken = True
            self.pending.clear()
            return
        del self.pending[:written]


class Source:
    """What one node prints: a pipe, and where its lines go, each after a prefix.

    Without a prefix bytes pass unchanged, up to the last end of a line or carriage return, with which progress bars
    begin or end.
    """

    def __init__(self, fd: int, sink: Sink, prefix: bytes) -> None:
        self.fd = fd
        self.sink = sink
        self.ended = False
        self._prefix = prefix
        self._partial = bytearray()

    @property
    def has_data(self) -> bool:
        """Whether there is something to read right now."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))

    def read(self) -> None:
        """Read what there is and pass on whole lines; call it when the descriptor polls readable."""
        data = os.read(self.fd, _READ_BYTES)
        if not data:
            self.ended = True
            self._pass_on(bytes(self._partial))
            return
        end = data.rfind(b"\n") + 1
        if not self._prefix:
            end = max(end, data.rfind(b"\r") + 1)
        if end:
            self._pass_on(bytes(self._partial + data[:end]))
            self._partial.clear()
        self._partial += data[end:]
        if len(self._partial) >= _LINE_LIMIT:
            self._pass_on(bytes(self._partial))
            self._partial.clear()

    def close(self) -> None:
        """Stop reading: the writer gets SIGPIPE or its error."""
        os.close(self.fd)

    def _pass_on(self, text: bytes) -> None:
        if self._prefix and text:
            text = self._prefix + text.removesuffix(b"\n").replace(b"\n", b"\n" + self._prefix) + b"\n"
        self.sink.add(text)
