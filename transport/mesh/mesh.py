"""All connections of a node: found at the rendezvous, one to every other node, made again when they break.

Node 0 listens at the rendezvous; the others go there and are told of each other (`.rendezvous`). Then
node i connects to every node j < i, at the start and whenever the connection is lost; the one that accepts waits. Every
connection begins with the handshake, in which a node names its incarnation: one that was restarted is another node,
which a running job does not take back.

The owner of a mesh polls it: accepting and judging those that come happens in `Mesh.poll` and blocks nobody. Connecting
may block, so for every lost connection to a lower rank there is a thread until it stands again; without one there is
none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection
from selectors import EVENT_READ, EpollSelector

from nbps.errors import NodeError, TransportError
from nbps.transport import get_transport
from nbps.transport.interface import Connection, Listener, Options
from nbps.transport.mesh.calling import LONGEST_ATTEMPT_S, Caller, Stopped, pauses
from nbps.transport.mesh.handshake import Hello, Refusal
from nbps.transport.mesh.joining import Visitor
from nbps.transport.mesh.notes import printable
from nbps.transport.mesh.place import Place
from nbps.transport.mesh.reception import Reception
from nbps.transport.mesh.rendezvous import Member, Rendezvous, listed, written_card
from nbps.transport.mesh.roll import Roll

_SHORTEST_ATTEMPT_S = 0.25  # to connect again; `Mesh.close` waits for an attempt
_TURN_S = 0.5  # guests are looked after at least so often
_FAREWELL_S = 1.0  # for nodes to read why the job cannot start

_log = logging.getLogger("nbps.transport")


class Mesh:
    """The connections of the node at `place`; payloads up to `frame_limit` bytes are received on them.

    One thread uses it. `close` is to be called in any case: it ends the threads that connect.

    Raises
    ------
    ConfigError
        If strangers could connect and there is no secret, or something about `place` cannot be.
    """

    def __init__(self, place: Place, frame_limit: int) -> None:
        self._transport = get_transport(place.transport)
        place.check_reach(self._transport)
        self.place = place
        self._frame_limit = frame_limit
        self._card = written_card(place.card)
        self._roll = Roll.found(place.roll)
        self._options = Options(tls=place.tls)
        self._caller = Caller(place, self._transport, self._options)
        self._selector = EpollSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # there is something in _made
        self._selector.register(self._wake, EVENT_READ, self._woken)
        self._reception: Reception | None = None
        self._rendezvous: Rendezvous | None = None  # node 0 only
        self._members: list[Member] | None = None
        self._made: deque[tuple[int, Connection]] = deque()
        self._lock = threading.Lock()  # of _connecting, which threads that connect use too
        self._connecting: dict[int, str] = {}  # lost rank: what is known of it
        self._threads: list[threading.Thread] = []
        self._broken: set[int] = set()  # ranks whose connections were lost and do not stand again
        self._farewells: dict[int, str] = {}  # why nodes are gone, by rank
        self._closed = False

    # ------------------------------------------------------------------ for its owner

    def open(self) -> list[Member]:
        """Find all other nodes and connect to them; return who they are, in the order of ranks.

        Raises
        ------
        NodeError
            If nodes are missing after `Place.start_timeout_s`, or they do not run the same job.
        TransportError
            If the rendezvous cannot be reached or taken, or this node is refused there.
        """
        try:
            if self.place.rank == 0:
                self._members = self._gather()
            else:
                self._members = self._join()
        except BaseException:
            self.close()
            raise
        return self._members

    def fileno(self) -> int:
        """Descriptor that polls readable when `poll` has something to do."""
        return self._selector.fileno()

    def poll(self) -> list[tuple[int, Connection]]:
        """Look after nodes that connect; return rank and connection of what was made (again), the caller's own.

        The newer connection to a node replaces the older. Frames may have arrived on it that its descriptor no longer
        tells of: receive before polling it. To be called when `fileno` polls readable, and about once a second.
        """
        self._turn(0)
        made = []
        while self._made:
            made.append(self._made.popleft())
        self._broken.difference_update(rank for rank, _ in made)
        return made

    def lost(self, rank: int) -> None:
        """Take note that the connection to `rank` broke: connect again in the background, or wait for it to."""
        self._broken.add(rank)
        if rank < self.place.rank:
            self._start_connecting(rank, again=True)

    def gone(self) -> dict[int, str]:
        """Return why nodes will not come back, by rank: what is left of them said so, or whoever started them.

        Of one that has ended only if its connection is lost: what it said before it ended is to be received first.
        """
        ended = {rank: f"its process has ended ({how})" for rank, how in self._ended().items() if rank in self._broken}
        return ended | self._farewells

    def close(self) -> None:
        """End everything but the connections that `poll` returned; waits for an attempt to connect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._caller.stop()
        for thread in self._threads:
            thread.join()
        self._caller.close()
        for _, connection in self._made:
            connection.close()
        if self._reception is not None:
            self._reception.close()
        if self._rendezvous is not None:
            self._rendezvous.close()
        self._selector.close()
        os.close(self._wake)
        if self._roll is not None:
            self._roll.close()

    # ------------------------------------------------------------------ nodes that come

    def _turn(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            key.data(events)
        now = time.monotonic()
        if self._reception is not None:
            self._reception.expire(now)
        if self._rendezvous is not None:
            self._rendezvous.expire(now)

    def _woken(self, _events: int) -> None:
        os.eventfd_read(self._wake)

    def _receive_at(self, listener: Listener) -> None:
        """Judge those that connect to `listener`, from now on."""
        own, secret = self.place.hello(), self.place.secret
        self._reception = Reception(listener, own, secret, self._selector, self._admit, self._welcome)

    def _admit(self, hello: Hello) -> Refusal | None:
        if hello.join:
            if self._rendezvous is None:
                return Refusal(f"node {self.place.rank} is not at the rendezvous, node 0 is: is NBPS_RENDEZVOUS right?")
            return self._rendezvous.admit(hello)
        if self._members is None:
            return Refusal(f"node {self.place.rank} was restarted; it is not in the job that you are in")
        if hello.incarnation != self._members[hello.rank].incarnation:
            return Refusal(f"node {hello.rank} was restarted; a running job does not take it back")
        return None

    def _welcome(self, hello: Hello, connection: Connection) -> None:
        if hello.farewell:
            self._farewells.setdefault(hello.rank, printable(hello.farewell))
            connection.close(linger=False)
        elif hello.join:
            assert self._rendezvous is not None
            self._rendezvous.take(hello, connection)
        else:
            self._hand_out(hello.rank, connection)

    def _hand_out(self, rank: int, connection: Connection) -> None:
        connection.frame_limit = self._frame_limit
        self._made.append((rank, connection))
        os.eventfd_write(self._wake, 1)

    # ------------------------------------------------------------------ to whom it goes

    def _start_connecting(self, rank: int, again: bool) -> None:
        assert self._members is not None
        with self._lock:
            if rank in self._connecting:
                return
            self._connecting[rank] = "no attempt was made"
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        name = f"nbps connects to node {rank}"
        thread = threading.Thread(target=self._connect, args=(self._members[rank], again), name=name)
        self._threads.append(thread)
        thread.start()

    def _connect(self, member: Member, again: bool) -> None:
        """Connect to `member` until it stands, in a thread of its own; `again` if it stood before."""
        rank, connection = member.rank, None
        pause_s = pauses()
        try:
            # A connection that breaks as soon as it stands must not keep both ends busy.
            pause = next(pause_s) if again else 0.0
            while connection is None:
                self._caller.rest(pause)
                try:
                    patience = min(max(_SHORTEST_ATTEMPT_S, 4 * pause), LONGEST_ATTEMPT_S)
                    connection = self._caller.connect(rank, member.address, member.incarnation, patience)
                except TransportError as error:
                    self._note_trouble(rank, str(error))
                    pause = next(pause_s)
        except Stopped:
            pass
        finally:
            with self._lock:
                del self._connecting[rank]
                if connection is not None:
                    self._hand_out(rank, connection)

    def _note_trouble(self, rank: int, trouble: str) -> None:
        """Say why there is no connection to `rank`; it is tried again, since what ends a job is decided elsewhere."""
        with self._lock:
            known, self._connecting[rank] = self._connecting[rank], trouble
        if trouble != known:
            _log.warning("node %d cannot connect to node %d: %s", self.place.rank, rank, trouble)

    # ------------------------------------------------------------------ the start

    def _gather(self) -> list[Member]:
        """Node 0: wait for all others at the rendezvous, and send them the roster."""
        place = self.place
        try:
            entrance = self._transport.entrance(place.rendezvous, place.bind)
            listener = self._transport.listen(entrance, self._options)
        except TransportError as error:
            raise TransportError(
                f"node 0 cannot open the rendezvous: {error}. NBPS_RENDEZVOUS, the same on all nodes, sets another "
                "address"
            ) from error
        own = Member(0, listener.address, place.incarnation, self._card)
        self._rendezvous = rendezvous = Rendezvous(own, place.nodes, self._selector, self._hand_out)
        until = time.monotonic() + place.start_timeout_s
        self._receive_at(listener)
        reception = self._reception
        assert reception is not None
        # On a machine that is slow a node may be saying who it is, or why it is not let in, when the time is over.
        while (missing := rendezvous.missing()) and (
            (left := until - time.monotonic()) > 0 or reception.hears_any(until) or rendezvous.awaits_cards
        ):
            if (objection := self._obituary(missing)) is not None:
                break
            self._turn(min(left, _TURN_S) if left > 0 else _TURN_S)
        else:
            objection = self._absence() if missing else rendezvous.objection()
        if objection is None:
            return rendezvous.finish()
        rendezvous.fail(objection)
        until = time.monotonic() + _FAREWELL_S
        while not rendezvous.empty and (left := until - time.monotonic()) > 0:
            self._turn(left)
        raise NodeError(objection)

    def _ended(self) -> dict[int, str]:
        """Return how the processes of nodes have ended, by rank, where whoever started them says so."""
        return {} if self._roll is None else self._roll.ended()

    def _obituary(self, missing: Collection[int]) -> str | None:
        """Say which of the nodes that are missing will not come any more; None if all of them still may."""
        place = self.place
        ended = [f"node {rank} has ended ({how})" for rank, how in self._ended().items() if rank in missing]
        return f"node {place.rank} waited at {place.rendezvous}: {', '.join(ended)}" if ended else None

    def _absence(self) -> str:
        """Say which nodes did not come, and what may be why."""
        assert self._rendezvous is not None
        assert self._reception is not None
        came = self._rendezvous.gone
        never = [rank for rank in self._rendezvous.missing() if rank not in came]
        parts = [f"{listed(never)} did not come"] if never else []
        parts += [f"{listed(sorted(came))} came and left again"] if came else []
        waited = f"node 0 waited {self.place.start_timeout_s:g} s at {self._reception.address}: {', '.join(parts)}"
        if self._reception.last_refusal is not None:
            waited += f"; the last that was refused there: {self._reception.last_refusal}"
        elif self._transport.is_local(self._reception.address):
            waited += "; other machines cannot reach that address"
        return waited

    def _join(self) -> list[Member]:
        """Other nodes: go to the rendezvous, then have a connection to every node."""
        place = self.place
        until = time.monotonic() + place.start_timeout_s
        visitor = Visitor(place, self._card, self._caller, self._transport, self._options)
        try:
            members, connection = visitor.join(until, lambda: self._obituary(range(place.nodes)))
        except BaseException:
            if visitor.listener is not None:
                visitor.listener.close()
            raise
        assert visitor.listener is not None
        members[0] = Member(0, place.rendezvous, members[0].incarnation, members[0].card)  # as it is reached from here
        self._members = members
        self._hand_out(0, connection)
        self._receive_at(visitor.listener)
        for rank in range(1, place.rank):
            self._start_connecting(rank, again=False)
        while missing := set(range(place.nodes)) - {place.rank} - {rank for rank, _ in self._made}:
            if (obituary := self._obituary(missing)) is not None:
                raise NodeError(obituary)
            left = until - time.monotonic()
            if left <= 0:
                raise NodeError(self._separation(min(missing)))
            self._turn(min(left, _TURN_S))
        return members

    def _separation(self, rank: int) -> str:
        assert self._members is not None
        place, address = self.place, self._members[rank].address
        with self._lock:
            why = self._connecting.get(rank, f"it did not connect to {self._members[place.rank].address}")
        return (
            f"node {place.rank} has no connection to node {rank} ({address}) after {place.start_timeout_s:g} s, though "
            f"both came to {place.rendezvous}: {why}"
        )
