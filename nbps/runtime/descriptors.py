"""File descriptors on their way from the driver to a supervisor, where they get the numbers that they have here."""

from __future__ import annotations

import array
import errno
import os
import socket
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection

_MOST = 250  # in one message; the kernel takes 253


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` where descriptors 0 to 2 are closed: else a worker's print goes to what opens next."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def send_descriptors(connection: Connection, descriptors: Sequence[int]) -> None:
    """Send copies of `descriptors`; `receive_descriptors` takes them."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        for first in range(0, len(descriptors), _MOST):
            socket.send_fds(line, [b"\0"], descriptors[first : first + _MOST])


def receive_descriptors(connection: Connection, count: int) -> list[int]:
    """Take `count` descriptors, whatever their numbers are here.

    Raises
    ------
    OSError
        EMFILE if this process may not have so many, EPIPE if the other side is gone.
    """
    found = array.array("i")
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        while len(found) < count:
            wanted = min(_MOST, count - len(found))
            byte, part, flags, _ = socket.recv_fds(line, 1, wanted, socket.MSG_CMSG_CLOEXEC)
            found.extend(part)
            if not byte:
                raise OSError(errno.EPIPE, "the driver closed the connection")
            if flags & socket.MSG_CTRUNC or len(part) < wanted:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return found.tolist()


def renumber(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Give each of `descriptors` the number that stands in its place; what else has one of these is closed."""
    moved = [
        descriptor if descriptor == number else beside(descriptor, numbers)
        for descriptor, number in zip(descriptors, numbers, strict=True)
    ]
    for descriptor, number in zip(moved, numbers, strict=True):
        if descriptor != number:
            os.dup2(descriptor, number, inheritable=False)
            os.close(descriptor)


def beside(descriptor: int, numbers: Collection[int]) -> int:
    """Return `descriptor`, or a copy of it, under none of `numbers`; `renumber` closes what had one."""
    while descriptor in numbers:
        descriptor = os.dup(descriptor)
    return descriptor
