"""What the parts of the contract test: a transport, where it can listen, and ends of its connections."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any

import pytest

from nbps.testing.transport.ends import LIMIT_S, End, accepted, serve
from nbps.transport.interface import Options, Transport

_FRAME_LIMIT = 64 << 20
LENGTHS = (0, 1, 7, 8, 31, 32, 33, 127, 128, 129, 1000, 4096, 8191, 8193, 65_503, 65_537, 300_001, 1 << 20, 5_000_003)
# What a transport may hold at most besides its queue, in the buffers of the system.
BEYOND_QUEUE = 64 << 20


class Subject:
    """The transport that is tested; `transport` and `address` are for subclasses to say."""

    def transport(self) -> Transport:
        """Return the transport."""
        raise NotImplementedError

    def address(self) -> str:
        """Return an address of this machine that nobody listens at; one where the system chooses will do."""
        raise NotImplementedError

    def options(self, **fields: Any) -> Options:
        """Return options with these fields, and with what the transport needs besides."""
        return Options(**{"frame_limit": _FRAME_LIMIT, **fields})

    @contextlib.contextmanager
    def ends(self, **fields: Any) -> Iterator[tuple[End, End]]:
        """Give the end that connected and the one that listened; options have these `fields`."""
        with contextlib.closing(self.transport().listen(self.address(), self.options(**fields))) as listener:
            first = self.transport().connect(listener.address, self.options(**fields), LIMIT_S)
            second = accepted(listener)
        with contextlib.closing(first), contextlib.closing(second):
            yield End(first), End(second)

    @contextlib.contextmanager
    def peer(self, task: str, listens: bool = False) -> Iterator[tuple[End, Any, Pipe]]:
        """Give a connection to another process that does `task`, the process, and a pipe on which it says ``done``."""
        if not self.transport().crosses_processes:
            pytest.skip("this transport stays within a process")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with ours, contextlib.ExitStack() as stack:
            listener = None
            address = self.address()
            if not listens:
                listener = stack.enter_context(contextlib.closing(self.transport().listen(address, self.options())))
                address = listener.address
            arguments = (self.transport(), self.options(), address, listens, task, theirs)
            process = context.Process(target=serve, args=arguments)
            process.start()
            theirs.close()
            stack.callback(process.close)
            stack.callback(process.join)
            stack.callback(process.kill)
            if listener is not None:
                connection = accepted(listener)
            else:
                assert ours.poll(LIMIT_S)
                connection = self.transport().connect(ours.recv_bytes().decode(), self.options(), LIMIT_S)
            yield End(stack.enter_context(contextlib.closing(connection))), process, ours
