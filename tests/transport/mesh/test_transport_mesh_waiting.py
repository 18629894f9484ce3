"""Nodes that wait for others at the start: how long, and what they are told of those that do not come."""

from __future__ import annotations

import json
import select
import time
from dataclasses import replace

from nbps.transport import Options, get_transport
from nbps.transport.mesh.handshake import Connecting
from nbps.transport.mesh.place import Place
from support.meeting import PATIENCE_S, Opened, Opening, places, run

SECRET = b"the secret of the job"


def hesitant(place: Place, secret: bytes) -> tuple[Opened, Exception | None]:
    """Have a node say hello at once, and the rest when the time of node 0 for the start is over; how both fare."""
    first = Opening(place)
    connection = get_transport("tcp").connect(place.rendezvous, Options(), PATIENCE_S)
    handshake = Connecting(connection, replace(place, rank=1, incarnation=1001).hello(join=True), secret, 0)
    assert select.select([connection], [], [], PATIENCE_S)[0]  # node 0 has answered
    time.sleep(1.25 * place.start_timeout_s)
    error = run(handshake)
    if error is None:
        connection.send(json.dumps({"address": "127.0.0.1:1", "card": dict(place.card)}).encode())
    result = first.finish()
    for _, made in result.mesh.poll() if result.error is None else []:
        made.close()
    connection.close()
    result.mesh.close()
    return result, error


def test_who_has_begun_to_say_who_it_is_is_heard_to_the_end():
    """A slow machine: the time for the start ends in the middle of a handshake. Node 0 says why it came to nothing."""
    place = places(2, secret=SECRET, start_timeout_s=2)[0]
    result, error = hesitant(place, b"wrong")
    assert "the secrets differ" in str(error)
    assert "node 1 did not come" in str(result.error)
    assert "the secrets differ" in str(result.error)
    result, error = hesitant(place, SECRET)
    assert (result.error, error) == (None, None)
    assert [member.rank for member in result.members] == [0, 1]
