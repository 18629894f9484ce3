"""A TCP proxy that misbehaves as told: between a node and the address it connects to, without root, on any machine.

It stands where a network would: bytes that were taken from one side arrive at the other late, slowly, with a changed
bit, after a silence, or never, because both ends were closed in the middle of a frame. What happens to which byte is
drawn from a seed, for each direction on its own; when it happens depends on the machine. TCP's own promises stay as
they are: without `ChaosProxy.flip` what arrives is a prefix of what was sent, in order.

One thread does all the work. Controls are carried out by it too, and have taken effect when they return; a counter
that is read holds all that anybody has received before. In the job of several nodes node i connects to all nodes before
it, to node 0 at the rendezvous: give a node the proxy's address as ``NBPS_RENDEZVOUS``, and its link to node 0 goes
through here.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Self

from nbps.testing.transport.proxy_flow import Direction, Link
from nbps.transport.addresses import join_address, split_address

Which = Literal["up", "down", "both"]

_CONTROL_LIMIT_S = 60  # a control that takes longer found the thread dead


class ChaosProxy:
    """A TCP proxy in a thread of its own; use it as a context manager, or call `close`.

    *Up* is from the end that connects to the target, *down* is back. Conditions hold for all connections, also later
    ones, until they are set anew or `heal` is called.

    Parameters
    ----------
    target : str
        Address to connect to, ``host:port``; nobody needs to listen there yet.
    seed : int
        Of jitter and of the bits that are flipped.

    Attributes
    ----------
    address : str
        Where to connect instead of `target`.
    """

    def __init__(self, target: str, seed: int = 0) -> None:
        self.target = target
        self._accepted = 0
        self._cuts = 0
        found = socket.getaddrinfo(*split_address(target), type=socket.SOCK_STREAM)
        self._family, self._target = found[0][0], found[0][4]
        self._directions = {"up": Direction("up", seed), "down": Direction("down", seed)}
        self._links: list[Link] = []
        self._asked: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._closing = False
        self._listen_at = math.inf
        # Bound, never listening: keeps the port while `refuse` has closed the listener.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.address = join_address(*self._port.getsockname())
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"chaos proxy {self.address}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- counters

    @property
    def bytes_up(self) -> int:
        """Bytes forwarded to the target."""
        self._settle()
        return self._directions["up"].forwarded

    @property
    def bytes_down(self) -> int:
        """Bytes forwarded from the target."""
        self._settle()
        return self._directions["down"].forwarded

    @property
    def flips(self) -> int:
        """Bits flipped so far; what holds one may not have been forwarded yet."""
        self._settle()
        return sum(direction.flipped for direction in self._directions.values())

    @property
    def open(self) -> int:
        """Connections that are open now."""
        self._settle()
        return len(self._links)

    @property
    def accepted(self) -> int:
        """Connections so far."""
        self._settle()
        return self._accepted

    @property
    def cuts(self) -> int:
        """How often `cut` has closed the connections so far."""
        self._settle()
        return self._cuts

    def _settle(self) -> None:
        # The thread counts after it has sent: it has done so when it takes up something else.
        if not self._closing:
            self._do(lambda: None)

    # --- controls

    def delay(self, seconds: float, jitter_s: float = 0.0, which: Which = "both") -> None:
        """Hold what comes in from now on back for `seconds`, and for up to `jitter_s` more; nothing overtakes."""

        def begin() -> None:
            for direction in self._of(which):
                direction.delay_s, direction.jitter_s = seconds, jitter_s

        self._do(begin)

    def rate(self, bytes_per_s: float, which: Which = "both") -> None:
        """Forward at most so many bytes in a second, of all connections together; ``math.inf`` for no limit."""
        if not bytes_per_s > 0:
            raise ValueError(f"bytes_per_s is {bytes_per_s}; expected more than 0 (`stall` forwards nothing)")

        def begin() -> None:
            for direction in self._of(which):
                direction.limit(bytes_per_s)

        self._do(begin)

    def stall(self, seconds: float = math.inf, which: Which = "both") -> None:
        """Forward nothing for so long, not even the end of a connection, but go on accepting and taking bytes.

        As with a cable that is pulled and put back, nothing is lost: what was taken is forwarded afterwards. At 16 MiB
        a connection nothing more is taken.
        """

        def begin() -> None:
            for direction in self._of(which):
                direction.stalled_until = time.monotonic() + seconds

        self._do(begin)

    def flip(self, count: int = 1, within_bytes: int = 1, which: Which = "up") -> None:
        """Flip `count` random bits of what comes in: each within so many bytes after the one before it.

        A probability p for each byte is about ``within_bytes=2 / p`` with a large `count`; `count` 0 ends it.
        """
        if count < 0 or within_bytes < 1:
            raise ValueError(f"count {count} within {within_bytes} bytes; expected at least 0 and 1")

        def begin() -> None:
            for direction in self._of(which):
                direction.plan_flips(count, within_bytes)

        self._do(begin)

    def cut(self, after_bytes: int = 0, which: Literal["up", "down"] = "up") -> None:
        """Close both ends of all connections, when `after_bytes` more were forwarded in one direction.

        What is held back is lost. One that connects afterwards is served. `after_bytes` 0 is done on return; else
        `cuts` tells when.
        """
        if after_bytes < 0:
            raise ValueError(f"after_bytes is {after_bytes}; expected at least 0")

        def begin() -> None:
            if after_bytes:
                self._directions[which].cut_after = after_bytes
            else:
                self._cut()

        self._do(begin)

    def refuse(self, seconds: float = math.inf) -> None:
        """Accept nobody for so long: one that connects is refused. Connections that exist stay."""

        def begin() -> None:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self._listen_at = time.monotonic() + seconds

        self._do(begin)

    def heal(self) -> None:
        """End everything that was asked for: what is held back goes out, in order, and what follows passes at once."""

        def begin() -> None:
            for direction in self._directions.values():
                direction.clear()
            for link in self._links:
                link.up.hurry()
                link.down.hurry()
            if self._listener is None:
                self._listen()

        self._do(begin)

    def close(self) -> None:
        """Close everything; connections end. Idempotent."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        self._port.close()

    # --- the thread

    def _of(self, which: Which) -> list[Direction]:
        return list(self._directions.values()) if which == "both" else [self._directions[which]]

    def _do(self, function: Callable[[], None]) -> None:
        """Have the thread call `function`, and wait for it."""
        if self._closing:
            raise ValueError(f"the proxy at {self.address} is closed")
        done: Future[None] = Future()
        self._asked.append((done, function))
        os.eventfd_write(self._wake, 1)
        done.result(_CONTROL_LIMIT_S)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._carry_out()
                again = self._pump()
                limit_s = None if again == math.inf else max(0.0, again - time.monotonic())
                for key, events in self._selector.select(limit_s):
                    self._handle(key, events)
        finally:
            for link in list(self._links):
                self._end(link)
            if self._listener is not None:
                self._listener.close()
            self._selector.close()

    def _carry_out(self) -> None:
        while self._asked:
            done, function = self._asked.popleft()
            try:
                function()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _pump(self) -> float:
        """Forward what is due, wait for the right things; return when to come again."""
        now = time.monotonic()
        if self._listener is None and now >= self._listen_at:
            self._listen()
        again = self._listen_at if self._listener is None else math.inf
        for link in list(self._links):
            if link not in self._links:
                continue  # cut with another one
            when = link.pump(now)
            again = min(again, max(when, now))
            if any(direction.cut_after == 0 for direction in self._directions.values()):
                self._cut()
            elif when == -math.inf:
                self._end(link)
            else:
                for ours, events in link.interests():
                    self._await(ours, events, link)
        return again

    def _await(self, ours: socket.socket, events: int, link: Link) -> None:
        key = self._selector.get_map().get(ours.fileno())
        if key is None:
            if events:
                self._selector.register(ours, events, link)
        elif not events:
            self._selector.unregister(ours)
        elif key.events != events:
            self._selector.modify(ours, events, link)

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        elif key.data is None:
            self._accept()
        else:
            assert isinstance(key.fileobj, socket.socket)
            key.data.handle(key.fileobj, events, time.monotonic())

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it is gone already
            return
        self._accepted += 1
        target = socket.socket(self._family)
        for ours in (client, target):
            ours.setblocking(False)
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, target, self._directions["up"], self._directions["down"])
        self._links.append(link)
        if target.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            link.connected = True
            link.up.drop()
            link.down.reset(time.monotonic())

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self._port.getsockname())
        self._listener.listen()
        self._listener.setblocking(False)
        self._listen_at = math.inf
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _cut(self) -> None:
        self._cuts += 1
        for link in list(self._links):
            self._end(link)
        for direction in self._directions.values():
            direction.cut_after = None

    def _end(self, link: Link) -> None:
        self._links.remove(link)
        for ours in (link.client, link.target):
            if ours.fileno() in self._selector.get_map():
                self._selector.unregister(ours)
            ours.close()
