"""Shared memory between processes: addresses, other users, room, full memory, and what the other end forges."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.errors import ConfigError, ConnectionLostError, TransportError
from nbps.kernels import ring
from nbps.memory.segments import FOLDER
from nbps.testing.transport.ends import accepted
from nbps.transport import Options, Tls, get_transport
from support.mounts import disk, mounted
from support.shm_stranger import (
    RING,
    descriptors_open,
    listening,
    memory_file,
    name,
    our_segments,
    pair,
    stranger_and_connection,
)

FUZZ = int(os.environ.get("NBPS_FUZZ", "2000"))


# --------------------------------------------------------------------------- addresses and options


@pytest.mark.parametrize("address", ["", "a b", "a/b", "ä", "a\0b", "127.0.0.1:80", "x" * 65, "a\n"])
def test_an_address_is_a_plain_name(address):
    """Anything else is refused, with what is allowed."""
    for call in (lambda: get_transport("shm").listen(address, Options()),
                 lambda: get_transport("shm").connect(address, Options(), 0.0)):  # fmt: skip
        with pytest.raises(TransportError, match="expected a name of at most 64 letters"):
            call()


def test_the_longest_name_works():
    """64 characters fit into the name of a socket, with the longest user id."""
    assert len(f"\0nbps-shm-{2**32}-".encode()) + 64 <= 108
    address = ("-x._" + name()).ljust(64, "y")
    listener = get_transport("shm").listen(address, Options())
    connection = get_transport("shm").connect(address, Options(), 30)
    with contextlib.closing(listener), contextlib.closing(connection), contextlib.closing(accepted(listener)):
        assert connection.peer == listener.address == address


def test_tls_is_refused():
    """Options of TLS are a mistake here, for both ends."""
    options = Options(tls=Tls(Path("a"), Path("b"), Path("c")))
    with pytest.raises(ConfigError, match="shm needs no TLS"):
        get_transport("shm").listen(name(), options)
    with pytest.raises(ConfigError, match="shm needs no TLS"):
        get_transport("shm").connect(name(), options, 0.0)


def test_who_accepts_knows_the_process():
    """Messages name the process at the other end."""
    with pair() as (first, second):
        assert second.peer == f"{first.peer} (process {os.getpid()})"


# --------------------------------------------------------------------------- nothing is left, nothing is lost


def test_a_segment_has_its_name_only_while_connecting():
    """From then on nobody has to remove anything, however both ends end."""
    with listening() as listener:
        first = get_transport("shm").connect(listener.address, Options(), 30)
        assert our_segments() == []
        assert first.send(b"before it was accepted")
        with contextlib.closing(first), contextlib.closing(accepted(listener)) as second:
            assert our_segments() == []
            assert bytes(second.receive()) == b"before it was accepted"


def test_who_never_received_may_sleep():
    """A descriptor that is polled before the first `receive` polls readable for the first frame, at both ends."""
    with pair() as (first, second):
        for sender, receiver in ((first, second), (second, first)):
            assert not select.select([receiver], [], [], 0)[0]
            assert sender.send(b"x")
            assert select.select([receiver], [], [], 30)[0]
            assert bytes(receiver.receive()) == b"x"


def test_a_busy_pair_calls_nobody():
    """Thousand frames to who does not sleep send no bell, nor does taking them from who does not wait for room."""
    with stranger_and_connection() as (stranger, connection):
        stranger.socket.setblocking(False)
        for _ in range(1000):  # the stranger does not announce that it sleeps, and takes everything at once
            assert connection.send(b"x" * 100)
            stranger.back[ring.HEAD] = stranger.back[ring.TAIL]
            stranger.write((100).to_bytes(8, "little") + bytes(100))
            assert connection.receive().size == 100
        with pytest.raises(BlockingIOError):
            stranger.socket.recv(1)


def test_a_loop_sleeps_while_the_ring_is_full():
    """A queue that waits for room does not poll, neither for reading nor for writing, until half the ring is free."""
    size = 1 << 16
    with pair(queue_bytes=4 << 20, frame_limit=size) as (first, second):
        poller = select.poll()
        poller.register(second.fileno(), select.POLLIN | select.POLLOUT)
        taken = received = 0
        while second.send(bytes(size)):
            taken += 1
        for _ in range(3):
            assert second.receive() is None
            assert second.wants_write
            assert poller.poll(20) == []
        while not poller.poll(0):
            received += first.receive() is not None
        assert received == 32  # of 64 KiB and a header, and the ring has 4 MiB
        while received < taken:
            second.flush()
            assert second.receive() is None
            while first.receive() is not None:
                received += 1
        assert not second.wants_write


def test_room_that_receive_finds_is_told_until_it_is_used():
    """The descriptor polls readable although no bell is there, and sleeps again after `flush`, or `send`."""
    for use in ("flush", "send"):
        with stranger_and_connection() as (stranger, connection):
            assert connection.send(bytes(RING + 1000))
            assert connection.receive() is None
            assert not select.select([connection], [], [], 0)[0]
            stranger.back[ring.HEAD] = RING
            for _ in range(2):
                assert connection.receive() is None
                assert connection.wants_write
                assert select.select([connection], [], [], 0)[0]
            if use == "flush":
                connection.flush()
            else:
                assert connection.send(b"x")
            assert not connection.wants_write
            assert connection.receive() is None
            assert not select.select([connection], [], [], 0)[0]


_FULL = """
import os
from nbps.transport import Options, get_transport
from nbps.errors import SharedMemoryError
from pathlib import Path
shm = get_transport("shm")
before = len(list(Path("/proc/self/fd").iterdir()))
listener = shm.listen("full", Options())
for call in (lambda: shm.connect("full", Options(), 5), listener.accept):
    try:
        call()
    except SharedMemoryError as error:
        print(error)
print(listener.accept(), os.listdir("/dev/shm"))
listener.close()
print(len(list(Path("/proc/self/fd").iterdir())) - before)
"""


def test_a_full_shared_memory_is_told_at_both_ends():
    """In a /dev/shm of 1 MiB rings of 8 MiB are an error with both numbers for who connects and who accepts."""
    command = [*mounted(disk(FOLDER, "size=1m")), sys.executable, "-c", _FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("shared memory is too small for 'rings-full': needed 8,392,704 bytes, free 1,048,576 of")
    assert lines[1].startswith("process ")
    assert lines[1].endswith(f"cannot connect to 'full': {lines[0]}")
    assert lines[2:] == ["None []", "0"]


# --------------------------------------------------------------------------- other users

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def _as_somebody_else(script, address):
    """Start a script as another user; it prints a line when it is ready."""
    command = [sys.executable, "-c", f"import os, socket, sys; os.setuid(65534); address = {address!r}\n{script}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@as_root
def test_a_name_that_another_user_took_is_told():
    """Who listens there gets nothing of us, and is named."""
    address = name()
    script = "s = socket.socket(socket.AF_UNIX); s.bind(address); s.listen(); print('ready', flush=True)\n" \
        "c, _ = s.accept(); print(c.recv(100), flush=True); sys.stdin.read()"  # fmt: skip
    process = _as_somebody_else(script, f"\0nbps-shm-0-{address}")
    try:
        told = rf"taken by process {process.pid} of user 65534; expected one of user 0"
        with pytest.raises(TransportError, match=told):
            get_transport("shm").connect(address, Options(), 30)
        assert process.stdout.readline() == "b''\n"
        with pytest.raises(TransportError, match="another process listens there"):
            get_transport("shm").listen(address, Options())
    finally:
        process.communicate()


@as_root
def test_another_user_is_not_let_in():
    """A connection of another user is closed, and never accepted, whatever it says."""
    with listening() as listener:
        script = "s = socket.socket(socket.AF_UNIX); s.connect(address)\n" \
            "s.send(b'nbps' + bytes([1, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0]) + b'hello')\n" \
            "print('ready', flush=True); s.settimeout(30)\n" \
            "try: print(s.recv(10), flush=True)\nexcept ConnectionResetError: print(b'', flush=True)"  # fmt: skip
        process = _as_somebody_else(script, f"\0nbps-shm-0-{listener.address}")
        assert select.select([listener], [], [], 30)[0]
        assert listener.accept() is None
        assert process.communicate()[0] == "b''\n"
        assert not select.select([listener], [], [], 0)[0]


# --------------------------------------------------------------------------- what peers do afterwards


@pytest.mark.parametrize("bells", [b"\x01", b"\x01" * 1000])
def test_bells_without_a_reason_do_no_harm(bells):
    """They wake, nothing is there, and frames that come later arrive."""
    with stranger_and_connection() as (stranger, connection):
        stranger.socket.sendall(bells)
        while select.select([connection], [], [], 0)[0]:
            assert connection.receive() is None
        stranger.write((1).to_bytes(8, "little") + b"x")
        assert bytes(connection.receive()) == b"x"


@given(st.binary(min_size=1, max_size=64).filter(lambda noise: noise.strip(b"\x01")))
def test_what_is_no_bell_ends_the_connection(noise):
    """Any other byte is not of nbps."""
    with stranger_and_connection() as (stranger, connection):
        stranger.socket.sendall(noise)
        with pytest.raises(ConnectionLostError, match="is not a bell"):
            connection.receive()
        with pytest.raises(ConnectionLostError, match="is not a bell"):
            connection.send(b"x")


def test_descriptors_that_come_with_bells_are_dropped():
    """Nothing passed later is kept open."""
    with stranger_and_connection() as (stranger, connection), memory_file(1) as descriptor:
        before = descriptors_open()
        for _ in range(3):
            socket.send_fds(stranger.socket, [b"\x01"], [descriptor])
            assert connection.receive() is None
        assert descriptors_open() == before


@pytest.mark.parametrize("length", [1001, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_length_beyond_the_limit_takes_no_memory(length):
    """It ends the connection, with both lengths."""
    with stranger_and_connection(frame_limit=1000) as (stranger, connection):
        stranger.write(length.to_bytes(8, "little"))
        with pytest.raises(ConnectionLostError, match=f"a frame of {length:,} bytes was announced; at most 1,000"):
            connection.receive()


@pytest.mark.parametrize(
    ("word", "count"),
    [(word, count) for word in ("tail", "head") for count in (2**63 - 1, -(2**63))]
    + [("tail", -1), ("tail", RING + 1), ("head", 1), ("head", -RING - 1)],
)
def test_counts_that_make_no_sense_end_the_connection(word, count):
    """A tail that is not within the ring ends who receives, a head who sends; every call raises then."""
    with stranger_and_connection() as (stranger, connection):
        if word == "tail":
            stranger.words[ring.TAIL] = count
            calls = [connection.receive]
        else:
            stranger.back[ring.HEAD] = count
            calls = [lambda: connection.send(b"x")]
        for call in (*calls, *calls, connection.flush, connection.receive, connection.fileno):
            with pytest.raises(ConnectionLostError, match="counts in its shared memory make no sense"):
                call()
        connection.close()


@pytest.mark.parametrize("end", ["in a header", "in a frame", "between frames"])
def test_a_writer_that_ends_leaves_no_torn_frame(end):
    """Whole frames arrive, then the error says where it ended; also if the bytes came after the last bell."""
    frame = (100).to_bytes(8, "little") + bytes(range(100))
    rest, said = {
        "in a header": (frame[:5], "closed it within the header of a frame"),
        "in a frame": (frame[:90], "closed it within a frame, after 82 of 100 bytes"),
        "between frames": (b"", r"closed it$"),
    }[end]
    with stranger_and_connection() as (stranger, connection):
        assert connection.receive() is None
        stranger.write(2 * frame + rest)
        stranger.socket.close()
        assert select.select([connection], [], [], 30)[0]
        assert [bytes(connection.receive()) for _ in range(2)] == [bytes(range(100))] * 2
        with pytest.raises(ConnectionLostError, match=said):
            connection.receive()


def test_a_peer_that_forges_everything_does_no_harm():
    """Random words, bytes and bells while frames are sent and received: frames within the limit, or our error."""
    random = np.random.default_rng(0)
    lost = 0
    for _ in range(FUZZ // 10):
        with stranger_and_connection(frame_limit=5000, queue_bytes=10_000) as (stranger, connection):
            stranger.data[:] = random.integers(0, 256, RING) * (random.random() < 0.5)
            places = [(stranger.words, ring.TAIL), (stranger.words, ring.WRITER_AWAITS), (stranger.back, ring.HEAD),
                      (stranger.back, ring.READER_AWAITS)]  # fmt: skip
            try:
                for _ in range(20):
                    words, place = places[random.integers(4)]
                    step = random.integers(0, 3000)
                    words[place] = random.integers(-(2**63), 2**63) if random.random() < 0.02 else words[place] + step
                    if random.random() < 0.1:
                        stranger.socket.send(b"\x01")
                    connection.send(bytes(int(random.integers(0, 6000))))
                    connection.flush()
                    for _ in range(RING):  # no more frames are in a ring
                        if (frame := connection.receive()) is None:
                            break
                        assert frame.size <= 5000
            except ConnectionLostError:
                lost += 1
    assert 0 < lost < FUZZ // 10
