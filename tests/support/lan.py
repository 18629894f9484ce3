"""A test bed of several hosts on one machine: network namespaces on a bridge, with links that can be cut and slowed.

A namespace has no name here: it is held by a descriptor of this process and by the processes in it. When a test ends,
well or killed, the kernel takes down namespaces, devices and links by itself; there is nothing to clean up. Needs root
and ``ip``; `why_not` says what is missing.

A host has a thread that lives in its namespace: what is called there has its sockets there, and the processes it starts
live there. Hosts share everything else, also ``/dev/shm``: `Host.traffic` proves that bytes used the network.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NOWHERE = "02:00:00:00:ff:ff"  # of the bridges themselves: they have no address, and drop what is sent to them


class Traffic(NamedTuple):
    """Bytes that a host's device has received and sent."""

    received: int
    sent: int


class Host:
    """A network namespace, and a thread in it.

    Attributes
    ----------
    address : str
    device : str
        Name of the device that has this address; `traffic` counts there.
    """

    def __init__(self, address: str = "", device: str = "") -> None:
        self.address = address
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"host {address}")
        try:
            self._namespace = self._thread.submit(_enter_new_namespace).result()
        except OSError:
            self._thread.shutdown()
            raise
        # As `ip` takes it; any process of root can open it while this one lives.
        self.namespace = f"/proc/{os.getpid()}/fd/{self._namespace}"

    def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call `function` in this host; one at a time."""
        return self._thread.submit(function, *args, **kwargs).result()

    def run(self, *command: str) -> str:
        """Run `command` in this host and return its output; an error shows what it said."""
        done = self.call(subprocess.run, command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def traffic(self) -> Traffic:
        """Return what its device has counted since it was made."""
        counters = self.call(Path("/proc/thread-self/net/dev").read_text)
        (line,) = [line for line in counters.splitlines() if line.split(":")[0].strip() == self.device]
        fields = line.split(":")[1].split()
        return Traffic(int(fields[0]), int(fields[8]))

    def close(self) -> None:
        """Leave the namespace. It lives on only in processes that still run there."""
        self._thread.shutdown()
        os.close(self._namespace)


def _enter_new_namespace() -> int:
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    # IPv6 is left out: its devices talk by themselves, and a counter that stands still would prove nothing.
    setting = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if setting.exists():
        setting.write_text("1")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Network:
    """Hosts that reach each other; subclasses say how, and how that is broken.

    Attributes
    ----------
    hosts : list of Host
    """

    subnet: str
    device: str

    def __init__(self, hosts: int) -> None:
        self.hosts: list[Host] = []
        try:
            for n in range(hosts):
                self.hosts.append(Host(f"{self.subnet}.{n + 1}", self.device))
                self.hosts[-1].run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rate(self, i: int, bytes_per_s: int | None) -> None:
        """Limit what host `i` sends; None for no limit. As in a switch, the queue is short and drops what is beyond."""
        root = ["dev", self.device, "root"]
        self.hosts[i].run("tc", "qdisc", "replace", *root, "pfifo")
        if bytes_per_s is not None:
            burst = max(bytes_per_s // 100, 10_000)
            limits = ["rate", f"{bytes_per_s}bps", "burst", str(burst), "latency", "50ms"]
            self.hosts[i].run("tc", "qdisc", "replace", *root, "tbf", *limits)

    def traffic(self) -> list[Traffic]:
        """Return `Host.traffic` of all hosts."""
        return [host.traffic() for host in self.hosts]

    def partition(self, group: Collection[int]) -> None:
        """Part the hosts of `group` from the others: packets across are lost in silence; within, all goes on."""
        raise NotImplementedError

    def one_way(self, i: int, j: int) -> None:
        """Lose what host `i` sends to host `j`; the other direction stays."""
        raise NotImplementedError

    def heal(self) -> None:
        """End what `partition` and `one_way` began; connections that are still there go on."""
        raise NotImplementedError

    def close(self) -> None:
        """Take all of it down."""
        while self.hosts:
            self.hosts.pop().close()


class Lan(Network):
    """Hosts on a bridge, at the kernel's speed.

    The bridge is in a namespace of its own, so addresses and names meet nothing of this machine. A partition moves the
    group's ports to a second bridge. A one-way cut gives the sender a wrong hardware address for the receiver.
    """

    subnet = "10.99.0"
    device = "eth0"

    def __init__(self, hosts: int) -> None:
        super().__init__(hosts)
        try:
            self._switch = Host()
            for bridge in ("near", "far"):
                # Without snooping, which announces itself to all hosts.
                kind = ["type", "bridge", "mcast_snooping", "0"]
                self._switch.run("ip", "link", "add", bridge, "address", _NOWHERE, *kind)
                self._switch.run("ip", "link", "set", bridge, "up")
            for n, host in enumerate(self.hosts):
                there = ["peer", "name", "eth0", "address", _hardware(n), "netns", host.namespace]
                self._switch.run("ip", "link", "add", f"port{n}", "type", "veth", *there)
                self._switch.run("ip", "link", "set", f"port{n}", "master", "near", "up")
                host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
                host.run("ip", "link", "set", "eth0", "up")
            self.heal()
        except BaseException:
            self.close()
            raise

    def partition(self, group: Collection[int]) -> None:
        """Part the hosts of `group` from the others."""
        for n in range(len(self.hosts)):
            self._plug(n, "far" if n in group else "near")

    def one_way(self, i: int, j: int) -> None:
        """Lose what host `i` sends to host `j`."""
        self._direct(i, j, _NOWHERE)

    def heal(self) -> None:
        """Plug all hosts in, with the right addresses."""
        for n in range(len(self.hosts)):
            self._plug(n, "near")
            for other in range(len(self.hosts)):
                if other != n:
                    # Known beforehand, not asked for: a cut loses data, not questions.
                    self._direct(n, other, _hardware(other))

    def _plug(self, n: int, bridge: str) -> None:
        self._switch.run("ip", "link", "set", f"port{n}", "master", bridge)

    def _direct(self, i: int, j: int, hardware: str) -> None:
        to = ["to", self.hosts[j].address, "lladdr", hardware, "nud", "permanent", "dev", "eth0"]
        self.hosts[i].run("ip", "neighbour", "replace", *to)

    def close(self) -> None:
        """Take all of it down."""
        super().close()
        if hasattr(self, "_switch"):
            self._switch.close()
            del self._switch


def _hardware(n: int) -> str:
    return f"02:00:00:00:00:{n + 1:02x}"


@functools.cache
def why_not() -> str | None:
    """Return why there can be no test bed here; None if there can be one."""
    if shutil.which("ip") is None:
        return "no `ip` (package iproute2) on the path"
    try:
        host = Host()
    except OSError as error:
        return f"no network namespaces here (needs root): {error}"
    try:
        host.run("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
        host.run("ip", "link", "add", "near", "type", "bridge")
    except OSError as error:
        return f"no virtual devices here: {error}"
    finally:
        host.close()
    return None


@functools.cache
def why_no_rate() -> str | None:
    """Return why `Network.rate` does not work here."""
    if why_not() is not None:
        return why_not()
    if shutil.which("tc") is None:
        return "no `tc` (package iproute2) on the path"
    host = Host()
    try:
        host.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "10000", "latency", "50ms")
    except OSError as error:
        return f"the kernel has no token bucket: {error}"
    finally:
        host.close()
    return None
