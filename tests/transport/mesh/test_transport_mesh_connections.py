"""Connections between nodes that break, and nodes that find each other again."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest

from nbps.testing.transport.proxy import ChaosProxy
from nbps.transport import Connection
from support.meeting import (
    Opening,
    await_links,
    close_links,
    come,
    links,
    note,
    opened,
    places,
    receive,
)


@pytest.mark.parametrize("breaks", [0, 1])
def test_a_broken_connection_is_made_again(breaks):
    """Whoever's end breaks, both get a new one, many times; what was on its way is lost, and nothing else."""
    with opened(places(3)) as results:
        meshes = [result.mesh for result in results]
        mine = links(results)
        for attempt in range(4):
            mine[2 - breaks][1 + breaks].send(b"may be lost")
            mine[1 + breaks][2 - breaks].close()
            mine[2 - breaks][1 + breaks].close()
            meshes[1].lost(2)
            meshes[2].lost(1)
            meshes[2].lost(1)  # saying it twice makes one connection
            _, mine[1][2], mine[2][1] = (
                have.get(rank) for have, rank in zip(await_links(meshes, [set(), {2}, {1}]), (0, 2, 1), strict=True)
            )
            for one, other in itertools.permutations(range(3), 2):
                mine[one][other].send(f"{attempt}: {one} to {other}".encode())
            for one, other in itertools.permutations(range(3), 2):
                assert receive(mine[other][one]) == f"{attempt}: {one} to {other}".encode()
        close_links(mine)


def test_only_who_connects_knows_that_it_broke():
    """A new connection comes to a node that believes in the old one; the newer counts."""
    with opened(places(2)) as results:
        meshes = [result.mesh for result in results]
        mine = links(results)
        meshes[1].lost(0)  # though it stands
        (new_at_0, new_at_1) = await_links(meshes, [{1}, {0}])
        new_at_1[0].send(b"on the new one")
        assert receive(new_at_0[1]) == b"on the new one"
        close_links([*mine, new_at_0, new_at_1])


def test_a_node_out_of_reach_is_tried_until_it_is_back():
    """Attempts go on while nobody answers, and succeed when the network heals; until then a thread does it."""
    where = places(2)
    with ChaosProxy(where[0].rendezvous) as proxy:
        where[1] = replace(where[1], rendezvous=proxy.address)
        with opened(where) as results:
            meshes = [result.mesh for result in results]
            close_links(links(results))
            proxy.refuse()
            meshes[1].lost(0)
            assert any(thread.name == "nbps connects to node 0" for thread in threading.enumerate())
            assert meshes[1].poll() == []
            proxy.heal()
            close_links(await_links(meshes, [{1}, {0}]))
            proxy.cut()
        assert not any(thread.name == "nbps connects to node 0" for thread in threading.enumerate())


def test_a_mesh_ends_while_it_connects():
    """Closing stops the attempts; nothing stays behind (the fixture looks)."""
    where = places(2)
    with opened(where) as results:
        close_links(links(results))
        results[0].mesh.close()
        results[1].mesh.lost(0)
        results[1].mesh.close()
        results[1].mesh.close()


def test_closing_drops_connections_that_nobody_took():
    """A mesh that was opened and never polled leaves nothing."""
    with opened(places(3)) as results:
        assert [result.error for result in results] == [None] * 3


def test_a_node_that_did_not_get_the_roster_comes_again_for_it():
    """The last step of the rendezvous may get lost: the same node is then sent the roster again."""
    where = places(2)
    first = Opening(where[0])
    lost = come(where[1])
    assert note(lost) == {"waiting": []}
    roster = note(lost)["roster"]
    assert [entry["rank"] for entry in roster] == [0, 1]
    result = first.finish()
    (older,) = links([result])
    second: list[Connection] = []
    thread = threading.Thread(target=lambda: second.append(come(where[1])))
    thread.start()
    (newer,) = await_links([result.mesh], [{1}])
    thread.join()
    assert note(second[0])["roster"] == roster
    newer[1].send(b"on the second")
    assert receive(second[0]) == b"on the second"
    close_links([older, newer, {1: lost}, {1: second[0]}])
    result.mesh.close()
