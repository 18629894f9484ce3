"""Who is not let into a mesh, and that the job does not suffer from them, at its start or while it runs."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace

import pytest

from nbps.errors import ConnectionLostError, NodeError, ProtocolError, TransportError
from nbps.transport import Options, get_transport
from nbps.transport.mesh import rendezvous as rendezvous_module
from nbps.transport.mesh.handshake import Connecting
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
from support.strangers import SECRET, running


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
