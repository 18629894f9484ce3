"""Nodes find each other, and again after a connection broke."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from nbps.errors import ConfigError, ConnectionLostError, NodeError, TransportError
from nbps.transport import Options, get_transport
from nbps.transport.addresses import free_address, is_loopback
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.mesh.place import Place
from nbps.transport.mesh.rendezvous import Member
from support.meeting import (
    Opening,
    await_links,
    close_links,
    come,
    links,
    opened,
    places,
    receive,
)

NODE = """
import json, select, sys
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.mesh.place import Place
from support.meeting import receive
rank, nodes, rendezvous, incarnation = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
mesh = Mesh(Place(rank, nodes, rendezvous, "job", incarnation, b"secret", card={"version": "1"}), 1 << 20)
print("starts", flush=True)
members = mesh.open()
links = dict(mesh.poll())
for peer, link in links.items():
    link.send(f"from {rank}".encode())
said = {peer: receive(link).decode() for peer, link in links.items()}
print(json.dumps([[member.rank for member in members], sorted(said.items())]), flush=True)
sys.stdin.read()
for link in links.values():
    link.close()
mesh.close()
"""


def node_process(rank, nodes, rendezvous, incarnation=7):
    return subprocess.Popen(
        [sys.executable, "-c", NODE, str(rank), str(nodes), rendezvous, str(incarnation)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("transport", "nodes", "secret"),
    [("tcp", 1, b""), ("tcp", 2, b"secret"), ("tcp", 4, b""), ("shm", 4, b"secret"), ("inproc", 4, b"")],
)
def test_every_node_is_connected_to_every_other(transport, nodes, secret):
    """All get the same roster with everybody's card, and each pair has one connection that carries frames."""
    cards = [{"version": "1.0", "workers": rank} for rank in range(nodes)]
    where = places(nodes, secret=secret, transport=transport)
    where = [replace(place, card=cards[place.rank]) for place in where]
    with opened(where) as results:
        mine = links(results)
        for rank, result in enumerate(results):
            assert [(member.rank, member.incarnation) for member in result.members] == [
                (other, 1000 + other) for other in range(nodes)
            ]
            assert [member.card for member in result.members] == cards
            assert result.members == results[0].members
            assert mine[rank].keys() == set(range(nodes)) - {rank}
        for one, other in itertools.permutations(range(nodes), 2):
            mine[one][other].send(f"{one} to {other}".encode())
        for one, other in itertools.permutations(range(nodes), 2):
            assert receive(mine[other][one]) == f"{one} to {other}".encode()
        close_links(mine)


def test_frames_are_as_long_as_the_job_allows():
    """After the handshake the limit is the job's, at both ends; before it is 64 KiB."""
    with opened(places(2), frame_limit=300_000) as results:
        mine = links(results)
        for one, other in ((0, 1), (1, 0)):
            mine[one][other].send(bytes(300_000))
            assert len(receive(mine[other][one])) == 300_000
        mine[0][1].send(bytes(300_001))
        with pytest.raises(ConnectionLostError, match="300,001 bytes was announced"):
            receive(mine[1][0])
        close_links(mine)


@pytest.mark.slow
def test_processes_find_each_other():
    """Four processes, started in any order with a secret, hear from each other."""
    rendezvous = free_address()
    nodes = {rank: node_process(rank, 4, rendezvous) for rank in (2, 1, 3, 0)}
    for rank, node in sorted(nodes.items()):
        assert node.stdout.readline() == "starts\n"
        expected = [[0, 1, 2, 3], [[other, f"from {other}"] for other in range(4) if other != rank]]
        assert json.loads(node.stdout.readline()) == expected
    for node in nodes.values():
        node.communicate("")
        assert node.returncode == 0


@pytest.mark.slow
def test_a_node_killed_while_it_waits_may_start_again(caplog):
    """At the rendezvous a node that is gone leaves its rank free for a new incarnation."""
    caplog.set_level(logging.INFO, "nbps.transport")
    rendezvous = free_address()
    first = Opening(Place(0, 3, rendezvous, "job", 5, b"secret", card={"version": "1"}))

    def wait_for(event):
        while event not in caplog.text:
            assert first.waits
            time.sleep(0.01)

    killed = node_process(1, 3, rendezvous, incarnation=8)
    wait_for("node 1 came to the rendezvous")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_for("node 1 left the rendezvous")
    again = [node_process(rank, 3, rendezvous, incarnation=9) for rank in (1, 2)]
    result = first.finish()
    assert result.error is None
    assert [member.incarnation for member in result.members] == [5, 9, 9]
    mine = links([result])
    for connection in mine[0].values():
        connection.send(b"from 0")
    assert [receive(mine[0][rank]) for rank in (1, 2)] == [b"from 1", b"from 2"]
    for node in again:
        node.communicate("")
        assert node.returncode == 0
    close_links(mine)
    result.mesh.close()


@pytest.mark.parametrize("address", ["localhost", "[::1]"])
def test_names_and_ipv6_are_addresses_too(address):
    """The others listen on the same kind of address as the rendezvous."""
    rendezvous = free_address().replace("127.0.0.1", address)
    with opened(places(3, rendezvous=rendezvous)) as results:
        mine = links(results)
        assert all(is_loopback(result.members[1].address.rpartition(":")[0].strip("[]")) for result in results)
        mine[2][1].send(b"x")
        assert receive(mine[1][2]) == b"x"
        close_links(mine)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "127.0.0.1", "localhost"])
def test_who_listens_on_all_addresses_tells_one_that_can_be_reached(bind):
    """A wildcard is no address to connect to: others are told the one that reaches the rendezvous."""
    where = places(3, secret=b"secret")
    where[1:] = [replace(place, bind=bind) for place in where[1:]]
    with opened(where) as results:
        mine = links(results)
        assert results[2].members[1].address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:", "localhost:"))
        mine[2][1].send(b"x")
        assert receive(mine[1][2]) == b"x"
        close_links(mine)


def test_the_rendezvous_may_listen_elsewhere():
    """Node 0 takes the port of the rendezvous and its own `bind`."""
    where = places(2, secret=b"secret")
    where[0] = replace(where[0], bind="0.0.0.0")
    with opened(where) as results:
        assert results[0].members[0].address.startswith("0.0.0.0:")
        assert results[1].members[0].address == where[1].rendezvous
        close_links(links(results))


# ---------------------------------------------------------------------- jobs one after the other


def test_jobs_of_a_script_follow_each_other_at_one_address(caplog):
    """A node that is ahead waits at the rendezvous of the job before; nobody is let into the wrong one."""
    rendezvous = free_address()
    with opened(places(2, rendezvous=rendezvous, job="script/1")) as results:
        close_links(links(results))
        ahead = Opening(places(2, rendezvous=rendezvous, job="script/2")[1])
        while "not now: node 0 is at job 'script/1', node 1 at job 'script/2'" not in caplog.text:
            assert results[0].mesh.poll() == []
        assert ahead.waits
        results[0].mesh.close()
        behind = Opening(places(2, rendezvous=rendezvous, job="script/2")[0])
        second = [behind.finish(), ahead.finish()]
        close_links(links(second))
        for result in second:
            result.mesh.close()


# ---------------------------------------------------------------------- nodes that do not come


def test_missing_nodes_are_named_on_everybody_who_waits():
    """Who did not come, and how long was waited."""
    where = places(4, start_timeout_s=1.5)
    with opened([where[0], where[2]]) as results:
        for result in results:
            assert type(result.error) is NodeError
            assert "nodes 1, 3 did not come" in str(result.error)
            assert "waited 1.5 s" in str(result.error)


def test_a_node_that_gives_up_first_names_who_is_missing_too():
    """Its own time is over before that of node 0, which says that it came and left."""
    where = places(3, start_timeout_s=3)
    where[1] = replace(where[1], start_timeout_s=1)
    with opened(where[:2]) as results:
        assert type(results[1].error) is NodeError
        assert "node 1 waited 1 s" in str(results[1].error)
        assert "node 2 did not come" in str(results[1].error)
        assert "node 2 did not come, node 1 came and left again" in str(results[0].error)


def test_nobody_at_the_rendezvous():
    """The address, how long was tried, and what to look at."""
    where = places(2, start_timeout_s=0.5)
    with opened(where[1:]) as results:
        assert type(results[0].error) is TransportError
        message = str(results[0].error)
        assert f"for node 0 at {where[1].rendezvous}" in message
        assert "waited 0.5 s" in message
        assert "refused" in message
        assert "NBPS_RENDEZVOUS" in message


def test_the_port_of_the_rendezvous_is_taken():
    """Node 0 says so, and what to do."""
    listener = get_transport("tcp").listen("127.0.0.1:0", Options())
    with opened([replace(places(2)[0], rendezvous=listener.address)]) as results:
        assert type(results[0].error) is TransportError
        assert f"cannot listen at {listener.address}" in str(results[0].error)
        assert "in use" in str(results[0].error)
        assert "NBPS_RENDEZVOUS" in str(results[0].error)
    listener.close()


def test_a_node_that_vanishes_after_the_roster_is_named():
    """Who came to the rendezvous and cannot be reached afterwards: by name, with its address."""
    where = places(3, start_timeout_s=2)
    openings = [Opening(where[0]), Opening(where[2])]
    nobody = free_address()
    connection = come(where[1], nobody)
    results = [opening.finish() for opening in openings]
    assert results[0].error is None
    assert type(results[1].error) is NodeError
    assert f"node 2 has no connection to node 1 ({nobody})" in str(results[1].error)
    assert "nobody answers" in str(results[1].error)
    connection.close()
    for result in results:
        result.mesh.close()


def test_a_node_that_does_not_connect_is_named():
    """The other way round: a higher rank came to the rendezvous and is then not heard of."""
    where = places(3, start_timeout_s=2)
    openings = [Opening(place) for place in where[:2]]
    connection = come(where[2])
    results = [opening.finish() for opening in openings]
    assert results[0].error is None
    assert type(results[1].error) is NodeError
    assert "node 1 has no connection to node 2 (127.0.0.1:1) after 2 s" in str(results[1].error)
    assert "it did not connect to 127.0.0.1:" in str(results[1].error)
    connection.close()
    for result in results:
        result.mesh.close()


# ---------------------------------------------------------------------- nodes that differ


ITEMS = {"name": "items", "rows": 10, "width": 4}
USERS = {"name": "users", "rows": 7, "width": 4}


@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        (
            {"tables": [ITEMS]},
            {"tables": [ITEMS | {"rows": 12}]},
            "node 1 defines table 'items' as rows=12, node 0 as rows=10; all nodes must run the same script",
        ),
        ({"tables": [ITEMS, USERS]}, {"tables": [ITEMS]}, "node 0 defines table 'users' as rows=7 width=4, node 1 has"),
        ({"tables": [ITEMS]}, {"tables": [USERS, ITEMS]}, "node 1 defines table 'users' as rows=7 width=4, node 0 has"),
        ({"tables": [ITEMS, USERS]}, {"tables": [USERS, ITEMS]}, "node 1 defines its tables in the order"),
        ({"consistency": "SSP(2)"}, {"consistency": "ESSP(2)"}, "node 1 has consistency='ESSP(2)', node 0 'SSP(2)'"),
        ({"seed": 1}, {}, "node 1 has seed=None, node 0 1"),
        (
            {"tables": [ITEMS | {"init": "x" * 1000}]},
            {"tables": [ITEMS | {"init": "x" * 1000, "rows": 12}]},
            "node 1 defines table 'items' as rows=12, node 0 as rows=10",
        ),
    ],
)  # fmt: skip
def test_nodes_that_do_not_run_the_same_are_told_both_sides(mine, theirs, message):
    """Both nodes raise the first difference, with what each has; also who agrees with node 0."""
    where = places(3)
    cards = [mine, theirs, mine]
    where = [replace(place, card={"version": "1.0", "workers": 1} | cards[place.rank]) for place in where]
    with opened(where) as results:
        for result in results:
            assert type(result.error) is NodeError
            assert message in str(result.error)
            assert "all nodes must run the same script" in str(result.error)


def test_a_card_that_nobody_could_read_is_refused_here():
    """Not JSON, or too long: at the node that made it."""
    with pytest.raises(ConfigError, match="not JSON"):
        Mesh(replace(places(2)[0], card={"version": {1, 2}}), 1)
    with pytest.raises(ConfigError, match="not JSON"):
        Mesh(replace(places(2)[0], card={"version": float("nan")}), 1)
    with pytest.raises(ConfigError, match="has 2,000,014 bytes"):
        Mesh(replace(places(2)[0], card={"version": "x" * 2_000_000}), 1)


def test_long_cards_arrive():
    """Many tables make more than the 64 KiB that strangers may send."""
    card = {"version": "1.0", "tables": [{"name": f"table {k}", "rows": k, "width": 8} for k in range(10_000)]}
    with opened(places(3, card=card)) as results:
        close_links(links(results))
        assert results[2].members[1] == Member(1, results[2].members[1].address, 1001, card)


@pytest.mark.slow
def test_nodes_with_certificates_find_each_other(certificates):
    """Over TLS: rendezvous, connections, and one that is made again; who has no certificate is not let in."""
    where = [replace(place, tls=certificates(f"node{place.rank}")) for place in places(3, secret=b"secret")]
    with opened(where) as results:
        mine = links(results)
        meshes = [result.mesh for result in results]
        mine[2][1].close()
        mine[1][2].close()
        meshes[2].lost(1)
        made = await_links(meshes, [set(), {2}, {1}])
        made[1][2].send(b"again")
        assert receive(made[2][1]) == b"again"
        close_links([*mine, *made])
    where = places(2, start_timeout_s=3)
    where[0] = replace(where[0], tls=certificates("node0"))
    with opened(where) as results:
        assert [type(result.error) for result in results] == [NodeError, TransportError]
        assert "TLS" in str(results[0].error) + str(results[1].error)
