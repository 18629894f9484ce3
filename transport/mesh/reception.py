"""Those that connect to a node: strangers are turned away, nodes of the job are let in, and nobody can hold up anybody.

Driven from a selector that belongs to the caller, in its thread; nothing here blocks. One that has not proved itself
within `DEADLINE_S` is dropped, and so is, when `GUESTS` are here and one more comes, the one that has waited longest,
first among those who have said nothing of sense yet. So any number of silent strangers costs bounded memory, and a node
of the job gets in unless `GUESTS` of them come in the time that its hello takes; then it comes again. A refused node is
given `_TOLD_S` to read why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from nbps.errors import ConnectionLostError, TransportError
from nbps.transport.interface import Connection, Listener
from nbps.transport.mesh.handshake import DEADLINE_S, Accepting, Hello, Refusal

GUESTS = 128  # connections that have not proved themselves yet

_ACCEPTED_AT_ONCE = 16  # then the guests have their turn
_TOLD_S = 1.0
_HEEDED = 16  # frames of a refused guest that are read in one go
_LOGGED = 100  # refusals; after as many, a stranger that tries for ever could fill a disk with log lines
_PAUSE_S = 1.0  # after the system could give no descriptor

_log = logging.getLogger("nbps.transport")


class _Guest:
    def __init__(self, handshake: Accepting, deadline: float) -> None:
        self.handshake = handshake
        self.connection = handshake.connection
        self.descriptor = handshake.connection.fileno()  # a lost connection has none, but is still registered
        self.deadline = deadline
        self.refused = False


class Reception:
    """Lets nodes of the job `own` in that connect to `listener`, which it takes over.

    Parameters
    ----------
    admit : callable
        Decides about a node that has proved who it is.
    welcome : callable
        Takes over the connection of a node that was let in.
    """

    def __init__(
        self,
        listener: Listener,
        own: Hello,
        secret: bytes,
        selector: BaseSelector,
        admit: Callable[[Hello], Refusal | None],
        welcome: Callable[[Hello, Connection], None],
    ) -> None:
        self.address = listener.address
        self.last_refusal: str | None = None
        self._listener = listener
        self._own = own
        self._secret = secret
        self._selector = selector
        self._admit = admit
        self._welcome = welcome
        self._guests: dict[int, _Guest] = {}  # by descriptor, in the order in which they came
        self._refusals = 0
        self._paused_until: float | None = None
        selector.register(listener.fileno(), EVENT_READ, self._accept)

    def hears_any(self, before: float) -> bool:
        """Whether guests are here that came before that time, and may still prove who they are."""
        return any(not guest.refused and guest.deadline - DEADLINE_S < before for guest in self._guests.values())

    def expire(self, now: float) -> None:
        """Drop guests whose time is over; to be called about once a second."""
        for guest in [guest for guest in self._guests.values() if now >= guest.deadline]:
            self._dismiss(guest, f"nothing proved within {DEADLINE_S:g} s")
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._selector.register(self._listener.fileno(), EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening and drop all guests."""
        if self._paused_until is None:
            self._selector.unregister(self._listener.fileno())
        self._listener.close()
        for guest in list(self._guests.values()):
            self._forget(guest)
            guest.connection.close(linger=False)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection = self._listener.accept()
            except TransportError as error:  # no descriptors left: those who wait would wake us again and again
                _log.warning("node %d: %s; trying again in %g s", self._own.rank, error, _PAUSE_S)
                self._selector.unregister(self._listener.fileno())
                self._paused_until = time.monotonic() + _PAUSE_S
                return
            if connection is None:
                return
            if len(self._guests) >= GUESTS:
                oldest = next(iter(self._guests.values()))
                silent = (guest for guest in self._guests.values() if guest.handshake.peer is None)
                self._dismiss(next(silent, oldest), f"more than {GUESTS} connections at once that prove nothing")
            handshake = Accepting(connection, self._own, self._secret, self._admit)
            guest = _Guest(handshake, time.monotonic() + DEADLINE_S)
            self._guests[guest.descriptor] = guest
            self._selector.register(guest.descriptor, EVENT_READ, partial(self._serve, guest))
            self._serve(guest, EVENT_READ)

    def _serve(self, guest: _Guest, events: int) -> None:
        if self._guests.get(guest.descriptor) is not guest:
            return  # dismissed since the selector named it
        try:
            if events & EVENT_WRITE:
                guest.connection.flush()
            if guest.refused:
                for _ in range(_HEEDED):  # what it still says is dropped; this node has other things to do
                    if guest.connection.receive() is None:
                        break
            elif guest.handshake.advance():
                self._forget(guest)
                assert guest.handshake.peer is not None
                self._welcome(guest.handshake.peer, guest.connection)
                return
        except ConnectionLostError as error:
            self._dismiss(guest, str(error))
            return
        except TransportError as error:
            self._log_refusal(guest, str(error))
            guest.refused = True
            guest.deadline = time.monotonic() + _TOLD_S
        wanted = EVENT_READ | (EVENT_WRITE if guest.connection.wants_write else 0)
        if self._selector.get_key(guest.descriptor).events != wanted:
            self._selector.modify(guest.descriptor, wanted, partial(self._serve, guest))

    def _dismiss(self, guest: _Guest, reason: str) -> None:
        if not guest.refused:
            self._log_refusal(guest, reason)
        self._forget(guest)
        guest.connection.close(linger=False)  # it had its time to read; this node has other things to do

    def _forget(self, guest: _Guest) -> None:
        del self._guests[guest.descriptor]
        self._selector.unregister(guest.descriptor)

    def _log_refusal(self, guest: _Guest, reason: str) -> None:
        self.last_refusal = f"{guest.connection.peer}: {reason}"
        self._refusals += 1
        if self._refusals <= _LOGGED or self._refusals % _LOGGED == 0:
            _log.warning("node %d refused a connection from %s", self._own.rank, self.last_refusal)
        if self._refusals == _LOGGED:
            _log.warning("node %d goes on to log each %dth refusal only", self._own.rank, _LOGGED)
