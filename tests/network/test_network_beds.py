"""The test beds: hosts reach each other over their devices only, and each control does to packets what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbps.testing.chaos.cluster import Cluster, eventually
from support import SCRIPTS, lan, relay

SCRIPT = SCRIPTS / "talkers.py"
BED = SCRIPTS / "bed.py"
LIMIT_S = 60
PATIENCE_S = 0.3  # for what cannot come
PORT = 7000

needs_hosts = pytest.mark.skipif(lan.why_not() is not None, reason=str(lan.why_not()))
needs_relay = pytest.mark.skipif(relay.why_not() is not None, reason=str(relay.why_not()))
needs_rate = pytest.mark.skipif(lan.why_no_rate() is not None, reason=str(lan.why_no_rate()))


@pytest.fixture(params=[pytest.param(lan.Lan, marks=needs_hosts), pytest.param(relay.Relayed, marks=needs_relay)])
def network(request):
    with request.param(3) as network:
        yield network


@pytest.fixture
def relayed():
    with relay.Relayed(2, seed=1) as network:
        yield network


class Wire:
    """A TCP connection from host `i` to host `j`."""

    def __init__(self, network: lan.Network, i: int, j: int) -> None:
        target = (network.hosts[j].address, PORT)
        self.server = network.hosts[j].call(socket.create_server, target)
        self.server.settimeout(LIMIT_S)
        self.client = network.hosts[i].call(socket.create_connection, target, LIMIT_S)
        self.served, _ = self.server.accept()
        self.served.settimeout(LIMIT_S)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        for each in (self.server, self.client, self.served):
            each.close()

    def send(self, count: int) -> None:
        """Send so many bytes from client to server, and check them there."""
        sent = os.urandom(count)
        sender = threading.Thread(target=self.client.sendall, args=[sent])
        sender.start()
        got = receive(self.served, count)
        sender.join()
        assert got == sent

    def resent(self) -> int:
        """Segments that the client's TCP has sent again."""
        return int.from_bytes(self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100:104], sys.byteorder)


def receive(source: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (part := source.recv(count - len(got))):
        got += part
    return got


def silent(source: socket.socket) -> bool:
    """Whether nothing comes for a while."""
    source.settimeout(PATIENCE_S)
    try:
        source.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        source.settimeout(LIMIT_S)
    return False


def reaches(network: lan.Network, i: int, j: int) -> bool:
    """Whether a connection from host `i` to host `j` can be made; if not, nobody says so."""
    target = (network.hosts[j].address, PORT + 1)
    with network.hosts[j].call(socket.create_server, target):
        try:
            network.hosts[i].call(socket.create_connection, target, PATIENCE_S).close()
        except TimeoutError:
            return False
        return True


def test_bytes_go_over_the_devices_of_the_two_hosts(network):
    """The devices of sender and receiver count what was sent, and the third host's nothing; idle ones count nothing."""
    with Wire(network, 1, 0) as wire:
        before = network.traffic()
        assert network.traffic() == before
        wire.send(1_000_000)
        after = network.traffic()
    received, sent = [
        [getattr(late, way) - getattr(early, way) for early, late in zip(before, after, strict=True)]
        for way in ("received", "sent")
    ]
    assert received[0] >= 1_000_000
    assert sent[1] >= 1_000_000
    assert max(received[2], sent[2]) == 0
    assert max(received[1], sent[0]) < 1_000_000


def test_hosts_are_apart_from_this_machine(network):
    """What listens in a host is not reached from here, and the other way round; loopback is each host's own."""
    here = socket.create_server(("127.0.0.1", 0))
    address = here.getsockname()
    with here, network.hosts[0].call(socket.create_server, address), pytest.raises(ConnectionRefusedError):
        network.hosts[1].call(socket.create_connection, address, LIMIT_S)
    assert network.hosts[0].address not in subprocess.check_output(["ip", "address"], text=True)


def test_a_partition_parts_a_group_and_heals(network):
    """Across, nobody connects and bytes are silent; within, all goes on; then what was sent arrives, once."""
    with Wire(network, 1, 0) as across:
        network.partition({1})
        across.client.sendall(b"to the other side")
        across.served.sendall(b"and back")
        assert silent(across.served)
        assert silent(across.client)
        assert [reaches(network, i, j) for i, j in ((1, 0), (0, 1), (2, 1), (2, 0), (0, 2))] == [
            False, False, False, True, True,
        ]  # fmt: skip
        network.heal()
        assert receive(across.served, 17) == b"to the other side"
        assert receive(across.client, 8) == b"and back"
        assert silent(across.served)
        across.send(100_000)
    assert reaches(network, 0, 1)


def test_a_partition_of_two_leaves_them_together(network):
    """Hosts on the far side still reach each other."""
    network.partition({1, 2})
    assert reaches(network, 1, 2)
    assert not reaches(network, 0, 1)


def test_a_one_way_cut_loses_one_direction(network):
    """Host 0 hears nothing of host 1, which still hears host 0; the third host reaches both."""
    with Wire(network, 1, 0) as wire:
        network.one_way(1, 0)
        wire.client.sendall(b"lost for now")
        wire.served.sendall(b"heard")
        assert receive(wire.client, 5) == b"heard"
        assert silent(wire.served)
        assert not reaches(network, 1, 0)
        assert [reaches(network, i, j) for i, j in ((2, 0), (2, 1), (0, 2), (1, 2))] == [True] * 4
        network.heal()
        assert receive(wire.served, 12) == b"lost for now"


@needs_rate
def test_a_rate_slows_what_a_host_sends(network):
    """The bucket counts packets that had to wait, and bytes take the time that the rate gives them."""
    with Wire(network, 1, 0) as wire:
        network.rate(1, 1_000_000)
        begun = time.monotonic()
        wire.send(300_000)
        assert time.monotonic() - begun >= 0.25
        told = network.hosts[1].run("tc", "-s", "qdisc", "show", "dev", network.device)
        assert "overlimits" in told
        assert "overlimits 0" not in told
        network.rate(1, None)
        assert "tbf" not in network.hosts[1].run("tc", "qdisc", "show", "dev", network.device)
        wire.send(5_000_000)


@needs_relay
def test_packets_take_the_delay_that_is_asked_for(relayed):
    """A round trip takes both directions' delay at least."""
    with Wire(relayed, 1, 0) as wire:
        relayed.set(delay_s=0.1)
        begun = time.monotonic()
        wire.client.sendall(b"x")
        assert receive(wire.served, 1) == b"x"
        wire.served.sendall(b"y")
        assert receive(wire.client, 1) == b"y"
        assert time.monotonic() - begun >= 0.2


@needs_relay
def test_lost_and_swapped_packets_are_repaired_by_tcp(relayed):
    """The relay counts packets that it lost, TCP those that it sent again, and every byte arrives in its place."""
    with Wire(relayed, 1, 0) as wire:
        assert wire.resent() == 0
        relayed.set(loss=0.02, delay_s=0.0005, jitter_s=0.002)
        wire.send(2_000_000)
        path = relayed.paths[1, 0]
        assert path.lost > 0
        assert path.passed >= 2_000_000 // 1500
        assert wire.resent() >= path.lost


@needs_relay
def test_the_seed_says_which_packets_are_lost():
    """The same packets of a path are lost with the same seed, others with another; no two paths are alike."""

    def lost(seed: int, i: int) -> list[int]:
        j = 1 - i
        with relay.Relayed(2, seed) as network:
            network.set(loss=0.3)
            target = (network.hosts[j].address, PORT)
            with (
                network.hosts[j].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
                network.hosts[i].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender,
            ):
                receiver.bind(target)
                for n in range(200):
                    sender.sendto(bytes([n]), target)
                path = network.paths[i, j]
                eventually(lambda: path.passed + path.lost == 200, "the relay to see all packets")
                arrived = {receiver.recv(1)[0] for _ in range(path.passed)}
        return sorted(set(range(200)) - arrived)

    assert lost(1, 0) == lost(1, 0) != []
    assert lost(1, 0) != lost(2, 0)
    assert lost(1, 0) != lost(1, 1)


def test_nodes_of_a_cluster_run_in_hosts(network):
    """Three nodes, one in each host, find each other at the rendezvous there; the devices count what they sent."""
    before = network.traffic()
    rendezvous = f"{network.hosts[0].address}:{PORT}"
    with Cluster(SCRIPT, 3, ["talk", "200000"], rendezvous=rendezvous, hosts=network.hosts) as cluster:
        cluster.start()
        assert cluster.wait() == [0, 0, 0]
        assert cluster.nodes[0].output == "listening\ncame [1, 2]\n"
    for early, late in zip(before, network.traffic(), strict=True):
        assert min(late.received - early.received, late.sent - early.sent) >= 200_000


@needs_hosts
def test_a_bed_whose_test_is_killed_is_taken_down_by_the_kernel():
    """After kill -9 of the test its nodes are killed too, and no process holds a namespace of its hosts."""
    with subprocess.Popen([sys.executable, BED, SCRIPT], stdout=subprocess.PIPE, text=True) as bed:
        *namespaces, one, other = bed.stdout.readline().split()
        assert len(holders(namespaces)) >= 2
        bed.send_signal(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{one}").exists() and not Path(f"/proc/{other}").exists(), "the nodes to end")
    eventually(lambda: holders(namespaces) == [], "the namespaces to be left")


def holders(namespaces: list[str]) -> list[str]:
    """Return the processes in these network namespaces, or with a descriptor of one."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                links = [folder / "ns" / "net", *(folder / "fd").iterdir()]
            except OSError:
                continue
            found += [str(link) for link in links if target(link) in namespaces]
    return found


def target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    """Without `ip` on the path the beds say so, for the reason of a skipped test."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (lan.why_not, relay.why_not, lan.why_no_rate):
        ask.cache_clear()
    try:
        assert lan.why_not() == relay.why_not() == lan.why_no_rate() == "no `ip` (package iproute2) on the path"
    finally:
        for ask in (lan.why_not, relay.why_not, lan.why_no_rate):
            ask.cache_clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_is_told():
    """A user without rights gets a reason, no error."""
    script = "import os; from support import lan; os.setuid(65534); print(lan.why_not())"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "needs root" in told.stdout
