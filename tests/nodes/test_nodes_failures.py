"""Nodes of real processes that fail in every way: who is named, that all end, and that nothing is left behind.

Most of the time of a failure is waiting for a time limit. So all scenes are played first, several at a time, and the
tests judge what the nodes said.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from nbps.testing.chaos.cluster import Cluster, Node, eventually
from support import SCRIPTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # the first test waits for all scenes
SCRIPT = SCRIPTS / "node_scripts.py"
AT_ONCE = 4


class End(NamedTuple):
    """How the nodes of a scene ended, what they said, and what they left."""

    codes: list[int | None]
    said: list[str]
    left: list[str]


class Scene(NamedTuple):
    """Nodes that run a program, and what is done to them when all of `ranks` are running."""

    nodes: int
    words: list[str]
    act: Callable[[Cluster, Path], None]
    ranks: tuple[int, ...] = ()


SCENES: dict[str, Scene] = {}


def scene(name, nodes, *words, ranks=()):
    """Register what is done as a scene."""

    def register(act):
        SCENES[name] = Scene(nodes, list(words), act, ranks)
        return act

    return register


def code(node: Node) -> int | None:
    """Wait for the end of a node, if it was started; return its exit code."""
    with contextlib.suppress(ValueError):
        assert node.pid
        return node.wait()
    return None


def play(one: Scene, folder: Path) -> End:
    """Play a scene to its end."""
    words = [word.replace("FOLDER", str(folder)) for word in one.words]
    with Cluster(SCRIPT, one.nodes, words) as cluster:
        cluster.start(*one.ranks)
        one.act(cluster, folder)
        codes = [code(node) for node in cluster.nodes]
        with contextlib.suppress(TimeoutError):
            eventually(lambda: not cluster.left_behind(), "all to be gone", 10)
        return End(codes, [node.output for node in cluster.nodes], cluster.left_behind())


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Play all scenes, and return how they ended, by name."""
    folders = {name: tmp_path_factory.mktemp("scene") for name in SCENES}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        playing = {name: pool.submit(play, one, folders[name]) for name, one in SCENES.items()}
        played = {name: future.result() for name, future in playing.items()}
    return played | dict(parts(played["ending"]))


def parts(end: End) -> Iterator[tuple[str, End]]:
    """Give what nodes that carried out several programs said of each, by its name."""
    for each in zip(*(said.split("== ")[1:] for said in end.said), strict=True):
        name = each[0].partition("\n")[0]
        said, codes = zip(*(part.removeprefix(f"{name}\n").rsplit("code ", 1) for part in each), strict=True)
        yield name, End(list(map(int, codes)), list(said), end.left)


def are_going(cluster, *ranks):
    """Wait until the workers of all nodes have passed a few clocks."""
    for node in [cluster.nodes[rank] for rank in ranks] or cluster.nodes:
        node.until("going")


# --------------------------------------------------------------------------- processes that are killed or stopped


@scene("worker", 2, "forever", "2")
def _(cluster, folder):
    are_going(cluster)
    pid = int(re.findall(r"going (\d+)", cluster.nodes[1].output)[-1])
    assert cluster.nodes[1].send_to(pid, signal.SIGKILL)


def test_a_killed_worker_is_named_on_all_nodes(ends):
    """Its own node raises WorkerDiedError with node, clock and signal, the others NodeError with that as the reason."""
    end = ends["worker"]
    assert end.codes == [3, 3]
    died = r"worker \d of node 1 at clock \d+ \(pid \d+\) ended: killed by signal 9 \(SIGKILL"
    for rank, said in enumerate(end.said):
        kind = "raised WorkerDiedError: " if rank == 1 else r"raised NodeError: node 1 ended the job: .*"
        assert re.search(kind + died, said), said
        assert "readable" in said
    assert end.left == []


@scene("agent", 3, "forever", "1", "100")
def _(cluster, folder):
    are_going(cluster)
    assert cluster.nodes[1].send(signal.SIGKILL, "agent") == 1


@scene("supervisor", 2, "forever", "1", "100")
def _(cluster, folder):
    are_going(cluster)
    assert cluster.nodes[1].send(signal.SIGKILL, "supervisor") == 1


@pytest.mark.parametrize(
    ("name", "who"), [("agent", "the agent"), ("supervisor", "(the agent|worker 1|worker 1 at clock .*)")]
)
def test_a_killed_agent_is_named(ends, name, who):
    """Its driver names it, and tells the others, which the agent cannot any more: nobody waits for its silence."""
    end = ends[name]
    assert set(end.codes) == {3}
    died = rf"{who} of node 1.* \(pid \d+\) ended: killed"
    assert re.search(f"raised WorkerDiedError: {died}", end.said[1])
    for said in [*end.said[:1], *end.said[2:]]:
        assert re.search(rf"raised NodeError: .*node 1 ended the job: .*{died}", said)
        assert "was not heard" not in said
    assert end.left == []


@scene("driver", 2, "forever")
def _(cluster, folder):
    are_going(cluster)
    assert cluster.nodes[1].send_to(cluster.nodes[1].pid, signal.SIGKILL)


def test_a_killed_driver_takes_its_node_along_and_is_named(ends):
    """Nothing of it stays, and the other node says which node went."""
    end = ends["driver"]
    assert end.codes == [3, -signal.SIGKILL]
    assert re.search("raised NodeError: node 1 (was not heard for 5|ended the job: its driver was killed)", end.said[0])
    assert end.left == []


@scene("stopped", 2, "forever")
def _(cluster, folder):
    are_going(cluster)
    one = cluster.nodes[1]
    one.send(signal.SIGSTOP, "agent")
    time.sleep(2)
    one.send(signal.SIGCONT, "agent")
    time.sleep(1)
    assert [node.returncode for node in cluster.nodes] == [None, None]  # that was shorter than the time limit
    one.send(signal.SIGSTOP, "agent")
    cluster.nodes[0].wait()
    one.send(signal.SIGCONT, "agent")


def test_an_agent_that_is_stopped_for_too_long_is_named(ends):
    """A pause shorter than the time limit does nothing; after a longer one both nodes know whose it was."""
    end = ends["stopped"]
    assert end.codes == [3, 3]
    assert "raised NodeError: node 1 was not heard for 5" in end.said[0]
    assert "raised NodeError: node 0 ended the job: node 1 was not heard for 5" in end.said[1]
    assert end.left == []


@scene("raises", 2, "raises")
def _(cluster, folder):
    are_going(cluster)
    cluster.nodes[1].send_to(cluster.nodes[1].pid, signal.SIGINT)


def test_an_exception_and_ctrl_c_on_one_node_end_all_and_are_told(ends):
    """An error keeps its class where it was raised; the others have the reason and the traceback. So with Ctrl-C."""
    end = ends["raises"]
    assert end.codes == [3, 3]
    assert "first: ZeroDivisionError: planted" in end.said[1]
    assert re.search(r"first: NodeError: node 1 ended the job: worker \d .*ZeroDivisionError: planted", end.said[0])
    assert 'raise ZeroDivisionError("planted")' in end.said[0]
    assert "raised NodeError: node 1 ended the job: interrupted by Ctrl-C" in end.said[0]
    assert "raised KeyboardInterrupt" in end.said[1]
    assert end.left == []


# --------------------------------------------------------------------------- going on, and waiting


@scene("continue without node 0", 3, "survive", "continue", "FOLDER", "400")
def _(cluster, folder):
    eventually(lambda: list(folder.glob("**/manifest-*.json")), "a checkpoint")
    cluster.nodes[0].kill()


@scene("continue alone", 2, "survive", "continue", "FOLDER", "400")
def _(cluster, folder):
    eventually(lambda: list(folder.glob("**/manifest-*.json")), "a checkpoint")
    cluster.nodes[1].send(signal.SIGKILL, "worker")


@pytest.mark.parametrize(("name", "lost", "left"), [("continue without node 0", 0, [1, 2]), ("continue alone", 1, [0])])
def test_survivors_go_on_from_the_last_checkpoint(ends, name, lost, left):
    """What the lost worker had added up to the checkpoint counts, nothing after it; all others' sums are exact."""
    end = ends[name]
    found = [re.search(r"sums ([\d ]+) size (\d) nodes (\d)", end.said[rank]) for rank in left]
    for match in found:
        assert match is not None, end
        sums = list(map(int, match[1].split()))
        # The survivors are workers 0 to n - 1 now: before the checkpoint the ranks were others.
        saved = sums[len(left)]
        assert saved % 20 == 0
        assert saved > 0
        assert sums == [400] * len(left) + [saved] + [0] * (5 - len(left))
        assert match[2] == match[3] == str(len(left))
    assert ["again [3]" in end.said[rank] for rank in left] == [True] * len(left)
    assert [end.codes[rank] for rank in left] == [0] * len(left)
    assert end.left == []


@scene("wait", 2, "survive", "wait", "-", "1000")
def _(cluster, folder):
    are_going(cluster)
    cluster.nodes[1].send(signal.SIGSTOP, "agent")
    time.sleep(6)  # longer than the time limit of the job
    cluster.nodes[1].send(signal.SIGCONT, "agent")


def test_who_waits_goes_on_as_if_nothing_had_been(ends):
    """With on_failure="wait" an agent that was stopped for longer than the time limit is waited for."""
    end = ends["wait"]
    assert end.codes == [0, 0]
    assert ["sums 1000 1000 0 0 0 0 size 2" in said for said in end.said] == [True, True]
    assert end.left == []


# --------------------------------------------------------------------------- nodes that do not fit together


@scene("twice", 3, "twice", ranks=(0, 1))
def _(cluster, folder):
    are_going(cluster, 0, 1)
    cluster.start(2)
    cluster.nodes[2].wait()
    for rank in (0, 1):
        assert cluster.nodes[rank].returncode is None
    cluster.nodes[0].send_to(cluster.nodes[0].pid, signal.SIGINT)


def test_a_second_node_of_one_rank_is_refused_and_harms_nobody(ends):
    """It is told why; the job that runs goes on until it is interrupted."""
    end = ends["twice"]
    assert end.codes == [3, 3, 3]
    assert re.search("raised TransportError: .*refused node 1: .*restarted.*does not take it back", end.said[2])
    assert "raised KeyboardInterrupt" in end.said[0]
    assert end.left == []


@scene("missing", 3, "missing")
def _(cluster, folder):
    pass


def test_missing_nodes_are_named_after_the_time_limit_and_a_wrong_secret_is_told(ends):
    """Who has another secret is refused; the nodes that came say whom they missed, for how long, and why."""
    end = ends["missing"]
    assert end.codes == [3, 3, 3]
    for said in end.said[:2]:
        assert re.search(
            r"raised NodeError: node 0 waited 8 s at 127\.0\.0\.1:\d+: node 2 did not come; .*secrets differ", said
        )
    assert re.search(r"raised TransportError: .*refused node 2: the secrets differ", end.said[2])
    assert end.left == []


@scene("ending", 2, "ending")
def _(cluster, folder):
    pass


def test_nodes_that_define_other_things_are_told_both(ends):
    """Tables, initial values, and seeds, from which workers draw: both nodes print both; what fits then starts."""
    end = ends["differ"]
    assert end.codes == [0, 0]
    for said in end.said:
        rows = r"rows: NodeError: node 1 defines table 't' as rows=7 initial \S+ \w+, node 0 as rows=6 initial "
        assert re.search(rows, said)
        assert re.search(r"seed: NodeError: node 1 has seed=1, node 0 0; all nodes must run the same script", said)
        values = re.search(r"values: NodeError: .*table 'w' .*values=crc32 (\w+), .*values=crc32 (\w+);", said)
        assert values is not None
        assert values[1] != values[2]
        assert re.search(r"seed: NodeError: node 1 has seed=1, node 0 0; all nodes must run the same script", said)
        assert said.endswith("same started\n")
    assert end.left == []


def test_two_jobs_do_not_meet_at_one_place(ends):
    """The second is refused as long as the first is open, on every node, and the first goes on."""
    end = ends["within"]
    assert end.codes == [0, 0]
    for rank, said in enumerate(end.said):
        assert re.search(rf"inner: ConfigError: another job .* open as node {rank} at tcp .*; close it first", said)
        assert "outer 10 10" in said
        assert said.endswith("next started\n")
    assert end.left == []


@scene("uneven", 2, "uneven", "2", "1")
def _(cluster, folder):
    pass


def test_a_node_that_leaves_early_ends_the_run_of_the_others(ends):
    """Who calls run() once more than another node is told that this closed the job; the first run counts.

    Its results come late, and are returned though the other node is gone by then.
    """
    end = ends["uneven"]
    assert end.codes == [3, 0]
    for said in end.said:
        assert "done ['result'] 10 10\n" in said
    assert "raised NodeError: node 1 ended the job: its job was closed" in end.said[0]
    assert end.left == []


def test_what_a_program_raises_between_two_runs_is_told_to_the_other_nodes(ends):
    """A program that ends well there has closed the job; either way the other node hears it, and names that node."""
    for name, why in (("raised between", "its program raised ZeroDivisionError: planted"), ("left between", "its job")):
        end = ends[name]
        assert end.codes == [3, 3]
        assert f"raised NodeError: node 1 ended the job: {why}" in end.said[0]
        assert end.left == []
    assert "raised ZeroDivisionError: planted" in ends["raised between"].said[1]
