"""Two ends of a real connection, and handshakes between them; whole meshes in threads."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nbps.transport import Connection, Options, get_transport
from nbps.transport.mesh.handshake import Connecting, Handshake, Hello
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.mesh.place import Place
from nbps.transport.mesh.rendezvous import Member

PATIENCE_S = 30


def hello(rank: int, **other: Any) -> Hello:
    """Node `rank` of three in the job of the tests."""
    return Hello(**({"version": "1.0", "job": "job", "nodes": 3, "rank": rank, "incarnation": 1000 + rank} | other))


@contextlib.contextmanager
def pair() -> Iterator[tuple[Connection, Connection]]:
    """Who connected, and who accepted."""
    tcp = get_transport("tcp")
    listener = tcp.listen("127.0.0.1:0", Options())
    connected = tcp.connect(listener.address, Options(), PATIENCE_S)
    assert select.select([listener], [], [], PATIENCE_S)[0]
    accepted = listener.accept()
    listener.close()
    assert accepted is not None
    try:
        yield connected, accepted
    finally:
        connected.close()
        accepted.close()


def receive(connection: Connection) -> bytes:
    """Return the next frame, which is sure to come."""
    while (frame := connection.receive()) is None:
        assert select.select([connection], [], [], PATIENCE_S)[0], "nothing came"
    return frame.tobytes()


def note(connection: Connection) -> dict[str, Any]:
    return json.loads(receive(connection))


def run(handshake: Handshake) -> Exception | None:
    """Drive one end until it is done or fails."""
    try:
        while not handshake.advance():
            assert select.select([handshake.connection], [], [], PATIENCE_S)[0], "nothing came"
    except Exception as error:
        return error
    return None


def meet(*handshakes: Handshake) -> list[Exception | None]:
    """Drive all ends, each in a thread; close those that fail, return how each ended."""
    outcomes: list[Exception | None] = [None] * len(handshakes)

    def drive(place: int) -> None:
        outcomes[place] = run(handshakes[place])
        if outcomes[place] is not None:
            handshakes[place].connection.close()

    threads = [threading.Thread(target=drive, args=(place,)) for place in range(len(handshakes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def come(place, address="127.0.0.1:1"):
    """Join at the rendezvous by hand, as a node that listens at `address`; return the connection."""
    connection = get_transport("tcp").connect(place.rendezvous, Options(), PATIENCE_S)
    assert run(Connecting(connection, place.hello(join=True), place.secret, 0)) is None
    connection.send(json.dumps({"address": address, "card": dict(place.card)}).encode())
    return connection


# ---------------------------------------------------------------------- meshes


def places(nodes: int, **other: Any) -> list[Place]:
    """Places of all nodes of a job on this machine."""
    rendezvous = get_transport(other.get("transport", "tcp")).free_rendezvous(f"meshes-{os.getpid()}")
    common = {"rendezvous": rendezvous, "job": "job", "card": {"version": "1.0"}, "start_timeout_s": PATIENCE_S}
    return [
        Place(**({"rank": rank, "nodes": nodes, "incarnation": 1000 + rank} | common | other)) for rank in range(nodes)
    ]


@dataclass
class Opened:
    """A mesh, and how `open` ended."""

    mesh: Mesh
    members: list[Member] | None = None
    error: Exception | None = None

    def open(self) -> None:
        try:
            self.members = self.mesh.open()
        except Exception as error:
            self.error = error


class Opening:
    """A mesh that opens in a thread of its own."""

    def __init__(self, place: Place, frame_limit: int = 1 << 20) -> None:
        self.opened = Opened(Mesh(place, frame_limit))
        self._thread = threading.Thread(target=self.opened.open)
        self._thread.start()

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> Opened:
        self._thread.join()
        return self.opened


@contextlib.contextmanager
def opened(where: Sequence[Place], frame_limit: int = 1 << 20) -> Iterator[list[Opened]]:
    """Open meshes at all places at once; close them in the end."""
    openings = [Opening(place, frame_limit) for place in where]
    results = [opening.finish() for opening in openings]
    try:
        yield results
    finally:
        for result in results:
            result.mesh.close()


def links(results: Sequence[Opened]) -> list[dict[int, Connection]]:
    """Return the connections of meshes whose nodes all found each other, by rank."""
    assert [result.error for result in results] == [None] * len(results)
    return [dict(result.mesh.poll()) for result in results]


def close_links(all_links: Sequence[dict[int, Connection]]) -> None:
    for mine in all_links:
        for connection in mine.values():
            connection.close()


def await_links(meshes: Sequence[Mesh], wanted: Sequence[set[int]]) -> list[dict[int, Connection]]:
    """Poll all meshes until each has made connections to the wanted ranks; the newest of each counts."""
    found: list[dict[int, Connection]] = [{} for _ in meshes]
    while any(have.keys() != want for have, want in zip(found, wanted, strict=True)):
        assert select.select(meshes, [], [], PATIENCE_S)[0], f"nothing came; so far {found}"
        for have, mesh in zip(found, meshes, strict=True):
            for rank, connection in mesh.poll():
                if rank in have:
                    have[rank].close()
                have[rank] = connection
    return found
