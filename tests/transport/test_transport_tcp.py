"""TCP: addresses, ports, strangers on the line, and the frames of two real sockets."""

from __future__ import annotations

import select

import numpy as np
import pytest
from nbps.transport import Connection, Options, get_transport

from nbps.errors import ConnectionLostError, TransportError


def readable(connection: Connection) -> None:
    assert select.select([connection], [], [], 30)[0]


def receive(connection: Connection) -> np.ndarray:
    while (frame := connection.receive()) is None:
        readable(connection)
    return frame


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_frames_go_both_ways(host):
    """IPv4, IPv6 and names: a frame there and one back."""
    tcp = get_transport("tcp")
    listener = tcp.listen(f"{host}:0", Options())
    first = tcp.connect(listener.address, Options(), 30)
    select.select([listener], [], [], 30)
    second = listener.accept()
    assert first.send(b"ab", b"", np.frombuffer(b"cd", np.uint8))
    assert bytes(receive(second)) == b"abcd"
    assert second.send()
    assert receive(first).nbytes == 0
    first.close()
    with pytest.raises(ConnectionLostError, match="closed"):
        receive(second)
    with pytest.raises(ConnectionLostError, match="closed"):
        second.send(b"x")
    listener.close()
    second.close()


def test_port_in_use_says_what_to_do():
    """A second listener at one address is refused."""
    tcp = get_transport("tcp")
    listener = tcp.listen("127.0.0.1:0", Options())
    with pytest.raises(TransportError, match="in use; choose another"):
        tcp.listen(listener.address, Options())
    listener.close()
