"""What is left of a node tells the others that it is gone for good.

The process that holds the connections of a node may be killed, and the others see only that these broke: as on a bad
network, whose connections are made again. Whoever is left of the node, and knows its place, says so to each of them, in
a handshake that proves that it may.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nbps.errors import TransportError
from nbps.transport import get_transport
from nbps.transport.interface import Options
from nbps.transport.mesh.calling import Caller
from nbps.transport.mesh.place import Place

_AT_ONCE = 16
_ATTEMPT_S = 3.0  # to connect to one node
_REASON_LIMIT = 1000  # characters

_log = logging.getLogger("nbps.transport")


def say_farewell(place: Place, addresses: Sequence[str], reason: str) -> None:
    """Tell the other nodes, at their `addresses` by rank, that the node at `place` is gone, and why.

    A node that cannot be reached is left to find out by itself.
    """
    with contextlib.closing(Caller(place, get_transport(place.transport), Options(tls=place.tls))) as caller:

        def tell(rank: int) -> None:
            try:
                caller.connect(rank, addresses[rank], None, _ATTEMPT_S, farewell=reason[:_REASON_LIMIT]).close()
            except TransportError as error:
                _log.warning("node %d cannot tell node %d that it is gone: %s", place.rank, rank, error)

        others = [rank for rank in range(place.nodes) if rank != place.rank]
        with ThreadPoolExecutor(min(_AT_ONCE, len(others)), "nbps farewell") as pool:
            list(pool.map(tell, others))
