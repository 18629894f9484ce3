"""The rendezvous at node 0: every node comes, hands in its address and card, and waits for the roster of all.

What is said after the handshake, in notes (`nbps.transport.mesh.notes`)::

    node                                              node 0
      {"address", "card"}  ->
                       <-  {"waiting": [ranks]}       whenever somebody comes or goes, until all are here
                       <-  {"roster": [...]}          or {"failed": reason}

The connection on which the roster went is then the one between the two nodes. A node whose connection breaks before it
has the roster comes again and gets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from selectors import EVENT_READ, BaseSelector
from typing import Any

from nbps.errors import ConfigError, ConnectionLostError, ProtocolError
from nbps.transport.interface import Connection
from nbps.transport.mesh.cards import first_difference
from nbps.transport.mesh.handshake import DEADLINE_S, Hello, Refusal
from nbps.transport.mesh.notes import check_fields, read_note, write_note

CARD_LIMIT = 1 << 20  # bytes of a node's address and card
ROSTER_LIMIT = 1 << 26
ADDRESS_LIMIT = 1000  # characters

_log = logging.getLogger("nbps.transport")


@dataclass(frozen=True)
class Member:
    """One of the nodes of a job; `address` is where higher ranks connect to it."""

    rank: int
    address: str
    incarnation: int
    card: dict[str, Any]


class _Seat:
    def __init__(self, hello: Hello, connection: Connection, deadline: float) -> None:
        self.hello = hello
        self.connection = connection
        self.descriptor = connection.fileno()
        self.deadline = deadline  # for the card
        self.member: Member | None = None


class Rendezvous:
    """Node 0's side; `own` is that node.

    Attributes
    ----------
    gone : set of int
        Ranks that were here and left.

    Parameters
    ----------
    made : callable
        Takes over rank and connection of a node that has been sent the roster.
    """

    def __init__(
        self, own: Member, nodes: int, selector: BaseSelector, made: Callable[[int, Connection], None]
    ) -> None:
        self._own = own
        self._nodes = nodes
        self._selector = selector
        self._made = made
        self._seats: dict[int, _Seat] = {}
        self._members: dict[int, Member] = {own.rank: own}  # of the roster
        self._roster: bytes | None = None
        self._failed: str | None = None
        self.gone: set[int] = set()

    def missing(self) -> list[int]:
        """Return the ranks that are not here."""
        here = {rank for rank, seat in self._seats.items() if seat.member is not None}
        return [rank for rank in range(self._nodes) if rank != self._own.rank and rank not in here]

    def admit(self, hello: Hello) -> Refusal | None:
        """Say why a node that proved who it is may not sit down; None if it may."""
        rank = hello.rank
        if self._failed is not None:
            return Refusal(self._failed)
        if self._roster is not None:
            if hello.incarnation == self._members[rank].incarnation:
                return None
            return Refusal(f"node {rank} was restarted; a running job does not take it back")
        seat = self._seats.get(rank)
        if seat is None or seat.hello.incarnation == hello.incarnation:
            return None
        return Refusal(f"node {rank} was started twice: {seat.connection.peer} is here as node {rank} already")

    def take(self, hello: Hello, connection: Connection) -> None:
        """Have a node sit down; its card is to come."""
        older = self._seats.get(hello.rank)
        if older is not None:
            self._leave(older)
        connection.frame_limit = CARD_LIMIT
        seat = _Seat(hello, connection, time.monotonic() + DEADLINE_S)
        self._seats[hello.rank] = seat
        self._selector.register(seat.descriptor, EVENT_READ, partial(self._serve, seat))
        self._serve(seat)

    def expire(self, now: float) -> None:
        """Dismiss nodes that have not handed in their cards in time."""
        for seat in [seat for seat in self._seats.values() if seat.member is None and now >= seat.deadline]:
            self._dismiss(seat, f"no card within {DEADLINE_S:g} s")

    def objection(self) -> str | None:
        """Say why the nodes, which are all here, cannot work together."""
        for rank in sorted(self._seats):
            member = self._seats[rank].member
            assert member is not None
            self._members[rank] = member
            difference = first_difference(rank, member.card, self._own.rank, self._own.card)
            if difference is not None:
                return difference
        roster = write_note({"roster": [asdict(self._members[rank]) for rank in range(self._nodes)]})
        if len(roster) > ROSTER_LIMIT:
            return f"the cards of all nodes have {len(roster):,} bytes; expected at most {ROSTER_LIMIT:,}"
        return None

    def finish(self) -> list[Member]:
        """Send everybody the roster; return it."""
        members = [self._members[rank] for rank in range(self._nodes)]
        self._roster = write_note({"roster": [asdict(member) for member in members]})
        for seat in list(self._seats.values()):
            self._hand_over(seat)
        return members

    def fail(self, reason: str) -> None:
        """Tell everybody who is here, or comes later, why the job cannot start; they leave when they have read it."""
        self._failed = reason
        for seat in list(self._seats.values()):
            self._send(seat, {"failed": reason})

    @property
    def awaits_cards(self) -> bool:
        """Whether nodes are here that have not handed in their cards; they are dismissed if they do not."""
        return any(seat.member is None for seat in self._seats.values())

    @property
    def empty(self) -> bool:
        """Whether nobody is here."""
        return not self._seats

    def close(self) -> None:
        """Send everybody away."""
        for seat in list(self._seats.values()):
            self._leave(seat)

    def _serve(self, seat: _Seat, _events: int = EVENT_READ) -> None:
        try:
            while self._seats.get(seat.hello.rank) is seat and (frame := seat.connection.receive()) is not None:
                if seat.member is not None:
                    raise ProtocolError("a second card")
                seat.member = _read_member(frame.tobytes(), seat.hello)
                self.gone.discard(seat.hello.rank)
                _log.info("node %d came to the rendezvous from %s", seat.hello.rank, seat.connection.peer)
                if self._roster is not None:
                    self._hand_over(seat)
                else:
                    self._tell_waiting()
        except (ConnectionLostError, ProtocolError) as error:
            self._dismiss(seat, str(error))

    def _hand_over(self, seat: _Seat) -> None:
        assert self._roster is not None
        try:
            seat.connection.send(self._roster)
        except ConnectionLostError as error:
            self._dismiss(seat, str(error))  # it will come again
            return
        del self._seats[seat.hello.rank]
        self._selector.unregister(seat.descriptor)
        self._made(seat.hello.rank, seat.connection)

    def _tell_waiting(self) -> None:
        for seat in list(self._seats.values()):
            if seat.member is not None:
                self._send(seat, {"waiting": self.missing()})  # fewer or more than a moment ago if one is lost here

    def _send(self, seat: _Seat, note: dict[str, Any]) -> None:
        if self._seats.get(seat.hello.rank) is not seat:
            return  # dismissed meanwhile
        try:
            seat.connection.send(write_note(note))
        except ConnectionLostError as error:
            self._dismiss(seat, str(error))

    def _dismiss(self, seat: _Seat, reason: str) -> None:
        self._leave(seat)
        self.gone.add(seat.hello.rank)
        if self._failed is None:
            _log.warning("node %d left the rendezvous: %s", seat.hello.rank, reason)
        if self._failed is None and self._roster is None:
            self._tell_waiting()

    def _leave(self, seat: _Seat) -> None:
        del self._seats[seat.hello.rank]
        self._selector.unregister(seat.descriptor)
        seat.connection.close()


def listed(ranks: list[int]) -> str:
    """Return "node 1", or "nodes 1, 2, 3"."""
    return f"node{'s' * (len(ranks) != 1)} {', '.join(map(str, ranks))}"


def written_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return `card` as others read it.

    Raises
    ------
    ConfigError
        If JSON does not hold it, or it is too long.
    """
    try:
        written = write_note(card)
        read = read_note(written)
    except (TypeError, ValueError, ProtocolError) as error:
        raise ConfigError(f"what this node says of itself is not JSON that others can read: {error}") from error
    if len(written) > CARD_LIMIT - 4 * ADDRESS_LIMIT:
        raise ConfigError(
            f"what this node says of itself, its tables mostly, has {len(written):,} bytes; expected at "
            f"most {CARD_LIMIT - 4 * ADDRESS_LIMIT:,}"
        )
    return read


def read_roster(entries: list[Any], own: Member) -> list[Member]:
    """Return the members that node 0 sent.

    Raises
    ------
    ProtocolError
        If that is not a roster with `own` at its place.
    """
    members = []
    for rank, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ProtocolError("the roster holds what is not a member")
        check_fields(entry, {"rank": int, "address": str, "incarnation": int, "card": dict})
        if entry["rank"] != rank:
            raise ProtocolError(f"the roster has node {entry['rank']} at place {rank}")
        members.append(Member(**entry))
    if own.rank >= len(members) or members[own.rank] != own:
        raise ProtocolError(f"the roster does not have node {own.rank} as it said it is")
    return members


def _read_member(payload: bytes, hello: Hello) -> Member:
    note = read_note(payload)
    check_fields(note, {"address": str, "card": dict})
    if len(note["address"]) > ADDRESS_LIMIT or not note["address"].isprintable():
        raise ProtocolError(f"expected an address of at most {ADDRESS_LIMIT} printable characters")
    return Member(hello.rank, note["address"], hello.incarnation, note["card"])
