"""Jobs between hosts: what a network does to packets changes neither sums nor promises, and who is lost is named.

The nodes of a test bed are started once (`network_programs.py`), and carry out the jobs that tests order. They share
folders, as machines do that have one mounted; everything else they tell each other over their devices.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from nbps.checkpoint.load import latest
from nbps.errors import CheckpointError
from nbps.testing.chaos.cluster import Cluster, eventually
from nbps.testing.chaos.workers import read_journals
from nbps.testing.consistency.history import Passed, Read, check
from nbps.testing.consistency.probe import history_of
from support import SCRIPTS, lan, network_programs, relay

pytestmark = pytest.mark.slow

SCRIPT = SCRIPTS / "network_programs.py"
NODES = network_programs.NODES
LIMIT_S = 100
STILL_S = 0.3  # nothing happens for so long: workers wait
PROGRESS = 10  # clocks

needs_hosts = pytest.mark.skipif(lan.why_not() is not None, reason=str(lan.why_not()))
needs_rate = pytest.mark.skipif(lan.why_no_rate() is not None, reason=str(lan.why_no_rate()))
needs_relay = pytest.mark.skipif(relay.why_not() is not None, reason=str(relay.why_not()))


class Nodes:
    """Nodes on the hosts of a network, one on each, which carry out jobs."""

    def __init__(self, network: lan.Network) -> None:
        self.network = network
        self._folder = tempfile.TemporaryDirectory(prefix="nbps-network-")
        self._orders = 0
        rendezvous = f"{network.hosts[0].address}:29500"
        self.cluster = Cluster(SCRIPT, NODES, [self._folder.name], hosts=network.hosts, rendezvous=rendezvous)
        self.nodes = self.cluster.nodes

    def __enter__(self) -> Nodes:
        self.cluster.start()
        return self

    def __exit__(self, *_) -> None:
        self.cluster.close()
        self._folder.cleanup()

    def order(self, name: str) -> Job:
        """Have all nodes begin a job."""
        job = Job(self, name, Path(self._folder.name) / f"job-{self._orders}")
        job.folder.mkdir()
        self._give(name)
        return job

    def end(self) -> None:
        """Have the nodes end; nothing is left of them."""
        self._give("")
        assert self.cluster.wait() == [0] * NODES
        eventually(lambda: not self.cluster.left_behind(), "all that the nodes left behind to go")

    def _give(self, order: str) -> None:
        part = Path(self._folder.name) / "part"
        part.write_text(order)
        part.rename(part.with_name(str(self._orders)))
        self._orders += 1


class Job:
    """A job that nodes carry out."""

    def __init__(self, nodes: Nodes, name: str, folder: Path) -> None:
        self._nodes = nodes
        self._case = network_programs.JOBS[name]
        self._output = [len(node.output) for node in nodes.nodes]
        self._errors = [len(node.errors) for node in nodes.nodes]
        self.folder = folder

    def output(self, rank: int) -> str:
        """Return what a node has said since the job was ordered."""
        return self._nodes.nodes[rank].output[self._output[rank] :]

    def errors(self, rank: int) -> str:
        """Return what it has written to standard error."""
        return self._nodes.nodes[rank].errors[self._errors[rank] :]

    def has_ended(self, rank: int) -> bool:
        """Return whether node `rank` has ended the job."""
        return self.output(rank).endswith("}\n")

    def end(self) -> list[dict]:
        """Wait until the job has ended; return what the nodes say of it."""
        for rank in range(NODES):
            self.wait(lambda rank=rank: self.has_ended(rank), f"node {rank} to end its job")
        return [json.loads(self.output(rank)) for rank in range(NODES)]

    def wait(self, condition, what: str) -> None:
        """Wait, but not for nodes that have ended."""

        def holds() -> bool:
            found = condition()
            gone = "\n".join(node.story() for node in self._nodes.nodes if node.returncode is not None)
            assert found or not gone, f"nodes have ended, while waiting for {what}:\n{gone}"
            return found

        eventually(holds, what, LIMIT_S)

    def enough(self) -> None:
        """End programs that go on until it is enough."""
        (self.folder / "enough").touch()

    def counted(self, workers: int, clocks: int) -> bool:
        """Return whether all workers, so many now, have counted so many clocks."""
        paths = [self.folder / f"clock-{rank}-of-{workers}" for rank in range(workers)]
        return all(path.exists() and int(path.read_text() or 0) >= clocks for path in paths)

    def has_checkpoint(self) -> bool:
        """Return whether there is one that is complete."""
        try:
            latest(self.folder / "checkpoints")
        except CheckpointError:
            return False
        return True

    # --- the probe

    def entries(self):
        """Return what the probes have recorded so far."""
        return [entry for folder in sorted(self.folder.glob("journal-*")) for entry in read_journals(folder)]

    def clocks(self) -> dict[int, int]:
        """Return the clock into which each worker was let last."""
        return {entry.worker: entry.clock for entry in self.entries() if isinstance(entry, Passed)}

    def goes_on(self) -> None:
        """Wait until every worker has come some clocks further."""
        begun = self.clocks()

        def further() -> bool:
            now = self.clocks()
            return len(now) == NODES and all(now[n] >= begun.get(n, 0) + PROGRESS for n in now)

        self.wait(further, "all workers to go on")

    def stands_still(self) -> None:
        """Wait until no worker goes on any more."""

        def still() -> bool:
            before = self._written()
            time.sleep(STILL_S)
            return self._written() == before

        self.wait(still, "all workers to wait")

    def _written(self) -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_size) for path in self.folder.glob("journal-*/*"))

    def tables(self) -> list[dict[str, np.ndarray]]:
        """Return the rows at the end, of every node that came to it."""
        return [dict(np.load(path)) for path in sorted(self.folder.glob("end-*.npz"))]

    def judge(self) -> None:
        """Look for additions that were lost or doubled, and other broken promises."""
        first, *others = self.tables()
        assert len(others) == NODES - 1
        for other in others:
            for name, rows in first.items():
                np.testing.assert_array_equal(other[name], rows)
        entries = self.entries()
        assert sum(isinstance(entry, Read) for entry in entries) > 200
        found = check(history_of(entries, first, NODES * self._case.workers, self._case.model, self._case.tables))
        shown = "\n".join(f"{each.property}: {each.message}" for each in found[:10])
        assert found == [], f"{len(found)} violations\n{shown}"


@pytest.fixture(scope="module")
def lan_nodes():
    with lan.Lan(NODES) as network, Nodes(network) as nodes:
        yield nodes
        nodes.end()


@pytest.fixture(scope="module")
def relayed_nodes():
    with relay.Relayed(NODES, seed=1) as network, Nodes(network) as nodes:
        yield nodes
        nodes.end()


@pytest.fixture
def nodes(lan_nodes):
    """Three nodes on a network that is whole at the end."""
    yield lan_nodes
    lan_nodes.network.heal()


def no_errors(ends: list[dict]) -> None:
    assert [end["error"] for end in ends] == [None] * NODES


@needs_hosts
@pytest.mark.parametrize("model", ["ESSP", "SSP"])
def test_promises_hold_between_hosts_and_the_bytes_use_their_devices(nodes, model):
    """Sums are exact and every read is as promised; devices have counted the bytes that nodes report, or more."""
    before = nodes.network.traffic()
    job = nodes.order(f"probe {model}")
    ends = job.end()
    after = nodes.network.traffic()
    no_errors(ends)
    job.judge()
    for end, early, late in zip(ends, before, after, strict=True):
        assert end["traffic"]["bytes_sent"] > 10_000
        assert late.sent - early.sent >= end["traffic"]["bytes_sent"]
        assert late.received - early.received >= end["traffic"]["bytes_received"]


@needs_hosts
def test_what_a_healed_network_has_lost_arrives(nodes):
    """A node is cut off in the middle of a run, then only what it sends to another: both heal, and nothing is wrong."""
    job = nodes.order("healed")
    job.goes_on()
    nodes.network.partition([2])
    job.stands_still()
    before = nodes.network.traffic()[2].received
    time.sleep(STILL_S)
    assert nodes.network.traffic()[2].received == before
    nodes.network.heal()
    job.goes_on()
    nodes.network.one_way(2, 0)
    job.stands_still()
    nodes.network.heal()
    job.goes_on()
    job.enough()
    no_errors(job.end())
    job.judge()


@needs_hosts
def test_a_node_that_is_cut_off_for_long_is_waited_for(nodes):
    """Under ``wait`` all say for whom they wait, and go on when the network is back: nothing is wrong at the end."""
    job = nodes.order("wait")
    job.goes_on()
    nodes.network.partition([2])
    for rank, missing in ((0, "node 2"), (1, "node 2"), (2, "node 0"), (2, "node 1")):
        said = f"{missing} was not heard for 1 s; waiting for it"
        job.wait(lambda rank=rank, said=said: said in job.errors(rank), f"node {rank} to say that {said}")
    job.stands_still()
    nodes.network.heal()
    job.goes_on()
    job.enough()
    no_errors(job.end())
    job.judge()


@needs_hosts
def test_a_node_that_is_cut_off_for_long_is_named(nodes):
    """Under ``fail`` the job ends on all nodes, with who was lost: for the node that was cut off, one of the others."""
    job = nodes.order("fail")
    job.goes_on()
    nodes.network.partition([2])
    first, second, cut_off = [end["error"] for end in job.end()]
    for error in (first, second):
        assert error.startswith("NodeError: ")
        assert "node 2 was not heard for" in error
    assert cut_off.startswith("NodeError: ")
    assert "node 0 was not heard for" in cut_off or "node 1 was not heard for" in cut_off


@needs_hosts
@pytest.mark.parametrize("lost", [2, 0])
def test_the_others_go_on_without_a_node_that_is_cut_off(nodes, lost):
    """Under ``continue`` two nodes go on from the last checkpoint; the third ends with the reason, healed or not.

    Every clock of every worker counts exactly once: those before the checkpoint of all three, then those of two.
    """
    left = [rank for rank in range(NODES) if rank != lost]
    job = nodes.order("continue")
    job.wait(job.has_checkpoint, "a checkpoint")
    job.wait(lambda: job.counted(NODES, PROGRESS), "all workers to go on")
    nodes.network.partition([lost])
    for rank in left:
        said = f"node {lost} is lost; 2 nodes go on from clock"
        job.wait(lambda rank=rank, said=said: said in job.errors(rank), f"node {rank} to say that {said}")
    job.wait(lambda: job.counted(NODES - 1, PROGRESS), "two workers to go on")
    nodes.network.heal()
    job.enough()
    ends = job.end()
    assert "was not heard for" in ends[lost]["error"]
    assert [ends[rank]["error"] for rank in left] == [None, None]
    assert len({ends[rank]["resumed"] for rank in left}) == 1
    begun = ends[left[0]]["resumed"]
    expected = np.zeros((network_programs.CYCLE, NODES), np.int64)
    for rank in range(NODES):
        np.add.at(expected, (np.arange(begun) % network_programs.CYCLE, rank), 1)
    for new, rank in enumerate(left):
        (clocks,) = ends[rank]["results"][0]
        assert clocks > begun > 0
        np.add.at(expected, (np.arange(begun, clocks) % network_programs.CYCLE, new), 1)
    one, other = job.tables()
    np.testing.assert_array_equal(one["counted"], expected)
    np.testing.assert_array_equal(other["counted"], expected)


@needs_rate
@pytest.mark.parametrize(("model", "rate"), [("ESSP", 2_000_000), ("ASP", 4_000_000)])
def test_a_slow_network_slows_a_job_and_nothing_grows(nodes, model, rate):
    """Links too slow for a table all of whose rows change in every clock: sums are exact, agents do not grow with time.

    Under ASP workers wait for nobody and are done long before their additions are sent: these go together.
    """
    case = network_programs.JOBS[f"bulk {model}"]
    clocks, table_bytes = case.programs[0].keywords["clocks"], case.tables[0].rows * case.tables[0].width * 8
    before = nodes.network.traffic()
    for n in range(NODES):
        nodes.network.rate(n, rate)
    job = nodes.order(f"bulk {model}")
    sizes: list[list[int]] = [[] for _ in range(NODES)]
    while not all(job.has_ended(rank) for rank in range(NODES)):
        for node, seen in zip(nodes.nodes, sizes, strict=True):
            seen += [size for pid in node.pids("agent") if (size := private_bytes(pid))]
        time.sleep(0.05)
    for n in range(NODES):
        nodes.network.rate(n, None)
    ends = job.end()
    no_errors(ends)
    for rows in job.tables():
        assert np.all(rows["bulk"] == clocks * sum(range(1, NODES + 1)))
    for end, early, late in zip(ends, before, nodes.network.traffic(), strict=True):
        assert late.sent - early.sent >= end["traffic"]["bytes_sent"] > table_bytes
        if model == "ASP":  # four thirds of a table for each clock would have to be sent if they did not go together
            assert end["traffic"]["bytes_sent"] < clocks * table_bytes / 2
    for seen in sizes:
        assert max(seen) - min(seen) < 80 * table_bytes


def private_bytes(pid: int) -> int:
    """Memory of a process that is no file's and not shared; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


@needs_relay
def test_promises_hold_on_a_network_that_delays_and_loses(relayed_nodes):
    """1 to 5 ms of delay, so that packets overtake each other, and 2 of 100 lost: no sum and no read is wrong."""
    network = relayed_nodes.network
    network.set(delay_s=0.001, jitter_s=0.004, loss=0.02)
    job = relayed_nodes.order("probe ESSP")
    no_errors(job.end())
    job.judge()
    assert sum(path.lost for path in network.paths.values()) > 0


@needs_relay
def test_bsp_has_the_same_bits_whatever_a_network_does(relayed_nodes):
    """Two runs on a network that delays and loses read the same bits in every clock, and end with the same."""
    relayed_nodes.network.set(delay_s=0.001, jitter_s=0.004, loss=0.02)
    job = relayed_nodes.order("learn")
    ends = job.end()
    no_errors(ends)
    for end in ends:
        first, again = end["results"]
        assert first == again
    assert len({rows[which].tobytes() for rows in job.tables() for which in ("first", "again")}) == 1


@needs_hosts
def test_hosts_want_a_secret(nodes):
    """A job that other machines can reach does not begin without a secret: the message says how to have one."""
    for end in nodes.order("no secret").end():
        assert end["error"].startswith(
            "ConfigError: NBPS_RENDEZVOUS is '10.99.0.1:29500', which other machines can reach"
        )
        assert "set NBPS_SECRET" in end["error"]


@needs_hosts
def test_different_secrets_are_told_on_both_sides(nodes):
    """A node with another secret does not get in; it is told why, and so is who waits for it."""
    inside, other, waiting = [end["error"] for end in nodes.order("other secrets").end()]
    for error in (inside, other):
        assert "the secrets differ: give all nodes of a job the same NBPS_SECRET" in error
    assert "node 1" in waiting
