"""Shared memory between two real processes: millions of bytes both ways, killed, stopped, and what is left then."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from pathlib import Path

import pytest

from nbps.memory.segments import find_segments, remove_orphans
from nbps.testing.transport.ends import End, accepted, drive
from nbps.transport import Options, get_transport
from support.shm_peer import FRAME_LIMIT, Forks, check
from support.shm_stranger import name

pytestmark = pytest.mark.slow

RING_BYTES = 4 << 20
KILLS = int(os.environ.get("NBPS_KILLS", "6"))


@pytest.fixture(scope="module")
def forks():
    """Start processes that do tasks of shm_peer.py."""
    with contextlib.closing(Forks()) as script:
        yield script


class Peer:
    """A process that does a task, until it is waited for."""

    def __init__(self, forks, task, *arguments):
        self._forks = forks
        self._code = None
        self.pid = forks.start(task, *arguments)

    def wait(self):
        if self._code is None:
            self._code = self._forks.wait()
        return self._code

    def kill(self):
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and was not asked for how
                os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def peer(forks):
    """Give an end that is connected to another process which does a task of shm_peer.py, and that process."""

    @contextlib.contextmanager
    def connected(task, *numbers, queue_bytes=1 << 20):
        options = Options(frame_limit=FRAME_LIMIT, queue_bytes=queue_bytes)
        with contextlib.closing(get_transport("shm").listen(name(), options)) as listener:
            process = Peer(forks, task, listener.address, *numbers)
            try:
                with contextlib.closing(accepted(listener)) as connection:
                    yield End(connection), process
            finally:
                process.kill()
                process.wait()

    return connected


@pytest.mark.parametrize("longest", [100, 10_000, 3 * RING_BYTES])
def test_random_frames_cross_both_ways(peer, longest):
    """Two processes that send as fast as they can receive every byte of each other, short frames and long ones."""
    with peer("exchange", 6, longest) as (end, process):
        check(end, 7, 6, longest)
        assert process.wait() == 0
        drive(end, until=lambda: end.lost is not None)
        assert end.connection.bytes_received >= longest


@pytest.mark.parametrize("length", [1000, 3 * RING_BYTES // 2])
def test_a_killed_writer_leaves_whole_frames(peer, length):
    """Killed at any time, also amid a frame that is longer than the ring: whole frames in order, then the error."""
    pauses = random.Random(length)
    within = 0
    for _ in range(KILLS):
        with peer("flood", length) as (end, process):
            drive(end, until=lambda end=end: bool(end.frames))
            deadline = time.monotonic() + pauses.uniform(0, 0.03)
            while time.monotonic() < deadline:
                end.turn()
            process.kill()
            drive(end, until=lambda end=end: end.lost is not None)
            for number, frame in enumerate(end.frames):
                assert frame.size == length
                assert (frame == number % 251).all()
            assert "the other end closed it" in end.lost
            within += "within a frame" in end.lost
    assert within > 0 or length < RING_BYTES


def test_a_killed_reader_is_noticed_by_who_waits_for_room(peer):
    """A full ring and a full queue do not hang."""
    with peer("flood", 10, queue_bytes=1 << 22) as (end, process):
        end.reading = False
        os.kill(process.pid, signal.SIGSTOP)
        while end.connection.send(bytes(100_000)):
            pass
        process.kill()
        end.reading = True
        drive(end, until=lambda: end.lost is not None)


def test_a_stopped_process_goes_on_where_it_was(peer):
    """While it is stopped frames are refused and the loop sleeps; afterwards every frame comes back."""
    with peer("echo") as (end, process):
        os.kill(process.pid, signal.SIGSTOP)
        sent = 0
        while end.connection.send(b"\1" * 100_000):
            sent += 1
        poller = select.poll()
        while True:
            end.turn()
            end.register(poller)
            if not poller.poll(50):  # all that it had sent before
                break
        assert end.connection.wants_write
        assert sent * 100_000 > RING_BYTES
        os.kill(process.pid, signal.SIGCONT)
        drive(end, until=lambda: len(end.frames) == sent)
        assert all(frame.size == 100_000 and frame.all() for frame in end.frames)


def test_who_is_killed_while_connecting_leaves_nothing(forks):
    """At most a segment that is recognised as an orphan and removed; the listener goes on."""
    with contextlib.closing(get_transport("shm").listen(name(), Options())) as listener:
        random_pauses = random.Random(1)
        for _ in range(KILLS):
            process = Peer(forks, "connect_and_close", listener.address)
            deadline = time.monotonic() + random_pauses.uniform(0.05, 0.15)
            while time.monotonic() < deadline:
                accepted(listener).close()
            process.kill()
            process.wait()
            assert not [found for found in find_segments() if found.pid == process.pid and found.alive]
            remove_orphans()
            assert not [found for found in find_segments() if found.pid == process.pid]
            while (left := listener.accept()) is not None:
                left.close()
        with contextlib.closing(get_transport("shm").connect(listener.address, Options(), 30)):
            accepted(listener).close()
    assert listener.address not in Path("/proc/net/unix").read_text()
