"""What may go wrong while two processes set up shared memory: greetings, descriptors and limits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import socket

import numpy as np
import pytest

from nbps.errors import SharedMemoryError, TransportError
from nbps.testing.transport.ends import accepted
from nbps.transport import Options, get_transport
from nbps.transport.carriers import shm_greeting
from support.shm_stranger import (
    GREETING,
    MEMORY,
    NO_MEMORY,
    PAGE,
    RING,
    Stranger,
    descriptors_open,
    is_closed,
    knock,
    listening,
    memory_file,
    our_segments,
)

FUZZ = int(os.environ.get("NBPS_FUZZ", "2000"))


def sent_by(stranger, message, descriptors):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if descriptors:
            socket.send_fds(stranger, [message], descriptors)
        else:
            stranger.sendall(message)


WRONG_GREETINGS = {
    "nothing": (b"", 0, None),
    "half": (GREETING.pack(b"nbps", 1, MEMORY, RING)[:15], 1, None),
    "no memory passed": (GREETING.pack(b"nbps", 1, MEMORY, RING), 0, None),
    "memory with a refusal": (GREETING.pack(b"nbps", 1, NO_MEMORY, 0), 1, None),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", 0, None),
    "another version": (GREETING.pack(b"nbps", 2, MEMORY, RING), 1, None),
    "another kind": (GREETING.pack(b"nbps", 1, 2, RING), 1, None),
    "a longer file": (GREETING.pack(b"nbps", 1, MEMORY, RING), 1, PAGE + 2 * RING + 1),
    "a shorter file": (GREETING.pack(b"nbps", 1, MEMORY, 2 * RING), 1, PAGE + 2 * RING),
    "an empty file": (GREETING.pack(b"nbps", 1, MEMORY, 0), 1, 0),
    "no power of two": (GREETING.pack(b"nbps", 1, MEMORY, 3 * RING), 1, PAGE + 6 * RING),
    "a tiny ring": (GREETING.pack(b"nbps", 1, MEMORY, 8), 1, PAGE + 16),
    "a huge ring": (GREETING.pack(b"nbps", 1, MEMORY, 1 << 40), 1, PAGE + (1 << 41)),
    "no length at all": (GREETING.pack(b"nbps", 1, MEMORY, 2**64 - 1), 1, None),
}


@pytest.mark.parametrize("what", WRONG_GREETINGS)
def test_a_wrong_greeting_is_nobody(what):
    """It is not accepted, gets no answer, and leaves no descriptor."""
    message, descriptors, size = WRONG_GREETINGS[what]
    size = PAGE + 2 * RING if size is None else size
    with listening() as listener, memory_file(size) as descriptor, knock(listener.address) as stranger:
        sent_by(stranger, message, [descriptor] * descriptors)
        stranger.shutdown(socket.SHUT_WR)
        while select.select([listener], [], [], 0.02)[0]:
            assert listener.accept() is None
        assert is_closed(stranger)


@pytest.mark.parametrize("kind", ["pipe", "socket", "two files", "not for writing", "sealed"])
def test_a_wrong_descriptor_is_nobody(kind):
    """Only a file of the right size that can be written is mapped, and more than one is none."""
    greeting = GREETING.pack(b"nbps", 1, MEMORY, RING)
    with listening() as listener, knock(listener.address) as stranger, contextlib.ExitStack() as stack:
        match kind:
            case "pipe":
                descriptors = list(os.pipe())
                for descriptor in descriptors:
                    stack.callback(os.close, descriptor)
                del descriptors[1:]
            case "not for writing":
                writable = stack.enter_context(memory_file(PAGE + 2 * RING))
                descriptors = [os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)]
                stack.callback(os.close, descriptors[0])
            case "sealed":
                descriptors = [os.memfd_create("sealed", os.MFD_ALLOW_SEALING)]
                stack.callback(os.close, descriptors[0])
                os.ftruncate(descriptors[0], PAGE + 2 * RING)
                fcntl.fcntl(descriptors[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            case "socket":
                descriptors = [stranger.fileno()]
            case "two files":
                descriptors = [stack.enter_context(memory_file(PAGE)) for _ in range(2)]
        sent_by(stranger, greeting, descriptors)
        assert listener.accept() is None
        if kind != "socket":  # that one was passed on, and ends with its last copy
            assert is_closed(stranger)


def test_a_refusal_is_passed_on():
    """Why the other end could not connect is told here, as far as it can be read; an empty reason does no harm."""
    with listening() as listener:
        for said, told in ((b"no room", "no room"), (b"\xff" * 9000, "�" * 4096), (b"", "")):
            with knock(listener.address) as stranger:
                stranger.sendall(GREETING.pack(b"nbps", 1, NO_MEMORY, len(said)) + said)
                with pytest.raises(SharedMemoryError) as caught:
                    listener.accept()
            expected = f"process {os.getpid()} cannot connect to {listener.address!r}: {told}"
            assert str(caught.value) == expected
        with knock(listener.address) as stranger:
            stranger.sendall(GREETING.pack(b"nbps", 1, NO_MEMORY, 10))  # and no reason
            assert listener.accept() is None


def test_who_says_nothing_is_in_nobodys_way():
    """Of many connections that only wait the oldest have to go; who greets late, but in time, is accepted."""
    with listening() as listener, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(knock(listener.address)) for _ in range(shm_greeting._GREETED_LIMIT)]
        assert listener.accept() is None
        assert not select.select([listener], [], [], 0)[0]
        stranger = Stranger(listener.address)
        stack.enter_context(stranger.socket)
        accepted(listener).close()
        assert is_closed(silent[0])
        with memory_file(PAGE + 2 * RING) as descriptor:
            socket.send_fds(silent[-1], [GREETING.pack(b"nbps", 1, MEMORY, RING)], [descriptor])
        accepted(listener).close()
        silent[1].close()
        assert listener.accept() is None


def test_greetings_that_are_noise_are_nobody():
    """Random bytes with random descriptors: at most a refusal is told, nothing is left open, and a node gets in."""
    random = np.random.default_rng(0)
    with listening() as listener, memory_file(PAGE + 2 * RING) as descriptor:
        before = descriptors_open()
        for n in range(FUZZ // 4):
            whole = bytearray(GREETING.pack(b"nbps", 1, n % 2, RING) + random.bytes(random.integers(0, 30)))
            for place in random.integers(0, len(whole), random.integers(1, 4)):
                whole[place] = random.integers(256)
            with knock(listener.address) as stranger:
                sent_by(stranger, bytes(whole[: random.integers(1, len(whole) + 1)]), [descriptor] * (n % 3))
                with contextlib.suppress(SharedMemoryError):
                    if (connection := listener.accept()) is not None:
                        connection.close()
            with contextlib.suppress(SharedMemoryError):
                assert listener.accept() is None
        assert descriptors_open() == before
        with contextlib.closing(get_transport("shm").connect(listener.address, Options(), 30)):
            accepted(listener).close()


@pytest.mark.parametrize("spare", [0, 1], ids=["for the connection", "for its memory"])
def test_too_few_descriptors_are_told(spare):
    """Accepting says that there are none left, and works again when there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as listener, knock(listener.address) as stranger, memory_file(PAGE + 2 * RING) as descriptor:
        socket.send_fds(stranger, [GREETING.pack(b"nbps", 1, MEMORY, RING)], [descriptor])
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
        try:
            with pytest.raises(TransportError, match=r"cannot accept .* raise the limit of open files"):
                listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if spare:
            assert listener.accept() is None
            assert is_closed(stranger)
        else:
            accepted(listener).close()


def test_too_few_descriptors_to_connect_are_told():
    """Connecting says so at once, and leaves nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as listener:
        free = os.dup(0)
        os.close(free)
        for spare in range(3):  # for the socket, for the segment, for the epoll
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, limits[1]))
            try:
                with pytest.raises(TransportError, match=r"cannot connect to .*: Too many open files"):
                    get_transport("shm").connect(listener.address, Options(), 30)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert our_segments() == []
            while (connection := listener.accept()) is not None:
                connection.close()
