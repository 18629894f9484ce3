"""What an attacker of jobs on several nodes found, and what was done about it: each attack once more.

The file is also the program that the nodes run: ``test_nodes_attack.py <which> [arguments]``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np

import nbps
from nbps.errors import NodeError, TableError
from nbps.testing.chaos.cluster import Cluster, eventually

RANK = int(os.environ.get("NBPS_NODE_RANK", "0"))
LOST_S = 2.0  # failure_timeout_s of these jobs
ROWS = 300


# --------------------------------------------------------------------------- what the nodes do


def say(*words):
    """Write a line at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def count(worker, clocks, stop=""):
    """Add 1 in each clock, at least `clocks` of them, until file `stop` is there; return how many."""
    table = worker.table("t")
    while worker.current_clock < clocks or (stop and not Path(stop).exists()):
        table.inc(worker.rank, 1)
        worker.clock()
        if worker.current_clock == 5:
            say("going")
        time.sleep(0.001)
    return worker.current_clock


def job(**options):
    """Return a job that counts and notices lost nodes soon."""
    return nbps.Job([nbps.Table("t", 4, 1, dtype="int64")], workers=1, failure_timeout_s=LOST_S, **options)


def exact(running, clocks):
    """Say whether this node's table has what its own worker has added, to the bit."""
    say("exact" if running.table("t").to_numpy()[RANK, 0] == clocks else running.table("t").to_numpy().tolist())


def steady(stop):
    """Count until told to stop."""
    with job() as running:
        [clocks] = running.run(count, 10, stop)
        exact(running, clocks)


def compressed():
    """Send the larger part of all rows to a node that owns them: a batch is longer than the rows themselves."""
    tables = [nbps.Table("t", ROWS, 32, compress=0.9, sharding=[ROWS]), nbps.Table("few", 4, 1, dtype="int64")]

    def learn(worker):
        random = np.random.default_rng(worker.rank)
        for _ in range(5):
            worker.table("t").inc(range(ROWS), random.normal(size=(ROWS, 32)).astype("float32"))
            worker.clock()

    with nbps.Job(tables, workers=1, failure_timeout_s=LOST_S) as running:
        running.run(learn)
        say("ends with", zlib.crc32(running.table("t").to_numpy().tobytes()))


def broken_agent():
    """Have the agent of node 0 fail after a while."""

    def plant():
        from nbps.agent import memory

        apply, calls = memory.NodeMemory.apply, itertools.count()

        def fail(*arguments):
            if next(calls) > 20:
                raise MemoryError("planted")
            apply(*arguments)

        if RANK == 0:
            memory.NodeMemory.apply = fail

    try:
        # It would wait for ever for a node that does not say why it went.
        with job(preload=plant, on_failure="wait") as running:
            running.run(count, 10**9)
    except Exception as error:
        say(f"{type(error).__name__}: {error}")


def slow_disk(path):
    """Save more often than the disk of node 1 can write, which takes longer than a node may be silent."""

    def plant():
        from nbps.checkpoint import writer as checkpoint

        write = checkpoint.CheckpointWriter.write

        def wait(*arguments):
            say("slow")
            time.sleep(1.5 * LOST_S)
            write(*arguments)

        if RANK == 1:
            checkpoint.CheckpointWriter.write = wait

    with job(preload=plant, checkpoints=nbps.Checkpoints(path, every=10)) as running:
        [clocks] = running.run(count, 45)
        exact(running, clocks)


def full_disk(path):
    """Save more often than node 0 gets the parts of node 1, whose disk is full."""

    def plant():
        from nbps.checkpoint import writer as checkpoint
        from nbps.errors import CheckpointError

        def fail(*arguments):
            time.sleep(0.5)  # by now node 0 waits as well
            raise CheckpointError("planted: the disk is full")

        if RANK == 1:
            checkpoint.CheckpointWriter.write = fail

    with job(preload=plant, checkpoints=nbps.Checkpoints(path, every=1)) as running:
        try:
            running.run(count, 10**9)
        except NodeError as error:
            say(f"NodeError: {error}")


def other_plans(path):
    """Save at other clocks on each node."""
    try:
        with job(checkpoints=nbps.Checkpoints(path, every=10 + RANK)):
            say("started")
    except NodeError as error:
        say(error)


def sweep():
    """Try two settings, of which the first fails on node 1 before the nodes have met."""

    def fill(values, random):
        if RANK == 1:
            raise ZeroDivisionError("planted")

    def which(worker, name):
        worker.table("t").inc(0, len(name))
        worker.clock()

    for name, init, patience_s in (("first", fill, 4.0), ("the second", 0.0, 60.0)):
        table = nbps.Table("t", 2, 1, dtype="int64", init=init)
        try:
            with nbps.Job([table], workers=1, start_timeout_s=patience_s) as running:
                running.run(which, name)
                say(name, "has", int(running.table("t").to_numpy()[0, 0]))
        except (NodeError, ZeroDivisionError) as error:
            say(f"{name}: {type(error).__name__}")


def given_up(path):
    """Go on from checkpoints without a lost node."""
    with (
        contextlib.suppress(NodeError),
        job(on_failure="continue", checkpoints=nbps.Checkpoints(path, every=10)) as running,
    ):
        try:
            say("counted", *running.run(count, 3000))
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
            raise


def marks():
    """Mark rows that are not there."""

    def try_all(worker):
        refused = 0
        for first, last in ((0, 10_000_000), (-1, 2), (3, 2), (0, 5), (0, 2.5)):
            try:
                worker.table("t").mark(first, last)
            except TableError:
                refused += 1
        worker.table("t").mark(0, 4)
        worker.clock()
        return refused

    with job() as running:
        say("refused", *running.run(try_all))


# --------------------------------------------------------------------------- what is done to them


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
    """Start nodes that run one of the programs above; nothing of them may stay."""
    with Cluster(Path(__file__), count, [which, *map(str, arguments)]) as cluster:
        cluster.start()
        yield cluster
        eventually(lambda: not cluster.left_behind(), "all that the nodes left behind to go", 10)


def outputs(which, *arguments, count=2):
    """Return what each node says of one of the programs above, which ends by itself."""
    with nodes(which, *arguments, count=count) as cluster:
        assert cluster.wait() == [0] * count
        return [node.output for node in cluster.nodes]


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


def test_a_batch_may_be_longer_than_its_rows():
    """Of each row the larger part is sent with column numbers: the other end takes such a batch, and both end alike."""
    first, second = outputs("compressed")
    assert first == second
    assert "ends with" in first


def test_an_agent_that_fails_tells_the_others_why():
    """They do not wait for it, though they would wait for ever for a node that is silent."""
    own, other = outputs("broken_agent")
    assert "MemoryError: planted" in own
    assert "NodeError: node 0 ended the job: its agent failed: MemoryError: planted" in other


def test_a_slow_disk_is_no_lost_node(tmp_path):
    """A node that waits for its disk, for longer than a node may be silent, lets the others know that it lives."""
    first, second = outputs("slow_disk", tmp_path)
    assert "exact" in first
    assert "exact" in second
    assert "slow" in second


def test_a_full_disk_of_one_node_ends_the_job_on_all(tmp_path):
    """Node 0 hears of it though it waits for parts of that node, and for room to save more."""
    first, second = outputs("full_disk", tmp_path)
    assert "NodeError: node 1 ended the job: CheckpointError: planted: the disk is full" in first
    assert "NodeError: CheckpointError: planted: the disk is full" in second


def test_nodes_that_save_at_other_clocks_do_not_start(tmp_path):
    """They would wait for each other's parts."""
    for said in outputs("other_plans", tmp_path):
        assert "every 10 clocks" in said
        assert "every 11 clocks" in said
        assert "started" not in said


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


def test_a_job_that_fails_on_one_node_does_not_shift_the_next():
    """The second job of node 1 does not meet the first one of node 0."""
    zero, one = outputs("sweep")
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
        assert "counted 3000" in cluster.nodes[0].output
        assert "NodeError: node 0" in lost.output


def test_rows_that_are_not_there_cannot_be_marked():
    """The marks lay beside the table's, on the board of clocks."""
    assert outputs("marks") == ["refused 5\n"] * 2


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
