"""``nbps run``: what nodes are given, and whose output goes where."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest

from nbps import Nodes
from support import running
from support.running import LIMIT_S, PROGRAM, facts

start, play, terminal = (pytest.fixture(make) for make in (running.start, running.play, running.terminal))


@pytest.mark.parametrize("transport", ["tcp", "shm"])
def test_every_node_is_told_its_place(play, tmp_path, transport):
    """All share an address that is free, a fresh secret and a name that nobody else has; ranks are 0, 1 and 2."""
    environ = os.environ | {"NBPS_SECRET_FILE": "/absent", "NBPS_INSECURE": "no!", "NBPS_BIND": "1.2.3.4", "MINE": "7"}
    environ |= {"RANK": "0", "WORLD_SIZE": "16"}
    seen = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        options = ["--nodes", 3, "--workers", 5, "--transport", transport]
        code, out, err = play(*options, PROGRAM, "show", folder, env=environ)
        assert (code, out, err) == (0, "", "")
        given = [facts(folder, rank) for rank in range(3)]
        nodes = [Nodes.from_environment(node["environment"]) for node in given]
        assert [(node.count, node.rank, node.transport) for node in nodes] == [
            (3, rank, transport) for rank in range(3)
        ]
        assert {node.source for node in nodes} == {"NBPS_*"}
        (one,) = {(node.rendezvous, node.secret, node.job) for node in nodes}
        seen.append(one)
        assert len(nodes[0].secret) == 64
        if transport == "tcp":
            host, _, port = one[0].rpartition(":")
            assert host == "127.0.0.1"
            assert 20_000 <= int(port) < 30_000
            with socket.socket() as probe:
                probe.bind((host, int(port)))
        for node in given:
            assert node["environment"]["NBPS_WORKERS"] == "5"
            assert node["environment"]["MINE"] == "7"
            assert node["leads its session"]
            assert node["executable"] == sys.executable
    assert all(first != second for first, second in zip(*seen, strict=True))


@pytest.mark.parametrize(("nodes", "workers"), [(1, len(os.sched_getaffinity(0))), (64, 1)])
def test_nodes_share_the_cores(nbps, monkeypatch, nodes, workers):
    """Without --workers the nodes divide what there is; NBPS_WORKERS of the caller counts."""
    from nbps.cli import launch

    given = []

    def run(self):
        given.append(self._environments)
        return launch.Ending()

    monkeypatch.setattr(launch.Launch, "run", run)
    monkeypatch.delenv("NBPS_WORKERS", raising=False)
    assert nbps("run", "--nodes", nodes, PROGRAM).returncode == 0
    assert nbps("run", "--nodes", nodes, PROGRAM, NBPS_WORKERS="9").returncode == 0
    for environments, expected in zip(given, (max(1, workers), 9), strict=True):
        assert len(environments) == nodes
        assert {environment["NBPS_WORKERS"] for environment in environments.values()} == {str(expected)}


def test_arguments_pass_unchanged(play, tmp_path):
    """Also those that look like options of ours, and odd ones."""
    odd = ["--nodes", "9", "-h", "--help", "--", "-m", "", "a b", "*", "$HOME", "é"]
    assert play("--nodes", 2, PROGRAM, "show", tmp_path, *odd)[0] == 0
    for rank in range(2):
        assert facts(tmp_path, rank)["arguments"] == odd
        assert facts(tmp_path, rank)["argv"] == [str(PROGRAM), "show", str(tmp_path), *odd]


def test_a_module_is_run_as_python_does(play, tmp_path):
    """``-m`` finds what lies in the working directory, and packages by their names."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inside.py").write_text("import sys\nprint(__name__, __package__, sys.argv[1:])\n")
    code, out, _ = play("--nodes", 2, "-m", "package.inside", "--x", cwd=tmp_path)
    assert code == 0
    assert sorted(out.splitlines()) == ["[node 1] __main__ package ['--x']", "__main__ package ['--x']"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "2"], "SCRIPT"),
        (["script.py"], "--nodes"),
        (["--nodes", "0", PROGRAM], "--nodes"),
        (["--nodes", "two", PROGRAM], "--nodes"),
        (["--nodes", "2", "--workers", "0", PROGRAM], "--workers"),
        (["--nodes", "2", "--grace", "-1", PROGRAM], "expected seconds >= 0"),
        (["--nodes", "2", "--grace", "nan", PROGRAM], "expected seconds >= 0"),
        (["--nodes", "2", "absent.py", "--x"], "there is no file 'absent.py'"),
        (["--nodes", "2", "-m", "absent_module.sub"], "there is no module 'absent_module.sub'"),
        (["--nodes", "2", "-m", "no/module"], "there is no module 'no/module'"),
        (["--nodes", "2", "-m", ""], "there is no module ''"),
        (["--nodes", "2", "--rendezvous", "h:1", PROGRAM], "--rendezvous is for one node of several machines"),
        (["--nodes", "2", "--secret-file", "f", PROGRAM], "--secret-file is for one node of several machines"),
        (["--nodes", "2", "--no-such-option", PROGRAM], "--no-such-option"),
    ],
)
def test_wrong_usage_of_run(nbps, arguments, words):
    """Exit code 2, and the message names the option; nothing is started."""
    done = nbps("run", *arguments)
    assert done.returncode == 2
    assert words in re.sub(r"[\s│]+", " ", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "2", "--transport", "pigeon"], "there is no transport 'pigeon'"),
        (["--nodes", "2", "--transport", "inproc"], "NBPS_TRANSPORT is 'inproc', which stays within one process"),
        (
            ["--nodes", "2", "--node-rank", "2", "--rendezvous", "127.0.0.1:5"],
            "NBPS_NODE_RANK is 2, but NBPS_NODES is 2",
        ),
        (["--nodes", "2", "--node-rank", "1"], "NBPS_RENDEZVOUS is not set"),
        (["--nodes", "2", "--node-rank", "1", "--rendezvous", "host"], "NBPS_RENDEZVOUS is 'host'"),
        (["--nodes", "2", "--node-rank", "1", "--rendezvous", "host:5000"], "there is no secret"),
        (
            ["--nodes", "2", "--node-rank", "1", "--rendezvous", "host:5000", "--secret-file", "/absent"],
            "NBPS_SECRET_FILE is '/absent'",
        ),
    ],
)
def test_what_the_nodes_would_refuse_is_said_once(nbps, arguments, words):
    """In one line, before any node is started."""
    done = nbps("run", *arguments, PROGRAM)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_one_node_of_several_machines(play, tmp_path):
    """Only that node is started, with what was said; its output has no prefix."""
    secret = tmp_path / "secret"
    secret.write_text("of all nodes")
    secret.chmod(0o600)
    options = ["--nodes", 4, "--node-rank", 2, "--rendezvous", "host:29500", "--secret-file", secret]
    environ = os.environ | {"NBPS_SECRET": "another", "NBPS_JOB": "mine"}
    environ.pop("NBPS_WORKERS", None)
    assert play(*options, PROGRAM, "show", tmp_path, env=environ)[0] == 0
    given = facts(tmp_path, 2)["environment"]
    assert Nodes.from_environment(given) == Nodes(4, 2, "host:29500", job="mine", secret=b"of all nodes")
    assert "NBPS_WORKERS" not in given
    assert [path.name for path in tmp_path.glob("facts-*")] == ["facts-2.json"]
    code, out, err = play(*options, PROGRAM, "end", 0, 0, 7, env=environ)
    assert (code, out, err) == (7, "", "error: node 2 failed: exit code 7\n")


def lines_by_node(text: str) -> dict[str, list[str]]:
    """Lines without their prefixes, by prefix."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        prefix, body = re.fullmatch(r"(\[node \d+\] |)(.*)", line).groups()
        found.setdefault(prefix, []).append(body)
    return found


def test_much_output_arrives_whole(start):
    """Nobody reads until every pipe is full; then every line of every node is there, in order, behind its prefix."""
    count = 4000
    process = start("--nodes", 3, PROGRAM, "print_lines", count, 300)
    time.sleep(1)  # the pipes fill up; of what is shown nothing depends on it
    for text in process.communicate(timeout=LIMIT_S):
        found = lines_by_node(text.decode())
        assert found.keys() == {"", "[node 1] ", "[node 2] "}
        for rank, prefix in enumerate(sorted(found)):
            assert found[prefix] == [f"{rank}:{n}:" + "x" * (n % 300) + ":end" for n in range(count)]
    assert process.returncode == 0


def test_lines_in_pieces_are_not_mixed(play):
    """Both streams in one pipe, nodes within a line at any time: each line is that of one node."""
    code, out, _ = play("--nodes", 4, PROGRAM, "pieces", 60, stderr=subprocess.STDOUT)
    assert code == 0
    found = lines_by_node(out)
    for rank, prefix in enumerate(sorted(found)):
        assert found[prefix] == [f"{rank}:{n}:" + "x" * 50 + ":end" for n in range(60)]
    assert len(found) == 4


def test_streams_in_one_pipe_keep_their_order(play):
    """``2>&1``: what a node prints on both streams comes in the order in which it was printed."""
    code, out, _ = play("--nodes", 2, PROGRAM, "print_lines", 500, 50, stderr=subprocess.STDOUT)
    assert code == 0
    for rank, (_, lines) in enumerate(sorted(lines_by_node(out).items())):
        assert lines == [f"{rank}:{n}:" + "x" * (n % 50) + ":end" for n in range(500) for _ in range(2)]


def test_bytes_of_node_0_are_unchanged(start):
    """Whatever they are; the endless line of another node is broken, lest it fill the memory."""
    process = start("--nodes", 2, PROGRAM, "raw", 3 << 20)
    out, _ = process.communicate(timeout=LIMIT_S)
    mine, others = b"", b""
    for line in re.split(rb"(?<=\n)", out):
        if line.startswith(b"[node 1] "):
            assert len(line) < 2 << 20
            others += line.removeprefix(b"[node 1] ").removesuffix(b"\n")
        else:
            mine += line
    # The end of node 0, without a line's end, comes before or between the lines of the other.
    if b"[node 1] " in mine:
        mine, _, rest = mine.partition(b"[node 1] ")
        others += rest.removesuffix(b"\n")
    assert mine == b"a\r\n\xff\xfe\x00\rprogress 1\rprogress 2\n\n  no end"
    assert others == b"y" * (3 << 20)


def test_lines_arrive_while_nodes_run(start, tmp_path):
    """A line is passed on when it was printed, not when a buffer of Python's is full."""
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('hello')\ntime.sleep(1000)\n")
    process = start("--nodes", 2, script)
    lines = {process.stdout.readline() for _ in range(2)}
    assert lines == {b"hello\n", b"[node 1] hello\n"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 143


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, command, closed):
    """Without standard input, output or error nodes run as ever; nothing that is printed goes to the roll instead."""
    line = [*command, "run", "--nodes", "2", str(PROGRAM), "show", str(tmp_path)]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *line], check=False, timeout=LIMIT_S)
    assert done.returncode == 0
    rolls = [facts(tmp_path, rank)["environment"]["NBPS_ROLL"] for rank in range(2)]
    assert all(int(roll.rpartition("/")[2]) > 2 for roll in rolls)


def test_node_0_has_the_terminal(terminal, tmp_path):
    """Its three streams are the terminal, for progress bars and questions; those of others are not."""
    assert terminal("--nodes", 2, PROGRAM, "show", tmp_path).process.wait(LIMIT_S) == 0
    assert [facts(tmp_path, rank)["terminals"] for rank in range(2)] == [[True] * 3, [False] * 3]


def test_node_0_can_ask(terminal):
    """A question, an answer; the others find no input at all."""
    at = terminal("--nodes", 2, PROGRAM, "ask")
    at.read_until(b"question? ")
    at.type(b"42\n")
    seen = at.read_all()
    assert b"answer: 42" in seen
    assert b"[node 1] input: ''" in seen
    assert at.process.wait(LIMIT_S) == 0


def test_runs_do_not_share_anything(start, tmp_path):
    """Several at the same time: every one has its own address and name."""
    folders = [tmp_path / secrets.token_hex(4) for _ in range(4)]
    for folder in folders:
        folder.mkdir()
    processes = [start("--nodes", 1, PROGRAM, "show", folder) for folder in folders]
    assert [process.wait(LIMIT_S) for process in processes] == [0] * 4
    for name in ("NBPS_RENDEZVOUS", "NBPS_JOB", "NBPS_SECRET"):
        assert Counter(facts(folder, 0)["environment"][name] for folder in folders).most_common(1)[0][1] == 1
