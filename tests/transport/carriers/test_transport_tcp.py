"""TCP: addresses and ports, strangers on the line, and how connections end."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import pytest

from nbps.errors import ConnectionLostError, TransportError
from nbps.testing.transport.ends import End, accepted, drive, payload
from nbps.transport import Options, addresses, get_transport

tcp = get_transport("tcp")


@contextlib.contextmanager
def raw(options=None):
    """Give an end of ours and, as who connected to it, a plain socket."""
    with contextlib.closing(tcp.listen("127.0.0.1:0", options or Options())) as listener:
        stranger = socket.create_connection(("127.0.0.1", int(listener.address.rpartition(":")[2])))
        with stranger, contextlib.closing(accepted(listener)) as connection:
            yield End(connection), stranger


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "0.0.0.0", "[::]"])
def test_frames_go_both_ways(host):
    """IPv4, IPv6, names and all addresses of the machine: a frame there and one back."""
    with contextlib.closing(tcp.listen(f"{host}:0", Options())) as listener:
        assert listener.address.startswith(f"{host}:")
        with (
            contextlib.closing(tcp.connect(listener.address, Options(), 30)) as first,
            contextlib.closing(accepted(listener)) as second,
        ):
            ends = End(first, [(b"there",)]), End(second, [(b"back",)])
            drive(*ends, until=lambda: all(end.frames for end in ends))
            assert [end.frames[0].tobytes() for end in ends] == [b"back", b"there"]
            assert re.fullmatch(r"(127\.0\.0\.1|\[::1\]|\[::ffff:127\.0\.0\.1\]):\d+", second.peer)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":5000",
        "5000",
        "::1:5000",
        "[::1]",
        "[1.2.3.4]:5",
        "host:",
        "host:-1",
        "host:x",
        "host:٣",
        "::",
    ],
)
def test_what_is_no_address_is_refused(address):
    """Both by who listens and by who connects, with an example of one."""
    for attempt in (lambda: tcp.listen(address, Options()), lambda: tcp.connect(address, Options(), 0)):
        with pytest.raises(TransportError, match=r"is not an address; expected host:port, as in 10\.0\.0\.1:5000"):
            attempt()


def test_a_port_beyond_the_last_is_refused():
    """65536 is no port."""
    with pytest.raises(TransportError, match="port 65536; expected at most 65535"):
        tcp.listen("127.0.0.1:65536", Options())


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a\0b"])
def test_what_cannot_be_a_host_is_named(host):
    """Names that no resolver takes are no crash."""
    with pytest.raises(TransportError, match="is not known here"):
        tcp.listen(f"{host}:0", Options())
    with pytest.raises(TransportError, match="nobody answers"):
        tcp.connect(f"{host}:5000", Options(), 0)


def test_listening_elsewhere_says_what_to_do():
    """A port in use, and an address of another machine."""
    listener = tcp.listen("127.0.0.1:0", Options())
    with contextlib.closing(listener), pytest.raises(TransportError, match="the port is in use; choose another"):
        tcp.listen(listener.address, Options())
    with pytest.raises(TransportError, match=r"203.0.113.1 is not an address of this machine"):
        tcp.listen("203.0.113.1:0", Options())


def test_nobody_answers_says_how_long_was_tried():
    """A refused connection is tried again; the last error and the seconds are told."""
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options())) as listener:
        address = listener.address
    with pytest.raises(TransportError, match=rf"{address} \(tried for 0\.[1-9] s; last error: Connection refused\)"):
        tcp.connect(address, Options(), 0.15)


def test_a_port_that_nobody_listens_at_does_not_answer_itself():
    """The system may give a connecting socket the very port it connects to: here it has no other."""
    script = (
        "from nbps.transport import Options, get_transport\n"
        "try: get_transport('tcp').connect('127.0.0.1:40000', Options(), 0)\n"
        "except ConnectionError as error: print(error)\n"
    )
    command = (
        "ip link set lo up && echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range"
        f' && exec {sys.executable} -c "$SCRIPT"'
    )
    if os.geteuid() or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("a network of its own needs root, unshare and ip")
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", command],
        env={**os.environ, "SCRIPT": script, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no network namespace can be made here: {done.stderr}")
    assert "nobody answers at 127.0.0.1:40000" in done.stdout, done.stderr


def test_no_descriptors_left_is_an_error_of_ours():
    """Accepting says that the limit of open files is reached, and goes on when there is room."""
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options())) as listener:
        first = tcp.connect(listener.address, Options(), 30)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The limit is on numbers, so the gaps between those in use are filled.
        full = [os.dup(0)]
        highest = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
        while full[-1] < highest:
            full.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (full[-1] + 1, limits[1]))
        try:
            with pytest.raises(TransportError, match=r"Too many open files; raise the limit .*ulimit -n"):
                listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in full:
                os.close(descriptor)
        accepted(listener).close()
        first.close()


# --------------------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "looks like HTTP: b'GET / HTTP/1.1"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "looks like HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "looks like TLS: switch it on at both ends or at none"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "looks like SSH"),
        (b"x", "not a frame of nbps: b'x'"),
        (b"\0" * 100, "not a frame of nbps: b'.x00.x00"),
        (b"nbps\x03\x00", "speaks frame version 3, expected 1: install one nbps on all nodes"),
        (b"nbps\x03\x00" + bytes(100), "speaks frame version 3, expected 1"),
        (b"nbps\x01\x00\x07\x00" + bytes(24), "not a frame of nbps: b'nbps"),
        (b"nbps\x01\x00\x00\x00" + bytes(24), "CRC does not fit"),
    ],
)
def test_a_stranger_is_told_from_a_node(said, found):
    """As soon as enough has come, though the stranger may say no more and wait."""
    with raw() as (end, stranger):
        stranger.sendall(said)
        drive(end, until=lambda: end.lost is not None)
        assert re.search(found, end.lost)
        assert "127.0.0.1:" in end.lost


@pytest.mark.parametrize("beginning", [b"n", b"nbps", b"nbps\x01", b"nbps\x01\x00\x00\x00" + bytes(23), b""])
def test_who_stops_within_a_header_is_no_stranger_yet(beginning):
    """More may come; if the end comes, it is said where."""
    with raw() as (end, stranger):
        stranger.sendall(beginning)
        stranger.shutdown(socket.SHUT_WR)
        drive(end, until=lambda: end.lost is not None)
        assert end.lost.endswith("the other end closed it" + (" within the header of a frame" if beginning else ""))


def test_a_frame_that_ends_early_is_told():
    """With how much of it came."""
    with raw() as (end, stranger):
        with raw() as (other, spy):
            other.outbox.append((payload(1, 50_000),))
            drive(other, until=lambda: other.idle)
            stranger.sendall(spy.recv(10_032, socket.MSG_WAITALL))
        stranger.shutdown(socket.SHUT_WR)
        drive(end, until=lambda: end.lost is not None)
        assert end.lost.endswith("closed it within a frame, after 10,000 of 50,000 bytes")


def test_two_to_the_63_bytes_take_no_memory():
    """A length that is right by its CRC, and absurd, ends the connection before anything is made for it."""
    from nbps.transport.carriers.header import write_header

    header = bytearray(32)
    write_header(memoryview(header), 0, 1 << 63, 0)
    with raw(Options(frame_limit=1 << 40)) as (end, stranger):
        tracemalloc.start()
        try:
            stranger.sendall(header)
            drive(end, until=lambda: end.lost is not None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert "a frame of 9,223,372,036,854,775,808 bytes was announced; at most 1,099,511,627,776" in end.lost
        assert peak < 1 << 20


# --------------------------------------------------------------------------- endings


def test_a_reset_is_told():
    """A peer that resets the connection is gone."""
    with raw() as (end, stranger):
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()
        drive(end, until=lambda: end.lost is not None)
        assert end.lost.endswith("the other end is gone")


def test_a_peer_that_takes_nothing_for_long_ends():
    """After `user_timeout_s` without progress the connection is lost, and the error says so."""
    with raw(Options(user_timeout_s=0.3)) as (end, _):
        while end.connection.send(bytes(1 << 20)):
            pass
        drive(end, until=lambda: end.lost is not None)
        assert "took nothing of what was sent for 0.3 s (user_timeout_s)" in end.lost


def test_a_frame_is_not_held_by_its_connection():
    """When its receiver lets a long frame go, its memory is free again."""
    with (
        contextlib.closing(tcp.listen("127.0.0.1:0", Options())) as listener,
        contextlib.closing(tcp.connect(listener.address, Options(), 30)) as first,
        contextlib.closing(accepted(listener)) as second,
    ):
        second.frame_limit = 1 << 20
        ends = End(first, [(payload(1, 300_000),)]), End(second)
        drive(*ends, until=lambda: bool(ends[1].frames))
        held = weakref.ref(ends[1].frames.pop())
        gc.collect()
        assert held() is None


def test_a_connection_survives_being_pickled_in_its_errors():
    """What it raises crosses process boundaries."""
    import pickle

    with raw() as (end, stranger):
        stranger.close()
        with pytest.raises(ConnectionLostError) as caught:
            drive(end, until=lambda: end.connection.receive() is not None)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_sockets_are_not_inherited_and_set_as_asked():
    """No delay, a user timeout, large buffers where the system allows them; a program that we start gets none."""
    with contextlib.closing(tcp.listen("127.0.0.1:0", Options())) as listener:
        first = tcp.connect(listener.address, Options(user_timeout_s=7), 30)
        second = accepted(listener)
        for connection, timeout in ((first, 7000), (second, 30_000)):
            found = connection._socket
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == timeout
            assert not os.get_inheritable(connection.fileno())
            for option, limit in ((socket.SO_SNDBUF, "wmem_max"), (socket.SO_RCVBUF, "rmem_max")):
                path = Path("/proc/sys/net/core", limit)
                if path.exists() and int(path.read_text()) >= 4 << 20:  # a network namespace may have none
                    assert found.getsockopt(socket.SOL_SOCKET, option) >= 4 << 20
        assert not os.get_inheritable(listener.fileno())
        first.close()
        second.close()


def test_a_port_in_use_is_not_chosen(monkeypatch):
    """Others are tried for a rendezvous; if all are taken, the message says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        used = taken.getsockname()[1]
        monkeypatch.setattr(addresses, "FIRST_PORT", used)
        monkeypatch.setattr(addresses, "PORTS", 1)
        monkeypatch.setattr(addresses, "_PORT_ATTEMPTS", 1)
        with pytest.raises(TransportError, match="no free port"):
            tcp.free_rendezvous("job")
    assert tcp.free_rendezvous("job") == f"127.0.0.1:{used}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Host:5000", "host:05000"),
        ("[::1]:5000", "[0:0:0:0:0:0:0:1]:5000"),
        ("10.0.0.1:5000", "10.0.0.1:5000"),
    ],
)
def test_places_are_the_same_however_they_are_written(one, other):
    """Addresses are compared in one form; names are not looked up."""
    assert tcp.canonical(one) == tcp.canonical(other) is not None
    assert tcp.canonical(one) != tcp.canonical("10.0.0.2:5000")
