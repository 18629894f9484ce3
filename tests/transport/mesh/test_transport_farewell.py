"""What is left of a node tells the others that it is gone, and nobody else can say so."""

from __future__ import annotations

import select
import threading
from dataclasses import replace

import pytest

from nbps.transport.mesh.farewell import say_farewell
from support.meeting import close_links, links, opened, places

SECRET = b"the secret of the job"


def tell(place, members, meshes, reason):
    """Have `place` say farewell while the meshes of the others are polled, which make no connection of it."""
    arguments = (place, [member.address for member in members], reason)
    thread = threading.Thread(target=say_farewell, args=arguments)
    thread.start()
    while thread.is_alive():
        select.select(meshes, [], [], 0.01)
        assert [mesh.poll() for mesh in meshes] == [[]] * len(meshes)
    thread.join()


@pytest.mark.parametrize("rank", range(3))
def test_all_others_are_told_and_why(rank):
    """Also those of higher ranks, to which no node connects otherwise."""
    where = places(3, secret=SECRET)
    with opened(where) as results:
        mine = links(results)
        others = [results[other].mesh for other in range(3) if other != rank]
        tell(where[rank], results[rank].members, others, "its agent was killed\n" + "x" * 5000)
        for mesh in others:
            assert mesh.gone() == {rank: f"its agent was killed {'x' * 979}"}
        assert results[rank].mesh.gone() == {}
        close_links(mine)


@pytest.mark.parametrize(
    ("change", "why"), [({"secret": b"another"}, "secrets differ"), ({"incarnation": 5}, "restarted")]
)
def test_whoever_is_not_the_node_cannot_say_so(change, why, caplog):
    """It is refused as any stranger, and no node is gone."""
    where = places(2, secret=SECRET)
    with opened(where) as results:
        mine = links(results)
        tell(replace(where[1], **change), results[1].members, [results[0].mesh], "gone")
        assert why in caplog.text
        assert results[0].mesh.gone() == {}
        close_links(mine)


def test_a_node_that_cannot_be_told_holds_nobody_up(caplog):
    """One has ended: the other is told all the same, and a warning says which one was not."""
    where = places(3, secret=SECRET)
    with opened(where) as results:
        close_links(links(results))
        results[2].mesh.close()
        tell(where[0], results[0].members, [results[1].mesh], "gone")
        assert results[1].mesh.gone() == {0: "gone"}
        assert "node 0 cannot tell node 2 that it is gone" in caplog.text
