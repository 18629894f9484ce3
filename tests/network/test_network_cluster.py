"""Nodes as processes: started on their hosts, watched, found with all they start, stopped, killed, restarted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbps.memory.segments import FOLDER
from nbps.testing.chaos.cluster import Cluster, eventually
from nbps.testing.transport.proxy import ChaosProxy
from nbps.transport.addresses import free_address
from support import SCRIPTS
from support.mounts import disk, mounted

SCRIPT = SCRIPTS / "talkers.py"


def state(pid: int) -> str:
    """One letter as in ``ps``; Z if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_nodes_find_each_other_and_say_how_they_ended():
    """Three nodes know number, rank and rendezvous, talk, and end with 0; their outputs are kept apart, and stay."""
    with Cluster(SCRIPT, 3, ["talk", "1000"]) as cluster:
        cluster.start()
        assert cluster.wait() == [0, 0, 0]
        assert cluster.left_behind() == []
    assert [node.output for node in cluster.nodes] == ["listening\ncame [1, 2]\n", "back 1000\n", "back 1000\n"]
    assert [node.errors for node in cluster.nodes] == ["", "", ""]


def test_a_proxy_stands_between_a_node_and_the_rendezvous():
    """Node 2 is given the proxy's address: exactly its bytes pass there, both ways."""
    rendezvous = free_address()
    with (
        ChaosProxy(rendezvous) as proxy,
        Cluster(SCRIPT, 3, ["talk", "100000"], rendezvous=rendezvous, seen_from={2: proxy.address}) as cluster,
    ):
        cluster.start(0)
        cluster.nodes[0].until("listening")
        cluster.start(1, 2)
        assert cluster.wait() == [0, 0, 0]
        assert (proxy.accepted, proxy.bytes_up, proxy.bytes_down) == (1, 100_001, 100_000)


def test_environment_says_transport_secret_and_job(tmp_path):
    """Every node has the same secret and job, of this cluster alone; variables of the caller win."""
    script = tmp_path / "say.py"
    script.write_text(
        "import os; print(*[os.environ.get(f'NBPS_{what}') for what in ('TRANSPORT', 'SECRET', 'JOB', 'OTHER')])"
    )
    said = []
    for _ in range(2):
        with Cluster(script, 2, transport="shm", environment={"NBPS_OTHER": "mine"}) as cluster:
            cluster.start()
            assert cluster.wait() == [0, 0]
            one, other = [node.output for node in cluster.nodes]
            assert one == other
            said.append(one.split())
    assert [(words[0], words[3]) for words in said] == [("shm", "mine")] * 2
    assert said[0][1] != said[1][1]
    assert said[0][2] != said[1][2]


def test_a_node_that_ends_too_early_is_told_with_its_words():
    """Waiting for a word of a node that has ended gives its exit code and all that it said."""
    with Cluster(SCRIPT, 1, ["fail"]) as cluster:
        cluster.start()
        with pytest.raises(ChildProcessError, match=r"(?s)before it said 'never'.*exit code 1.*about to.*as told"):
            cluster.nodes[0].until("never")
        cluster.nodes[0].until("about to")
        assert cluster.wait() == [1]


def test_a_node_that_hangs_is_told_with_its_tracebacks():
    """A wait that takes too long names the processes of the node, and where their Python code was."""
    with Cluster(SCRIPT, 1, ["orphan"]) as cluster:
        cluster.start()
        cluster.nodes[0].until("orphan")
        with pytest.raises(TimeoutError, match=r"(?s)0.1 s for node 0 to end; it had.*'driver \d+'.*line \d+ in main"):
            cluster.wait(timeout_s=0.1)
        assert cluster.nodes[0].returncode == -signal.SIGABRT


def test_an_error_in_the_test_shows_what_the_nodes_said():
    """An exception that leaves the cluster has their outputs as a note."""
    with pytest.raises(KeyError) as caught, Cluster(SCRIPT, 1, ["fail"]) as cluster:  # noqa: PT012
        cluster.start()
        cluster.wait()
        raise KeyError
    assert "about to" in caught.value.__notes__[0]


def test_what_outlives_its_parent_still_belongs_to_the_node():
    """An orphan that ignores signals is found, told as left behind, and gone after the cluster is closed."""
    with Cluster(SCRIPT, 2, ["family"]) as cluster:
        cluster.start(1)
        cluster.nodes[1].until("orphan")
        assert cluster.nodes[1].wait() == 0
        (orphan,) = cluster.nodes[1].pids()
        assert cluster.nodes[0].pids() == []
        assert cluster.left_behind() == [f"node 1: other {orphan}"]
    assert state(orphan) == "Z"


def test_members_of_a_real_job_have_roles():
    """Driver, supervisor and workers of a job are told apart; a stopped worker stops, a killed one ends the job."""
    with Cluster(SCRIPT, 1, ["job"]) as cluster:
        node = cluster.nodes[0]
        cluster.start()
        node.until("worker 0")
        node.until("worker 1")
        (supervisor,) = node.pids("supervisor")
        said = {int(line.split()[2]) for line in node.output.splitlines()}
        assert set(node.pids("worker")) == said
        assert {process.parent for process in node.processes("worker")} == {supervisor}
        assert node.pids("driver") == [node.pid]
        (server,) = node.processes("forkserver")
        assert [each.parent for each in node.processes("supervisor")] == [server.pid]
        assert server.parent == node.pid
        victim = node.pids("worker")[0]
        assert node.send_to(victim, signal.SIGSTOP)
        eventually(lambda: state(victim) == "T", "the worker to stop")
        assert node.send(signal.SIGKILL, "worker") == 2
        assert node.wait() == 1
        assert "WorkerDiedError" in node.errors
        eventually(lambda: cluster.left_behind() == [], "all of the node to end")


def test_the_agents_of_nodes_have_a_role():
    """Each node of a job of two has one agent, which says so itself."""
    with Cluster(SCRIPT, 2, ["job"]) as cluster:
        cluster.start()
        for node in cluster.nodes:
            node.until("worker")
        for node in cluster.nodes:
            roles = [process.role for process in node.processes()]
            names = ("driver", "forkserver", "supervisor", "worker", "agent")
            assert [roles.count(role) for role in names] == [1, 1, 1, 2, 1]


_KILLED = """
import sys
from nbps.memory.segments import find_segments
from nbps.testing.chaos.cluster import Cluster
with Cluster(sys.argv[1], 1, ["job"]) as cluster:
    node = cluster.nodes[0]
    cluster.start()
    node.until("worker 1")
    roles = {process.role for process in node.processes()}
    node.kill()
    print(node.returncode, sorted(roles), node.pids())
    print(sorted(what.rpartition("_")[2] for what in cluster.left_behind()))
    print({found.pid for found in find_segments()} == {node.pid})
print(find_segments())
"""


def test_a_node_killed_whole_leaves_only_its_segments():
    """All processes end at once, so nobody could clean up; closing the cluster removes the segments."""
    # In a /dev/shm of its own: elsewhere another job of the machine may remove them first.
    command = [*mounted(disk(FOLDER, "size=100m")), sys.executable, "-c", _KILLED, SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        ["-9 ['driver', 'forkserver', 'supervisor', 'worker'] []", "['board', 'claims', 't']", "True", "[]"],
    )


def test_a_node_can_be_started_again(tmp_path):
    """A killed node starts anew in its place, with its output added; one that runs cannot be started."""
    with Cluster(SCRIPT, 1, ["once more", str(tmp_path / "seen")]) as cluster:
        node = cluster.nodes[0]
        cluster.start()
        node.until("first")
        with pytest.raises(ValueError, match="runs already"):
            node.start()
        node.kill()
        node.start()
        assert node.wait() == 0
        assert node.output == "first\nsecond\n"


def test_signals_reach_nobody_else():
    """A pid that is not the node's gets no signal: neither this process's nor one that has ended."""
    with Cluster(SCRIPT, 2, ["orphan"]) as cluster:
        cluster.start()
        for node in cluster.nodes:
            node.until("orphan")
        first, second = cluster.nodes
        assert not first.send_to(second.pid, signal.SIGKILL)
        assert second.returncode is None
        gone = first.pid
        first.kill()
        assert not first.send_to(gone, signal.SIGKILL)
        assert first.send(signal.SIGKILL) == 0


def test_wrong_uses_of_a_cluster_are_told():
    """A node that was not started has no pid; hosts must be as many as nodes; a wait says what did not come."""
    with Cluster(SCRIPT, 2, ["orphan"]) as cluster, pytest.raises(ValueError, match="node 1 has not been started"):
        _ = cluster.nodes[1].pid
    with pytest.raises(ValueError, match="1 hosts for 2 nodes"):
        Cluster(SCRIPT, 2, hosts=[object()])
    with pytest.raises(TimeoutError, match=r"waited 0.01 s for the moon"):
        eventually(lambda: False, "the moon", timeout_s=0.01)
