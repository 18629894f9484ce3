"""A node other than 0 comes to the rendezvous, and waits there for the roster (`nbps.transport.mesh.rendezvous`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nbps.errors import ConnectionLostError, NodeError, TransportError
from nbps.transport.interface import Connection, Listener, Options, Transport
from nbps.transport.mesh.calling import LONGEST_ATTEMPT_S, Caller, pauses
from nbps.transport.mesh.notes import check_fields, printable, read_note, write_note
from nbps.transport.mesh.place import Place
from nbps.transport.mesh.rendezvous import ROSTER_LIMIT, Member, listed, read_roster


class Visitor:
    """The node at `place` on its way into the job.

    Attributes
    ----------
    listener : Listener or None
        Where it accepts nodes of higher ranks; made when the rendezvous was reached. The caller's to close.
    """

    def __init__(
        self, place: Place, card: dict[str, Any], caller: Caller, transport: Transport, options: Options
    ) -> None:
        self.listener: Listener | None = None
        self._place = place
        self._card = card
        self._caller = caller
        self._transport = transport
        self._options = options
        self._missing: list[int] | None = None  # as node 0 said last; None while there is no connection to it

    def join(self, until: float, obituary: Callable[[], str | None]) -> tuple[list[Member], Connection]:
        """Return who the nodes are, and the connection to node 0, as soon as all are there.

        Parameters
        ----------
        until : float
            On the monotonic clock.
        obituary : callable
            Says which nodes will not come any more; None as long as all may.

        Raises
        ------
        NodeError
            If nodes are missing at `until`, node 0 says why the job cannot start, or one will not come any more.
        TransportError
            If node 0 cannot be reached, or refuses this node.
        """
        place = self._place
        last = "no attempt was made"
        pause_s = pauses()
        while (left := until - time.monotonic()) > 0:
            try:
                connection = self._caller.connect(0, place.rendezvous, None, min(left, LONGEST_ATTEMPT_S), join=True)
                try:
                    members = self._wait_for_roster(connection, until)
                except BaseException:
                    connection.close()
                    raise
                if members is not None:
                    return members, connection
                connection.close()
            except ConnectionLostError as error:
                last = str(error)
                self._missing = None
                if (why := obituary()) is not None:
                    raise NodeError(why) from error
                self._caller.rest(min(next(pause_s), until - time.monotonic()))
        waited = f"waited {place.start_timeout_s:g} s"
        if self._missing is not None:
            raise NodeError(f"node {place.rank} {waited} at {place.rendezvous}: {listed(self._missing)} did not come")
        raise TransportError(
            f"node {place.rank} {waited} for node 0 at {place.rendezvous}: {last.rstrip('?')}; does node 0 run, "
            f"and is NBPS_RENDEZVOUS the same on all nodes?"
        )

    def _wait_for_roster(self, connection: Connection, until: float) -> list[Member] | None:
        """Introduce this node; return what the roster says, None if it has not come until then."""
        place = self._place
        connection.frame_limit = ROSTER_LIMIT
        if self.listener is None:
            node = f"{place.rank}-{place.incarnation:016x}"
            own_address = self._transport.own_address(place.rendezvous, place.bind, node, connection)
            self.listener = self._transport.listen(own_address, self._options)
        address = self._transport.told_address(self.listener.address, connection)
        own = Member(place.rank, address, place.incarnation, self._card)
        connection.send(write_note({"address": own.address, "card": own.card}))
        while (frame := self._caller.receive(connection, until)) is not None:
            note = read_note(frame)
            if "waiting" in note:
                check_fields(note, {"waiting": list})
                self._missing = [rank for rank in note["waiting"] if rank != place.rank]
            elif "failed" in note:
                check_fields(note, {"failed": str})
                raise NodeError(printable(note["failed"]))
            else:
                check_fields(note, {"roster": list})
                return read_roster(note["roster"], own)
        return None
