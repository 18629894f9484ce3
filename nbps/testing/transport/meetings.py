"""How two ends find each other at an address, and what a node that nobody answers learns."""

from __future__ import annotations

import contextlib
import select
import threading
import time

import pytest

from nbps.errors import TransportError
from nbps.testing.transport.ends import LIMIT_S, End, accepted, drive, left_behind, payload
from nbps.testing.transport.subject import Subject
from nbps.transport.interface import Connection


class MeetingContract(Subject):
    """Nodes start in any order, one listens at an address, and nothing is left behind."""

    def test_nobody_listens(self) -> None:
        """Connecting gives up in time, and says where it tried."""
        listener = self.transport().listen(self.address(), self.options())
        address = listener.address
        listener.close()
        for timeout_s in (0.0, 0.2):
            with pytest.raises(TransportError, match="nobody answers") as caught:
                self.transport().connect(address, self.options(), timeout_s)
            assert address in str(caught.value)

    def test_connecting_waits_for_a_listener(self) -> None:
        """Nodes start in any order."""
        listener = self.transport().listen(self.address(), self.options())
        address = listener.address
        listener.close()
        found: list[Connection] = []
        connecting = threading.Thread(
            target=lambda: found.append(self.transport().connect(address, self.options(), LIMIT_S))
        )
        connecting.start()
        time.sleep(0.1)
        with contextlib.closing(self.transport().listen(address, self.options())) as listener:
            with contextlib.closing(accepted(listener)) as connection:
                connecting.join()
                assert connection.send(b"welcome")
                end = End(found[0])
                other = End(connection)
                drive(end, other, until=lambda: bool(end.frames))
            found[0].close()

    def test_an_address_is_listened_at_once(self) -> None:
        """A second listener is refused while the first lives, not afterwards, also if connections of it remain."""
        first = self.transport().listen(self.address(), self.options())
        with pytest.raises(TransportError, match="cannot listen at"):
            self.transport().listen(first.address, self.options())
        one = self.transport().connect(first.address, self.options(), LIMIT_S)
        other = accepted(first)
        first.close()
        first.close()
        again = self.transport().listen(first.address, self.options())
        end = End(other, [(b"still here",)])
        back = End(one)
        drive(end, back, until=lambda: bool(back.frames))
        for thing in (again, one, other):
            thing.close()

    def test_nobody_to_accept(self) -> None:
        """Accepting does not wait, and the descriptor sleeps, before and after somebody came."""
        with contextlib.closing(self.transport().listen(self.address(), self.options())) as listener:
            for _ in range(2):
                assert listener.accept() is None
                assert not select.select([listener], [], [], 0)[0]
                first = self.transport().connect(listener.address, self.options(), LIMIT_S)
                accepted(listener).close()
                first.close()

    def test_who_was_not_accepted_learns_that_the_listener_closed(self) -> None:
        """A connection in front of a closed door ends."""
        listener = self.transport().listen(self.address(), self.options())
        end = End(self.transport().connect(listener.address, self.options(), LIMIT_S))
        listener.close()
        drive(end, until=lambda: end.lost is not None)

    def test_an_empty_address_is_refused(self) -> None:
        """As one where nobody can listen."""
        with pytest.raises(TransportError):
            self.transport().listen("", self.options())
        with pytest.raises(TransportError):
            self.transport().connect("", self.options(), 0.0)

    def test_nothing_is_left_behind(self) -> None:
        """No descriptor, thread or segment: after a close, after a loss without one, and after a failed attempt."""

        def once() -> None:
            with self.ends() as (first, second):
                first.outbox.append((payload(1, 100_000),))
                drive(first, second, until=lambda: bool(second.frames))
            with self.ends() as (first, second):
                first.outbox.append((payload(1, 10),))
                drive(first, second, until=lambda: bool(second.frames))
                first.connection.close()
                drive(second, until=lambda: second.lost is not None)
            listener = self.transport().listen(self.address(), self.options())
            with pytest.raises(TransportError):
                self.transport().listen(listener.address, self.options())
            listener.close()
            with pytest.raises(TransportError):
                self.transport().connect(listener.address, self.options(), 0.0)

        once()  # what a transport makes once and keeps
        before = left_behind()
        for _ in range(5):
            once()
        assert left_behind() <= before
