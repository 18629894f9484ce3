"""A test bed whose links have delay, jitter and loss: a TUN device in each host, and a relay of their packets between.

The kernel's own means for this, ``tc netem``, is missing on many machines. Here each host routes all traffic into a
device whose other end is a descriptor of this process; one thread reads packets, looks up the path from sender to
receiver, and writes them out when they are due, or not at all. Draws are seeded, for each path on its own: packet n of
a path meets the same luck in every run. TCP above repairs what is lost and swapped, as on a real network.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import heapq
import itertools
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from support import lan

_TUNSETIFF = 0x400454CA
_TUN, _NO_HEADER = 0x0001, 0x1000
_MTU = 1500
_QUEUE_PACKETS = 20_000  # on their way; what is beyond is lost, as in a switch
_SOURCE, _TARGET = slice(12, 16), slice(16, 20)  # in the header of IPv4


@dataclass
class Path:
    """What happens to packets from one host to another; set the first four at any time.

    Attributes
    ----------
    delay_s, jitter_s : float
        Each packet takes `delay_s` and up to `jitter_s` more; one may overtake another.
    loss : float
        Probability that a packet is lost.
    cut : bool
        All packets are lost.
    passed, lost : int
        Packets so far.
    """

    draw: random.Random
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    cut: bool = False
    passed: int = field(default=0, init=False)
    lost: int = field(default=0, init=False)


class Relayed(lan.Network):
    """Hosts with one TUN device each, whose packets a thread of this process relays.

    Attributes
    ----------
    paths : dict of (int, int) to Path
        From host i to host j.
    """

    subnet = "10.98.0"
    device = "tun0"

    def __init__(self, hosts: int, seed: int = 0) -> None:
        self.paths: dict[tuple[int, int], Path] = {}
        self._devices: list[int] = []
        self._waiting: list[tuple[float, int, int, bytes, Path]] = []  # a heap: due, number, device, packet, path
        self._numbers = itertools.count()
        self._wake: int | None = None
        super().__init__(hosts)
        try:
            for host in self.hosts:
                self._devices.append(host.call(_open_tun, self.device))
                host.run("ip", "address", "add", f"{host.address}/24", "dev", self.device)
                host.run("ip", "link", "set", self.device, "mtu", str(_MTU), "up")
            self.paths = {
                (i, j): Path(random.Random(f"{seed} {i} {j}")) for i, j in itertools.permutations(range(hosts), 2)
            }
            self._by_address = {
                (socket.inet_aton(self.hosts[i].address), socket.inet_aton(self.hosts[j].address)): (j, path)
                for (i, j), path in self.paths.items()
            }
            self._closing = False
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._relay, name="relay", daemon=True)
            self._thread.start()
        except BaseException:
            self.close()
            raise

    def set(self, *, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """Set the conditions of all paths; cuts stay."""
        for path in self.paths.values():
            path.delay_s, path.jitter_s, path.loss = delay_s, jitter_s, loss

    def partition(self, group: Collection[int]) -> None:
        """Part the hosts of `group` from the others."""
        for (i, j), path in self.paths.items():
            path.cut = (i in group) != (j in group)

    def one_way(self, i: int, j: int) -> None:
        """Lose what host `i` sends to host `j`."""
        self.paths[i, j].cut = True

    def heal(self) -> None:
        """End cuts; delay, jitter and loss stay."""
        for path in self.paths.values():
            path.cut = False

    def close(self) -> None:
        """Take all of it down; packets on their way are lost."""
        if self._wake is not None:
            self._closing = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._wake = None
        while self._devices:
            os.close(self._devices.pop())
        super().close()

    def _relay(self) -> None:
        with selectors.DefaultSelector() as selector:
            for device in [self._wake, *self._devices]:
                selector.register(device, selectors.EVENT_READ)
            while not self._closing:
                limit_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
                for key, _ in selector.select(limit_s):
                    if key.fd != self._wake:
                        self._take(key.fd)
                while self._waiting and self._waiting[0][0] <= time.monotonic():
                    _, _, device, packet, path = heapq.heappop(self._waiting)
                    self._give(device, packet, path)

    def _take(self, device: int) -> None:
        """Read what a host has sent, and pass it on or hold it."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):  # then it is the others' turn
                packet = os.read(device, _MTU)
                target, path = self._by_address.get((packet[_SOURCE], packet[_TARGET]), (0, None))
                if path is None:
                    continue  # a broadcast, or IPv6: nobody's
                if path.loss and path.draw.random() < path.loss:
                    path.lost += 1
                elif not path.delay_s and not path.jitter_s:
                    self._give(self._devices[target], packet, path)
                elif len(self._waiting) < _QUEUE_PACKETS:
                    due = time.monotonic() + path.delay_s + path.jitter_s * path.draw.random()
                    heapq.heappush(self._waiting, (due, next(self._numbers), self._devices[target], packet, path))
                else:
                    path.lost += 1

    def _give(self, device: int, packet: bytes, path: Path) -> None:
        if path.cut:  # looked at last: it holds for packets on their way too
            path.lost += 1
            return
        os.write(device, packet)
        path.passed += 1


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_HEADER))
    except BaseException:
        os.close(device)
        raise
    return device


@functools.cache
def why_not() -> str | None:
    """Return why there can be no such test bed here; None if there can be one."""
    if lan.why_not() is not None:
        return lan.why_not()
    host = lan.Host()
    try:
        os.close(host.call(_open_tun, "tun0"))
    except OSError as error:
        return f"no TUN devices here: {error}"
    finally:
        host.close()
    return None
