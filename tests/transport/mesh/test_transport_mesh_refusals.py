"""Who is not let into a mesh, and that the job does not suffer from them, at its start or while it runs."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import struct
import threading
import time
import zlib
from dataclasses import replace

import pytest

from nbps.errors import ConfigError, ConnectionLostError, NodeError, ProtocolError, TransportError
from nbps.transport import Options, get_transport
from nbps.transport.addresses import is_loopback, split_address
from nbps.transport.mesh import calling as calling_module
from nbps.transport.mesh import reception as reception_module
from nbps.transport.mesh import rendezvous as rendezvous_module
from nbps.transport.mesh.handshake import Connecting
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.mesh.rendezvous import Member, read_roster
from support.meeting import (
    PATIENCE_S,
    Opening,
    close_links,
    links,
    opened,
    places,
    receive,
    run,
)

SECRET = b"the secret of the job"


@contextlib.contextmanager
def running(nodes=2, **other):
    """Run a job of some nodes, whose meshes are polled in the background; what each makes goes to a list.

    When the block ends, the nodes show that they still hear each other on the connections of the start.
    """
    where = places(nodes, secret=SECRET, **other)
    with opened(where) as results:
        mine = links(results)
        meshes = [result.mesh for result in results]
        made = [[] for _ in meshes]
        stop = threading.Event()

        def drive():
            while not stop.is_set():
                select.select(meshes, [], [], 0.05)
                for mesh, have in zip(meshes, made, strict=True):
                    have.extend(mesh.poll())

        thread = threading.Thread(target=drive)
        thread.start()
        try:
            yield where, meshes, made
        finally:
            stop.set()
            thread.join()
        for one in range(nodes):
            for other_rank in mine[one]:
                mine[one][other_rank].send(b"unharmed")
        for one in range(nodes):
            for other_rank in mine[one]:
                assert receive(mine[one][other_rank]) == b"unharmed"
        close_links(mine)
        close_links([{0: connection} for have in made for _, connection in have])


def announcement(length):
    """Return the header of a first frame of this length, as `nbps.transport.carriers.header` describes it."""
    fields = struct.pack("<4sHHIQQ", b"nbps", 1, 0, 0, length, 0)
    return fields + struct.pack("<I", zlib.crc32(fields))


def stranger(address):
    """Return a plain socket that is connected there."""
    return socket.create_connection(split_address(address), PATIENCE_S)


def said_to(caller):
    """Return what the other end sends until it closes."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := caller.recv(1 << 16):
            heard += chunk
    caller.close()
    return heard


def impostors(place):
    """Nodes that are refused, each with the reason."""
    return [
        (replace(place, secret=b"wrong"), "the secrets differ"),
        (replace(place, secret=b""), "the secrets differ"),
        (replace(place, job="other"), "node 0 belongs to job 'job', node 1 to job 'other'"),
        (replace(place, card={"version": "2.0"}), "nbps 1.0 .* nbps 2.0"),
        (replace(place, nodes=3), "one of 2 nodes, node 1 as one of 3"),
    ]


IMPOSTORS = ["wrong secret", "no secret", "wrong job", "wrong version", "wrong number of nodes"]


@pytest.mark.parametrize("which", range(5), ids=IMPOSTORS)
def test_impostors_are_refused_at_the_start_and_the_right_node_comes_after(which, caplog):
    """Our error at the offender at once, a log line at node 0, and the job starts when its own node comes."""
    where = places(2, secret=SECRET)
    first = Opening(where[0])
    place, reason = impostors(where[1])[which]
    with opened([place]) as (refused,):
        assert type(refused.error) is TransportError
        with pytest.raises(TransportError, match=f"127.0.0.1.*{reason}"):
            raise refused.error
    while not caplog.records:
        time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == "nbps.transport"]
    assert len(lines) == 1
    with pytest.raises(TransportError, match=f"node 0 refused a connection from 127.0.0.1:.*{reason}"):
        raise TransportError(lines[0])
    second = Opening(where[1]).finish()
    close_links(links([first.finish(), second]))
    first.opened.mesh.close()
    second.mesh.close()


@pytest.mark.parametrize("which", range(5), ids=IMPOSTORS)
def test_impostors_are_refused_while_the_job_runs(which):
    """The same later: the mesh hands out nothing, and the nodes still hear each other."""
    with running() as (where, _, made):
        place, reason = impostors(where[1])[which]
        with opened([place]) as (refused,), pytest.raises(TransportError, match=reason):
            raise refused.error
    assert made == [[], []]


def test_who_was_refused_last_is_part_of_the_reason_why_a_node_is_missing():
    """Node 0 waits in vain for a node with another secret, and says what it saw."""
    where = places(2, secret=SECRET, start_timeout_s=2)
    first = Opening(where[0])
    with opened([replace(where[1], secret=b"wrong")]) as (refused,):
        assert "the secrets differ" in str(refused.error)
    result = first.finish()
    assert type(result.error) is NodeError
    assert "node 1 did not come" in str(result.error)
    assert "the last that was refused there: 127.0.0.1" in str(result.error)
    assert "the secrets differ" in str(result.error)


def test_a_node_that_is_started_twice_is_told_so(caplog):
    """The first one stays; the second ends with an error; the job starts."""
    caplog.set_level(logging.INFO, "nbps.transport")
    where = places(3)
    openings = [Opening(place) for place in where[:2]]
    while "node 1 came to the rendezvous" not in caplog.text:
        assert openings[0].waits
        time.sleep(0.01)
    with opened([replace(where[1], incarnation=5)]) as (twice,):
        assert type(twice.error) is TransportError
        assert "node 1 was started twice: 127.0.0.1" in str(twice.error)
    results = [opening.finish() for opening in [*openings, Opening(where[2])]]
    assert results[0].members[1].incarnation == 1001
    close_links(links(results))
    for result in results:
        result.mesh.close()


def test_a_restarted_node_is_not_taken_back():
    """Neither at the rendezvous nor by another node: it is another incarnation."""
    with running(3) as (where, meshes, made):
        restarted = replace(where[2], incarnation=5)
        reason = "node 2 was restarted; a running job does not take it back"
        with opened([restarted]) as (refused,):
            assert type(refused.error) is TransportError
            assert reason in str(refused.error)
        members = meshes[0]._members
        for rank in (0, 1):
            connection = get_transport("tcp").connect(members[rank].address, Options(), PATIENCE_S)
            handshake = Connecting(connection, restarted.hello(), SECRET, rank, members[rank].incarnation)
            assert reason in str(run(handshake))
            connection.close()
    assert made == [[], [], []]


def test_a_restarted_node_0_does_not_know_the_job(caplog):
    """Nodes that lost it find another incarnation at its address: they say so, and go on trying."""
    where = places(2)
    with opened(where) as results:
        close_links(links(results))
        results[0].mesh.close()
        new = Opening(replace(where[0], incarnation=5))
        results[1].mesh.lost(0)
        while "node 1 cannot connect to node 0" not in caplog.text or "was restarted" not in caplog.text:
            assert results[1].mesh.poll() == []
        with opened([replace(where[1], incarnation=6)]) as (second,):
            both = [new.finish(), second]
            close_links(links(both))
            new.opened.mesh.close()


def test_a_node_that_goes_to_another_than_node_0_is_told_so():
    """A wrong rendezvous that is a node of this very job."""
    with running(3) as (where, meshes, _):
        wrong = replace(where[2], rendezvous=meshes[0]._members[1].address)
        with opened([wrong]) as (refused,):
            assert type(refused.error) is TransportError
            assert "node 1 answers there, expected node 0" in str(refused.error)
        connection = get_transport("tcp").connect(wrong.rendezvous, Options(), PATIENCE_S)
        assert "not at the rendezvous" in str(run(Connecting(connection, where[2].hello(join=True), SECRET, 1)))
        connection.close()


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": bytes(range(256)) * 10,
    "a frame of 2**63 bytes": announcement(2**63),
    "a frame of 64 KiB and one": announcement((1 << 16) + 1),
}


@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers_are_turned_away(said, caplog):
    """What is no frame ends that connection with a log line, at every node, and harms nothing."""
    caplog.set_level(logging.WARNING, "nbps.transport")
    with running() as (_, meshes, made):
        for member in meshes[0]._members:
            caller = stranger(member.address)
            caller.sendall(said)
            assert said_to(caller) == b""
    assert made == [[], []]
    for rank in (0, 1):
        assert f"node {rank} refused a connection from 127.0.0.1:" in caplog.text


def test_a_job_starts_among_strangers():
    """HTTP, garbage, long frames and silence at the rendezvous while the nodes come."""
    where = places(3, secret=SECRET)
    first = Opening(where[0])
    callers = []
    while not callers:
        with contextlib.suppress(ConnectionRefusedError):
            callers.append(stranger(where[0].rendezvous))
    for said in STRANGERS.values():
        callers.append(stranger(where[0].rendezvous))
        callers[-1].sendall(said)
    results = [opening.finish() for opening in [first, Opening(where[1]), Opening(where[2])]]
    close_links(links(results))
    for result in results:
        result.mesh.close()
    for caller in callers:
        caller.close()


def test_silent_and_slow_clients_are_dropped_at_the_deadline(monkeypatch, caplog):
    """Who says nothing, and who says a little for ever, has the same time as everybody."""
    monkeypatch.setattr(reception_module, "DEADLINE_S", 0.5)
    with running() as (where, meshes, _):
        silent, slow = stranger(where[0].rendezvous), stranger(where[0].rendezvous)
        header = announcement(60_000)
        ended = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                for byte in header + bytes(60_000):
                    slow.send(bytes([byte]))
                    if ended.wait(0.02):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert said_to(silent) == b""
            assert said_to(slow) == b""
        finally:
            ended.set()
            thread.join()
        while meshes[0]._reception._guests:
            time.sleep(0.01)
    assert caplog.text.count("nothing proved within 0.5 s") == 2


def test_two_hundred_strangers_do_not_keep_a_node_out(monkeypatch):
    """Silent connections are bounded, the oldest make room, and a node gets back in while all of them wait."""
    monkeypatch.setattr(reception_module, "DEADLINE_S", 1000)
    with running() as (where, meshes, made):
        callers = [stranger(where[0].rendezvous) for _ in range(200)]
        meshes[1].lost(0)
        while not made[0] or not made[1]:
            assert len(meshes[0]._reception._guests) <= reception_module.GUESTS
        for caller in callers:
            caller.close()


def test_a_stream_of_strangers_does_not_keep_a_job_from_starting():
    """The same at the rendezvous, while they keep coming."""
    where = places(3, secret=SECRET)
    first = Opening(where[0])
    ended = threading.Event()

    def crowd():
        callers = []
        while not ended.is_set():
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                callers.append(stranger(where[0].rendezvous))
            if len(callers) > 200:
                callers.pop(0).close()
        for caller in callers:
            caller.close()

    thread = threading.Thread(target=crowd)
    thread.start()
    try:
        results = [opening.finish() for opening in [first, Opening(where[1]), Opening(where[2])]]
        mine = links(results)
    finally:
        ended.set()
        while thread.is_alive():  # the last of them waits to be accepted
            if first.opened.error is None:
                first.opened.mesh.poll()
            thread.join(0.01)
    close_links(mine)
    for result in results:
        result.mesh.close()


def test_strangers_do_not_fill_the_log(caplog):
    """After a hundred refusals only each hundredth is logged, and that is said."""
    with running() as (where, meshes, _):
        for _ in range(350):
            caller = stranger(where[0].rendezvous)
            caller.sendall(STRANGERS["garbage"])
            said_to(caller)
        while meshes[0]._reception._guests:
            time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == "nbps.transport"]
    assert len(lines) == 100 + 1 + 2
    assert lines[100] == "node 0 goes on to log each 100th refusal only"


NO_CARDS = {
    "no JSON": b"card",
    "no card": b'{"address": "127.0.0.1:1"}',
    "card as list": b'{"address": "127.0.0.1:1", "card": []}',
    "long address": json.dumps({"address": "x" * 1001, "card": {}}).encode(),
    "unprintable address": b'{"address": "\\n", "card": {}}',
    "longer than a card may be": b" " * ((1 << 20) + 1),
    "nothing": None,
}


@pytest.mark.parametrize("said", NO_CARDS.values(), ids=NO_CARDS.keys())
def test_who_hands_in_no_card_leaves_the_rendezvous(said, monkeypatch, caplog):
    """A node that proved itself and then breaks the rules, or falls silent, makes room for one that does not."""
    if said is None:
        monkeypatch.setattr(rendezvous_module, "DEADLINE_S", 0.2)
    where = places(2, secret=SECRET)
    first = Opening(where[0])
    connection = get_transport("tcp").connect(where[0].rendezvous, Options(), PATIENCE_S)
    broken = replace(where[1], incarnation=5).hello(join=True)
    assert run(Connecting(connection, broken, SECRET, 0)) is None
    if said is not None:
        connection.send(said)
    with pytest.raises(ConnectionLostError):
        receive(connection)
    connection.close()
    while "node 1 left the rendezvous" not in caplog.text:
        time.sleep(0.01)
    results = [opening.finish() for opening in [first, Opening(where[1])]]
    close_links(links(results))
    for result in results:
        result.mesh.close()


ROSTER = [{"rank": rank, "address": "a", "incarnation": 7, "card": {}} for rank in range(2)]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "does not have node 1"),
        (ROSTER[:1], "does not have node 1"),
        ([ROSTER[0], ROSTER[1] | {"incarnation": 8}], "does not have node 1"),
        ([ROSTER[1], ROSTER[0]], "node 1 at place 0"),
        ([1, 2], "not a member"),
        ([ROSTER[0], {"rank": 1}], "expected a note with"),
        ([ROSTER[0], ROSTER[1] | {"card": []}], "expected 'card' as dict"),
    ],
)
def test_a_roster_is_checked(entries, message):
    """A node finds itself at its place, as it said it is."""
    own = Member(**ROSTER[1])
    assert read_roster(ROSTER, own) == [Member(**entry) for entry in ROSTER]
    with pytest.raises(ProtocolError, match=message):
        read_roster(entries, own)


def test_a_silent_server_at_the_rendezvous(monkeypatch):
    """Something else listens there and says nothing: an error that says so, after the time for the start."""
    monkeypatch.setattr(calling_module, "DEADLINE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with opened([replace(places(2, start_timeout_s=0.5)[1], rendezvous=address)]) as (result,):
            assert type(result.error) is TransportError
            assert f"{address} took the connection, but said nothing for 0.3 s" in str(result.error)


def test_a_web_server_at_the_rendezvous():
    """What answers is quoted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        opening = Opening(replace(places(2, start_timeout_s=2)[1], rendezvous=address))
        server.settimeout(0.1)
        while opening.waits:
            with contextlib.suppress(TimeoutError):
                accepted, _ = server.accept()
                with contextlib.suppress(OSError):
                    accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                accepted.close()
        result = opening.finish()
        assert type(result.error) is TransportError
        assert address in str(result.error)


def test_no_descriptors_left_is_no_end_of_the_job(caplog):
    """When the system can give no socket, accepting pauses, says so, and goes on."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running() as (where, meshes, made):
        callers = [socket.socket() for _ in range(3)]
        lowest_free = max(caller.fileno() for caller in callers) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            callers[0].connect(split_address(where[0].rendezvous))
            while "trying again" not in caplog.text:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        meshes[1].lost(0)
        while not made[0] or not made[1]:
            time.sleep(0.01)
        for caller in callers:
            caller.close()


# ---------------------------------------------------------------------- before anything is opened


@pytest.mark.parametrize("change", [{"rendezvous": "0.0.0.0:5000"}, {"rendezvous": "10.0.0.1:5000"}, {"bind": "::"}])
def test_open_addresses_need_a_secret(change):
    """Other machines could connect: refused, with what to do, unless there is a secret or the user insists."""
    place = replace(places(2)[1], **change)
    with pytest.raises(ConfigError, match="NBPS_SECRET"):
        Mesh(place, 1)
    for allowed in (replace(place, secret=SECRET), replace(place, insecure=True)):
        Mesh(allowed, 1).close()


def test_an_unknown_host_counts_as_open():
    """A name that does not resolve may resolve later, to anything."""
    with pytest.raises(ConfigError, match=r"would use nowhere\.invalid"):
        Mesh(replace(places(2)[1], rendezvous="nowhere.invalid:5000"), 1)


def test_a_loopback_bind_and_a_remote_rendezvous_do_not_go_together():
    """Nobody could connect to this node."""
    with pytest.raises(ConfigError, match="leave bind empty"):
        Mesh(replace(places(2)[1], rendezvous="10.0.0.1:5000", bind="127.0.0.1", secret=SECRET), 1)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
        ("10.0.0.1", False), ("8.8.8.8", False), ("fe80::1", False), ("nowhere.invalid", False),
    ],
)  # fmt: skip
def test_which_hosts_are_this_machine_only(host, loopback):
    """Addresses and names; what is not known is taken for open."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 2}, "rank=2, nodes=2"),
        ({"rank": -1}, "rank=-1"),
        ({"nodes": 0, "rank": 0}, "nodes=0"),
        ({"job": ""}, "job=''"),
        ({"job": "a\nb"}, "printable"),
        ({"job": "x" * 201}, "1 to 200"),
        ({"incarnation": 2**64}, "incarnation"),
        ({"incarnation": -1}, "incarnation"),
        ({"start_timeout_s": 0}, "start_timeout_s=0"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s=nan"),
    ],
)
def test_places_are_checked(change, message):
    """Each field alone, with what was found."""
    with pytest.raises(ConfigError, match=message):
        replace(places(2)[1], **change)


@pytest.mark.parametrize("rendezvous", ["", "here", "localhost", "localhost:x", "::1:5000", "host:70000"])
def test_a_rendezvous_is_an_address(rendezvous):
    """Named as what it is, with the variable that sets it."""
    with pytest.raises(ConfigError, match="NBPS_RENDEZVOUS"):
        Mesh(replace(places(2)[1], rendezvous=rendezvous), 1)


def test_a_place_does_not_print_its_secret():
    """Nor does an error or a log line that shows a place."""
    assert "the secret" not in repr(replace(places(2)[1], secret=SECRET))
