"""What an attacker of jobs on several nodes found, and what was done about it: each attack once more."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import time
import zlib

import numpy as np
import pytest

import nbps
from nbps.testing.chaos.cluster import Cluster, eventually
from support import SCRIPTS
from support.attacked_nodes import LOST_S, ONE_AFTER_THE_OTHER

pytestmark = pytest.mark.slow


def frame(number, payload=b"", checksum=0):
    """Return a frame as nodes send them."""
    head = struct.pack("<4sHHIQQ", b"nbps", 1, 0, number, len(payload), checksum)
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def summed(payload):
    """Return the checksum that belongs to a payload."""
    from nbps.kernels import checksum

    return int(checksum.checksum(np.empty(checksum.STATE_WORDS, np.uint64), np.frombuffer(payload, np.uint8), 0))


def hello(**fields):
    """Return what a stranger says who shall be refused."""
    said = {"protocol": 1, "version": nbps.__version__, "job": "other", "nodes": 2, "rank": 1, "incarnation": 1}
    note = json.dumps({**said, "join": False, "nonce": "0" * 64, **fields}).encode()
    return frame(0, note, summed(note))


def connected(cluster, receive_bytes=None):
    """Return a connection of a stranger to the rendezvous."""
    host, port = cluster.rendezvous.split(":")
    stranger = socket.socket()
    if receive_bytes is not None:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    stranger.settimeout(60)
    stranger.connect((host, int(port)))
    return stranger


@contextlib.contextmanager
def nodes(which, *arguments, count=2):
    """Start nodes that run one of the programs of `attacked_nodes.py`; nothing of them may stay."""
    with Cluster(SCRIPTS / "attacked_nodes.py", count, [which, *map(str, arguments)]) as cluster:
        cluster.start()
        yield cluster
        eventually(lambda: not cluster.left_behind(), "all that the nodes left behind to go", 10)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Have two nodes carry out all programs that end by themselves; return what each node says of each, by name."""
    with nodes("all_that_end", tmp_path_factory.mktemp("nodes")) as cluster:
        assert cluster.wait(100) == [0, 0]
        parts = [node.output.split("== ")[1:] for node in cluster.nodes]
    by_node = [dict(part.split("\n", 1) for part in of_node) for of_node in parts]
    return {name: [of_node[name] for of_node in by_node] for name in ONE_AFTER_THE_OTHER}


def going(cluster):
    """Wait until the workers of all nodes have passed a few clocks."""
    for node in cluster.nodes:
        node.until("going")


def test_a_stranger_that_floods_does_not_keep_a_node_busy(tmp_path):
    """Frames without end after a refusal, for longer than a node may be silent, do not end the job."""
    stop = tmp_path / "stop"
    # As many as one connection can send within the second in which a refused guest may read why.
    empty = summed(b"")
    flood = b"".join(frame(n, checksum=empty) for n in range(1, 500_000))
    with nodes("steady", stop) as cluster:
        going(cluster)
        ended = time.monotonic() + 2 * LOST_S
        while time.monotonic() < ended:
            with connected(cluster) as stranger, contextlib.suppress(OSError):
                stranger.sendall(hello())
                stranger.sendall(flood)
        stop.touch()
        assert cluster.wait() == [0, 0]
        assert all("exact" in node.output for node in cluster.nodes)


def test_strangers_that_take_in_nothing_do_not_hold_up_a_node(tmp_path):
    """What they are told does not fit their windows; a node that closes a hundred of them does not wait for each."""
    stop = tmp_path / "stop"
    with nodes("steady", stop) as cluster, contextlib.ExitStack() as strangers:
        going(cluster)
        for _ in range(100):
            stranger = strangers.enter_context(connected(cluster, receive_bytes=1))
            stranger.sendall(hello(job="\N{GRINNING FACE}" * 200))
        time.sleep(2 * LOST_S)  # their time to read is over after a second
        stop.touch()
        assert cluster.wait() == [0, 0]
        assert all("exact" in node.output for node in cluster.nodes)


def test_refused_strangers_are_sent_away_though_nobody_else_comes(tmp_path):
    """They were only looked after when somebody connected."""
    stop = tmp_path / "stop"
    with nodes("steady", stop) as cluster:
        going(cluster)
        with connected(cluster) as stranger:
            stranger.sendall(hello())
            while stranger.recv(1 << 16):  # ends when the node has closed it, or after the time limit of this socket
                pass
        stop.touch()
        assert cluster.wait() == [0, 0]


def test_a_batch_may_be_longer_than_its_rows(said):
    """Of each row the larger part is sent with column numbers: the other end takes such a batch, and both end alike."""
    first, second = said["compressed"]
    assert first == second
    assert "ends with" in first


def test_an_agent_that_fails_tells_the_others_why(said):
    """They do not wait for it, though they would wait for ever for a node that is silent."""
    own, other = said["broken agent"]
    assert "MemoryError: planted" in own
    assert "NodeError: node 0 ended the job: its agent failed: MemoryError: planted" in other


def test_a_slow_disk_is_no_lost_node(said):
    """A node that waits for its disk, for longer than a node may be silent, lets the others know that it lives."""
    first, second = said["slow disk"]
    assert "exact" in first
    assert "exact" in second
    assert "slow" in second


def test_a_full_disk_of_one_node_ends_the_job_on_all(said):
    """Node 0 hears of it though it waits for parts of that node, and for room to save more."""
    first, second = said["full disk"]
    assert "CheckpointError: node 1 ended the job: planted: the disk is full" in first
    assert "CheckpointError: planted: the disk is full" in second


def test_nodes_that_save_at_other_clocks_do_not_start(said):
    """They would wait for each other's parts."""
    for words in said["other plans"]:
        assert "every 10 clocks" in words
        assert "every 11 clocks" in words
        assert "started" not in words


def test_a_job_that_was_frozen_as_a_whole_goes_on(tmp_path):
    """All processes of all nodes are stopped for longer than a node may be silent: nobody was lost."""
    stop = tmp_path / "stop"
    with nodes("steady", stop) as cluster:
        going(cluster)
        for number, pause_s in ((signal.SIGSTOP, 2 * LOST_S), (signal.SIGCONT, 0.0)):
            for node in cluster.nodes:
                assert node.send(number)
            time.sleep(pause_s)
        stop.touch()
        assert cluster.wait() == [0, 0]
        assert all("exact" in node.output for node in cluster.nodes)


def test_a_job_that_fails_on_one_node_does_not_shift_the_next(said):
    """The second job of node 1 does not meet the first one of node 0."""
    zero, one = said["sweep"]
    assert zero.splitlines() == ["first: NodeError", "the second has 20"]
    assert one.splitlines() == ["first: ZeroDivisionError", "the second has 20"]


def test_a_node_that_was_given_up_is_told_so(tmp_path):
    """Its agent was stopped for too long; the other node goes on without it, and it says what happened."""
    with nodes("given_up", tmp_path) as cluster:
        going(cluster)
        eventually(lambda: list(tmp_path.glob("*/manifest-*")), "a checkpoint")
        lost = cluster.nodes[1]
        assert lost.send(signal.SIGSTOP, "agent") == 1
        eventually(lambda: "is lost" in cluster.nodes[0].errors, "node 0 to go on")
        assert lost.send(signal.SIGCONT, "agent") == 1
        assert cluster.wait() == [0, 0]
        assert "counted 800" in cluster.nodes[0].output
        assert "NodeError: node 0" in lost.output


def test_rows_that_are_not_there_cannot_be_marked(said):
    """The marks lay beside the table's, on the board of clocks."""
    assert said["marks"] == ["refused 5\n"] * 2
