"""Frames between two processes through each transport, beside plain sockets: streams one way, and round trips.

Both wait either by sleeping in poll or by spinning on it: on a virtual machine waking a process can take longer than
everything else.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
from measure import Line, in_turn, options, report

from nbps.transport import Connection, Options, Tls, get_transport

_FRAME_LIMIT = 1 << 30
_SOCKET_BYTES = 4 << 20
_SIZES = {"128 KB (1,000 rows of 128 bytes)": 128_000, "1 MB": 1 << 20}
_SHORT = 64


class Sockets:
    """A plain TCP socket that carries messages of one known length."""

    def __init__(self, connected: socket.socket, spinning: bool) -> None:
        self._socket = connected
        self._spinning = spinning
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(not spinning)

    def send(self, data: np.ndarray) -> None:
        """Send all of `data`."""
        if not self._spinning:
            self._socket.sendall(data)
            return
        rest = data.data
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue

    def receive(self, into: np.ndarray) -> None:
        """Fill `into`."""
        rest = into.data
        while rest:
            try:
                rest = rest[self._socket.recv_into(rest) :]
            except BlockingIOError:
                continue

    def finish(self) -> None:
        """Do nothing: all was sent."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Frames:
    """A connection of a transport."""

    def __init__(self, connection: Connection, spinning: bool) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._descriptor = connection.fileno()
        self._poll.register(self._descriptor, select.POLLIN)
        self._writing = False
        self._timeout_ms = 0 if spinning else None

    def _wait(self) -> None:
        if self._writing != self._connection.wants_write:
            self._writing = self._connection.wants_write
            self._poll.modify(self._descriptor, select.POLLIN | (select.POLLOUT if self._writing else 0))
        while not self._poll.poll(self._timeout_ms):
            pass
        if self._writing:
            self._connection.flush()

    def send(self, data: np.ndarray) -> None:
        """Send `data` as a frame."""
        while not self._connection.send(data):
            assert self._connection.receive() is None
            self._wait()

    def receive(self, into: np.ndarray) -> None:
        """Receive a frame as long as `into`, in memory of its own."""
        while (frame := self._connection.receive()) is None:
            self._wait()
        assert frame.size == into.size

    def finish(self) -> None:
        """Wait until everything is on its way."""
        while self._connection.wants_write:
            assert self._connection.receive() is None
            self._wait()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


Link = Sockets | Frames


def connect(kind: str, address: str, spinning: bool, tls: Tls | None) -> Link:
    """Connect to who listens at `address`."""
    if kind == "sockets":
        host, _, port = address.rpartition(":")
        connecting = socket.socket()
        set_buffers(connecting)
        connecting.connect((host, int(port)))
        return Sockets(connecting, spinning)
    return Frames(get_transport(kind).connect(address, settings(tls), 30), spinning)


def settings(tls: Tls | None) -> Options:
    """Return what both ends are told."""
    return Options(frame_limit=_FRAME_LIMIT, queue_bytes=4 << 20, tls=tls)


def set_buffers(unconnected: socket.socket) -> None:
    """Ask for the buffers that the transport asks for."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        unconnected.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)


def serve(pipe: Pipe) -> None:
    """Do in another process what the pipe says: connect, take `count` messages, and answer each or the last."""
    while (task := pipe.recv()) is not None:
        kind, address, spinning, tls, size, count, answers = task
        with closing(connect(kind, address, spinning, tls)) as link:
            message = np.zeros(size, np.uint8)
            for _ in range(count):
                link.receive(message)
                if answers:
                    link.send(message)
            if not answers:
                link.send(message[:1])
            link.finish()
            pipe.recv()


def measure(pipe: Pipe, kind: str, tls: Tls | None, spinning: bool, size: int, count: int, answers: bool) -> float:
    """Return GB/s of a stream, or microseconds of a round trip."""
    with ExitStack() as stack:
        listener: Any
        if kind == "sockets":
            listener = stack.enter_context(socket.socket())
            set_buffers(listener)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        else:
            where = f"bench-{os.getpid()}" if kind == "shm" else "127.0.0.1:0"
            listener = stack.enter_context(closing(get_transport(kind).listen(where, settings(tls))))
            address = listener.address
        warm = max(1, count // 10)
        pipe.send((kind, address, spinning, tls, size, warm + count, answers))
        select.select([listener], [], [])
        link: Link
        if kind == "sockets":
            link = Sockets(listener.accept()[0], spinning)
        else:
            while (connection := listener.accept()) is None:
                select.select([listener], [], [])
            link = Frames(connection, spinning)
        stack.enter_context(closing(link))
        message = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
        answer = message if answers else message[:1].copy()
        start = 0.0
        for n in range(warm + count):
            if n == warm:
                start = time.perf_counter()
            link.send(message)
            if answers:
                link.receive(answer)
        if not answers:
            link.finish()
            link.receive(answer)
        seconds = time.perf_counter() - start
        pipe.send("close")
    return seconds / count * 1e6 if answers else size * count / seconds / 1e9


def make_certificate(folder: Path) -> Tls | None:
    """Return files of a certificate that signs itself; None without the command openssl."""
    if shutil.which("openssl") is None:
        return None
    key, certificate = folder / "node.key", folder / "node.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench"]
    command = ["openssl", "req", "-x509", *kind, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return Tls(certificate, key, certificate)


def main() -> None:
    """Measure, print, write ``transports.json``."""
    given = options(__doc__, repeats=9)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    with tempfile.TemporaryDirectory() as folder:
        tls = make_certificate(Path(folder))
        kinds: dict[str, tuple[str, Tls | None]] = {"plain sockets": ("sockets", None), "tcp": ("tcp", None)}
        if tls is not None:
            kinds["tcp with TLS"] = ("tcp", tls)
        kinds["shm"] = ("shm", None)
        candidates: dict[str, Callable[[], float]] = {}
        for way, spinning in (("sleeping", False), ("spinning", True)):
            for label, size in _SIZES.items():
                count = given.size((512 << 20) // size, 3)
                for name, (kind, files) in kinds.items():
                    work = partial(measure, pipe, kind, files, spinning, size, count, False)
                    candidates[f"{label}, {name}, {way}"] = work
            for name, (kind, files) in kinds.items():
                work = partial(measure, pipe, kind, files, spinning, _SHORT, given.size(5000, 5), True)
                candidates[f"{_SHORT} bytes and back, {name}, {way}"] = work
        samples = in_turn(candidates, given.repeats)
    pipe.send(None)
    process.join()
    lines = []
    for name, values in samples.items():
        unit = "us" if " and back" in name else "GB/s"
        base = samples[name.replace(name.split(", ")[-2], "plain sockets")]
        ratio = float(np.median(values) / np.median(base))
        lines.append(Line(name, unit, values, note="" if values is base else f"{ratio:.2f} of plain sockets"))
    report("transports", "Frames between two processes on one machine", lines, given)


if __name__ == "__main__":
    main()
