"""The chaos proxy does what each of its controls says, shown with plain sockets and its counters."""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import threading
import time

import pytest

from nbps.testing.transport.proxy import ChaosProxy

LIMIT_S = 60
PATIENCE_S = 0.2  # how long silence is listened to; a proxy that is not silent may slip through, never the reverse


class Pair:
    """A client and a server, connected through a proxy."""

    def __init__(self, seed: int = 0, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.server = socket.create_server((host.strip("[]"), 0), family=family)
        self.server.settimeout(LIMIT_S)
        self.proxy = ChaosProxy(f"{host}:{self.server.getsockname()[1]}", seed)
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_) -> None:
        self.proxy.close()
        for each in [self.server, *self.sockets]:
            each.close()

    def client(self) -> socket.socket:
        host, port = self.proxy.address.split(":")
        self.sockets.append(socket.create_connection((host, int(port)), timeout=LIMIT_S))
        return self.sockets[-1]

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = self.client()
        served, _ = self.server.accept()
        served.settimeout(LIMIT_S)
        self.sockets.append(served)
        return client, served


@pytest.fixture
def pair():
    with Pair() as pair:
        yield pair


def receive(source: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes, fewer only at the end of the stream."""
    got = b""
    while len(got) < count and (part := source.recv(count - len(got))):
        got += part
    return got


def rest(source: socket.socket) -> bytes:
    """Whatever comes until the stream ends, well or not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := source.recv(1 << 16):
            got += part
    return got


def silent(source: socket.socket) -> bool:
    """Whether nothing came for a while: neither bytes nor the end."""
    return select.select([source], [], [], PATIENCE_S)[0] == []


def until(condition) -> None:
    while not condition():
        time.sleep(0.001)


def test_bytes_pass_unchanged_both_ways_and_are_counted(pair):
    """Megabytes in both directions at once arrive as sent; the counters say exactly how many went through."""
    client, served = pair.connect()
    up, down = random.Random(1).randbytes(5_000_001), random.Random(2).randbytes(3_000_003)
    got = {}
    work = [
        threading.Thread(target=client.sendall, args=[up]),
        threading.Thread(target=served.sendall, args=[down]),
        threading.Thread(target=lambda: got.update(down=receive(client, len(down)))),
    ]
    for thread in work:
        thread.start()
    got["up"] = receive(served, len(up))
    for thread in work:
        thread.join()
    assert got == {"up": up, "down": down}
    assert (pair.proxy.bytes_up, pair.proxy.bytes_down) == (len(up), len(down))
    assert (pair.proxy.accepted, pair.proxy.open, pair.proxy.flips, pair.proxy.cuts) == (1, 1, 0, 0)


def test_a_target_of_ipv6_or_by_name_is_connected_to():
    """The target's address may be IPv6; the proxy's own is IPv4."""
    with Pair(host="[::1]") as pair:
        client, served = pair.connect()
        client.sendall(b"hello")
        assert receive(served, 5) == b"hello"
        assert served.family == socket.AF_INET6
    with Pair(host="localhost") as pair:
        pair.connect()


def test_an_orderly_end_is_passed_on_one_direction_at_a_time(pair):
    """Who has ended its stream still receives; when both have, the proxy forgets the connection."""
    client, served = pair.connect()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert rest(served) == b"question"
    served.sendall(b"answer")
    served.close()
    assert rest(client) == b"answer"
    until(lambda: pair.proxy.open == 0)


def test_a_reset_is_passed_on_after_what_was_sent_before(pair):
    """A client that aborts resets the server's connection, which got the bytes before."""
    client, served = pair.connect()
    client.sendall(b"last words")
    assert receive(served, 10) == b"last words"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with pytest.raises(ConnectionResetError):
        served.recv(1)


def test_a_target_that_is_not_there_ends_the_connection(pair):
    """The client connects to the proxy and finds its connection ended."""
    pair.server.close()
    with contextlib.suppress(ConnectionResetError):  # its end may come before the call returns
        assert rest(pair.client()) == b""
    until(lambda: (pair.proxy.accepted, pair.proxy.open) == (1, 0))


def test_delay_holds_bytes_back_and_keeps_their_order(pair):
    """Nothing arrives before the delay is over, and jitter swaps nothing."""
    pair.proxy.delay(0.3, which="up")
    client, served = pair.connect()
    begun = time.monotonic()
    client.sendall(b"x")
    assert receive(served, 1) == b"x"
    assert time.monotonic() - begun >= 0.3
    pair.proxy.delay(0.0, jitter_s=0.01)
    for n in range(200):
        client.sendall(n.to_bytes(2))
    assert receive(served, 400) == b"".join(n.to_bytes(2) for n in range(200))


def test_heal_lets_out_what_was_delayed(pair):
    """Bytes delayed for an hour arrive after `heal`, in order."""
    pair.proxy.delay(3600)
    client, served = pair.connect()
    client.sendall(b"before ")
    assert silent(served)
    pair.proxy.heal()
    client.sendall(b"after")
    assert receive(served, 12) == b"before after"


@pytest.mark.parametrize("after", [1, 1000, 1_000_000])
def test_cut_in_the_middle_forwards_exactly_so_many_bytes(pair, after):
    """The server gets `after` bytes more and then the end, the client an end as well; a new connection is served."""
    client, served = pair.connect()
    frame = random.Random(0).randbytes(after + 70_000)
    client.sendall(b"whole")
    assert receive(served, 5) == b"whole"
    pair.proxy.cut(after)
    with contextlib.suppress(ConnectionError):  # the rest of the frame meets a closed connection
        client.sendall(frame)
    assert rest(served) == frame[:after]
    assert rest(client) == b""
    assert (pair.proxy.cuts, pair.proxy.bytes_up, pair.proxy.open) == (1, 5 + after, 0)
    client, served = pair.connect()
    client.sendall(frame)
    assert receive(served, len(frame)) == frame


def test_cut_down_counts_the_bytes_to_the_client(pair):
    """A cut of the other direction leaves this one to pass until then."""
    client, served = pair.connect()
    pair.proxy.cut(3, which="down")
    client.sendall(b"0123456789")
    assert receive(served, 10) == b"0123456789"
    served.sendall(b"0123456789")
    assert rest(client) == b"012"


def test_cut_now_closes_every_connection(pair):
    """All connections have ended when the call returns."""
    pairs = [pair.connect() for _ in range(3)]
    pair.proxy.cut()
    assert (pair.proxy.open, pair.proxy.cuts) == (0, 1)
    assert [rest(each) for both in pairs for each in both] == [b""] * 6


def flipped(seed: int, pieces: int) -> list[tuple[int, int]]:
    """Byte and bit of 20 flips in 100,000 bytes that are sent in so many pieces."""
    sent = bytes(100_000)
    with Pair(seed) as pair:
        client, served = pair.connect()
        pair.proxy.flip(20, within_bytes=5_000)
        for n in range(pieces):
            client.sendall(sent[n * len(sent) // pieces : (n + 1) * len(sent) // pieces])
        got = receive(served, len(sent))
        served.sendall(sent)
        assert receive(client, len(sent)) == sent  # the other direction is left alone
        assert pair.proxy.flips == 20
    return [(n, byte) for n, byte in enumerate(got) if byte]


def test_flips_are_single_bits_and_the_seed_says_where():
    """20 bits are flipped, the same with the same seed however the bytes are cut into pieces, others with another."""
    found = flipped(seed=1, pieces=1)
    assert len(found) == 20
    assert all(byte.bit_count() == 1 for _, byte in found)
    assert all(after - before <= 5_000 for (before, _), (after, _) in zip([(0, 0), *found], found, strict=False))
    assert flipped(seed=1, pieces=37) == found
    assert flipped(seed=2, pieces=1) != found


def test_flips_end_when_told(pair):
    """A count of 0 ends what was planned."""
    pair.proxy.flip(1_000_000, within_bytes=1)
    client, served = pair.connect()
    client.sendall(bytes(10))
    assert all(byte.bit_count() == 1 for byte in receive(served, 10))
    pair.proxy.flip(0)
    client.sendall(bytes(10))
    assert receive(served, 10) == bytes(10)


def test_stall_takes_bytes_and_forwards_nothing_until_healed(pair):
    """A half-open connection: bytes and end are taken, the receiver hears nothing; after healing all comes."""
    client, served = pair.connect()
    pair.proxy.stall()
    client.sendall(bytes(1_000_000))
    client.shutdown(socket.SHUT_WR)
    late = pair.client()  # accepted, and as silent
    late.sendall(b"hello")
    assert silent(served)
    assert (pair.proxy.bytes_up, pair.proxy.open) == (0, 2)
    pair.proxy.heal()
    assert rest(served) == bytes(1_000_000)


def test_stall_of_one_direction_leaves_the_other(pair):
    """Questions do not arrive, answers do; the stall ends by itself."""
    client, served = pair.connect()
    begun = time.monotonic()
    pair.proxy.stall(0.5, which="up")
    client.sendall(b"question")
    served.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    assert receive(served, 8) == b"question"
    assert time.monotonic() - begun >= 0.5


def test_a_stall_holds_a_bounded_number_of_bytes(pair):
    """At some point the sender is held back: the proxy does not grow for ever."""
    client, _ = pair.connect()
    pair.proxy.stall()
    client.setblocking(False)
    piece, taken = bytes(1 << 20), 0
    while select.select([], [client], [], 1.0)[1]:
        taken += client.send(piece)
        assert taken < 256 << 20
    assert taken >= 16 << 20


def test_refuse_accepts_nobody_and_keeps_what_exists(pair):
    """Who connects is refused, until the time is over; the connection from before goes on."""
    client, served = pair.connect()
    pair.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        pair.client()
    client.sendall(b"still here")
    assert receive(served, 10) == b"still here"
    pair.proxy.refuse(0.1)
    until(lambda: accepts(pair))
    assert pair.proxy.accepted == 2
    pair.proxy.refuse()
    pair.proxy.heal()
    assert accepts(pair)


def accepts(pair: Pair) -> bool:
    try:
        pair.connect()
    except ConnectionRefusedError:
        return False
    return True


def test_rate_forwards_no_faster_than_told(pair):
    """So many bytes take at least the time that the rate gives them; without a limit they pass."""
    client, served = pair.connect()
    pair.proxy.rate(1_000_000, which="up")
    begun = time.monotonic()
    client.sendall(bytes(400_000))
    assert receive(served, 400_000) == bytes(400_000)
    assert time.monotonic() - begun >= 0.35
    pair.proxy.rate(math.inf)
    client.sendall(bytes(10_000_000))
    assert len(receive(served, 10_000_000)) == 10_000_000


def test_all_at_once_still_delivers_everything(pair):
    """Delay, jitter, rate and short stalls together change and lose no byte."""
    client, served = pair.connect()
    pair.proxy.delay(0.002, jitter_s=0.005)
    pair.proxy.rate(50_000_000)
    sent = random.Random(3).randbytes(3_000_000)
    sender = threading.Thread(target=client.sendall, args=[sent])
    sender.start()
    got = b""
    for n in range(1, 11):
        pair.proxy.stall(0.005)
        got += receive(served, len(sent) * n // 10 - len(got))
    sender.join()
    assert got == sent


def test_the_proxy_of_an_idle_connection_sleeps(pair):
    """A proxy that waits, also for a stall or a refusal to end, uses no processor time to speak of."""
    pair.connect()
    pair.proxy.stall(3600)
    pair.proxy.refuse(3600)
    client, _ = pair.sockets[:2]
    client.sendall(b"x")
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_wrong_conditions_are_refused_and_harm_nothing(pair):
    """Sizes and rates that cannot be are a ValueError; a closed proxy says that it is closed."""
    for wrong in (
        lambda: pair.proxy.rate(0),
        lambda: pair.proxy.flip(-1),
        lambda: pair.proxy.flip(1, within_bytes=0),
        lambda: pair.proxy.cut(-1),
    ):
        with pytest.raises(ValueError, match="expected"):
            wrong()
    client, served = pair.connect()
    client.sendall(b"x")
    assert receive(served, 1) == b"x"
    pair.proxy.close()
    pair.proxy.close()
    with pytest.raises(ValueError, match="is closed"):
        pair.proxy.cut()
    assert rest(client) == rest(served) == b""
