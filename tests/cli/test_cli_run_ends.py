"""``nbps run``: how a run ends, by itself, by a failure, by signals; and that nothing stays."""

from __future__ import annotations

import os
import signal
import time

import pytest

from support import running
from support.processes import gone, status
from support.running import LIMIT_S, PROGRAM, ready, wait_until_stuck

start, play, terminal = (pytest.fixture(make) for make in (running.start, running.play, running.terminal))


@pytest.mark.parametrize(
    ("statuses", "code", "last"),
    [
        (["0"], 0, ""),
        (["0", "0", "0"], 0, ""),
        (["3"], 3, "error: node 0 failed: exit code 3"),
        (["0", "3", "0"], 3, "error: node 1 failed first: exit code 3"),
        (["0", "0", "255"], 255, "error: node 2 failed first: exit code 255"),
        (["SIGKILL", "0"], 137, "error: node 0 failed first: killed by SIGKILL"),
        (["0", "SIGSEGV"], 139, "error: node 1 failed first: killed by SIGSEGV"),
        (["0", "SIGRTMIN"], 128 + signal.SIGRTMIN, "error: node 1 failed first: killed by SIGRTMIN"),
    ],
)
def test_exit_codes(play, statuses, code, last):
    """0 if all are; else that of the failed node, and the last line says who and how."""
    found, out, err = play("--nodes", len(statuses), PROGRAM, "end", *statuses)
    assert (found, out) == (code, "")
    assert err.splitlines()[-1:] == [last] * bool(last)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codes", "first", "code"), [((5, 6, 7), 2, 7), ((5, 6, 0), 1, 6), ((5, 0, 0), 0, 5), ((0, 1, 2), 2, 2)]
)
def test_the_first_failure_counts(play, tmp_path, codes, first, code):
    """Nodes end one after another, the last rank first: the first that fails gives exit code and message."""
    found, _, err = play("--nodes", 3, PROGRAM, "in_turn", tmp_path, *codes)
    assert found == code
    assert err.splitlines()[-1] == f"error: node {first} failed first: exit code {code}"


@pytest.mark.slow
def test_others_are_ended_after_a_failure(play, tmp_path):
    """They may go on for the grace time; then they get SIGTERM, and who stays is killed."""
    code, _, err = play("--nodes", 3, "--grace", 0.2, PROGRAM, "hang", tmp_path)
    assert code == 9
    assert err.splitlines() == [
        "nbps run: node 1 failed: exit code 9; the others have 0.2 s to end",
        "nbps run: ending node 0, 2, still running, by SIGTERM",
        "nbps run: ending node 2, still running, by SIGKILL",
        "error: node 1 failed first: exit code 9",
    ]
    assert [path.name for path in sorted(tmp_path.glob("signal-*"))] == ["signal-0", "signal-2"]
    assert gone([int((tmp_path / f"ready-{rank}").read_text()) for rank in range(3)])


@pytest.mark.slow
def test_others_may_go_on_after_a_failure(start, tmp_path):
    """``--grace inf``: they live until they end by themselves, or somebody ends them."""
    process = start("--nodes", 2, "--grace", "inf", PROGRAM, "hang", tmp_path)
    pids = ready(tmp_path, 2)
    assert process.stderr.readline() == b"nbps run: node 1 failed: exit code 9; the others go on\n"
    assert "Z" not in status(pids[0]).partition("State:")[2][:3]
    os.kill(pids[0], signal.SIGTERM)
    assert process.wait(LIMIT_S) == 9
    assert not list(tmp_path.glob("signal-1"))


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_nodes(start, tmp_path):
    """As with ``| head``: the nodes fail when they print, and the run says so."""
    process = start("--nodes", 2, "--grace", 5, PROGRAM, "flood", tmp_path)
    pids = ready(tmp_path, 2)
    process.stdout.readline()
    process.stdout.close()
    assert b"BrokenPipeError" in process.stderr.read()
    assert process.wait(LIMIT_S) in (1, 120)
    assert gone(pids)


@pytest.mark.slow
def test_a_reader_that_stops_holds_up_no_signal(start, tmp_path):
    """The output is stuck, nodes wait in print; Ctrl-C comes through nonetheless, and twice ends everything."""
    process = start("--nodes", 2, PROGRAM, "flood", tmp_path)
    pids = ready(tmp_path, 2)
    wait_until_stuck(pids)
    process.send_signal(signal.SIGINT)
    assert gone(pids)
    process.send_signal(signal.SIGINT)  # what was printed cannot be passed on
    assert process.wait(LIMIT_S) == 130


@pytest.mark.slow
def test_a_reader_that_stops_holds_up_no_failure(start, tmp_path):
    """Another node fails meanwhile: that is noticed, and the one that waits in print is ended."""
    process = start("--nodes", 2, "--grace", 0.1, PROGRAM, "fail_when_told", tmp_path)
    pids = ready(tmp_path, 2)
    wait_until_stuck(pids[:1])
    (tmp_path / "go").touch()
    assert gone(pids)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 9


@pytest.mark.slow
def test_a_process_left_behind_holds_up_nobody(play, tmp_path):
    """A child of a node that keeps its output open does not keep the run from ending."""
    code, out, _ = play("--nodes", 2, PROGRAM, "leave_behind", tmp_path)
    os.kill(int((tmp_path / "sleeper").read_text()), signal.SIGKILL)
    assert (code, out) == (0, "[node 1] left\n")


@pytest.mark.parametrize(
    ("how", "number", "code", "last"),
    [
        ("polite", signal.SIGINT, 0, None),
        ("default", signal.SIGINT, 130, b"interrupted"),
        ("default", signal.SIGTERM, 143, b"interrupted"),
        ("polite", signal.SIGHUP, 129, b"interrupted"),
    ],
)
def test_a_signal_is_forwarded_once(start, tmp_path, how, number, code, last):
    """To every node, which may end in its own way; the exit code is 0 if it can, else the signal's."""
    process = start("--nodes", 3, PROGRAM, "interrupted", tmp_path, how)
    pids = ready(tmp_path, 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    if how == "polite" and number == signal.SIGINT:
        assert [(tmp_path / f"count-{rank}").read_text() for rank in range(3)] == ["1"] * 3
    if last:
        assert err.splitlines()[-1] == last
    else:
        assert err == b""
    assert gone(pids)


@pytest.mark.slow
def test_a_second_interrupt_kills(start, tmp_path):
    """Nodes that ignore the first one."""
    process = start("--nodes", 2, PROGRAM, "interrupted", tmp_path, "ignore")
    pids = ready(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    while not all((tmp_path / f"count-{rank}").exists() for rank in range(2)):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 130
    assert gone(pids)


@pytest.mark.slow
def test_ignored_signals_stay_ignored(start, tmp_path):
    """As under nohup: a hang-up ends neither the run nor its nodes."""
    process = start("--nodes", 2, PROGRAM, "interrupted", tmp_path, "default", preexec_fn=ignore_hang_up)
    pids = ready(tmp_path, 2)
    process.send_signal(signal.SIGHUP)
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 143


def ignore_hang_up() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.slow
def test_nodes_die_with_a_killed_run(start, tmp_path):
    """Kill -9 of ``nbps run`` itself: no node lives on."""
    process = start("--nodes", 3, PROGRAM, "interrupted", tmp_path, "ignore")
    pids = ready(tmp_path, 3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert gone(pids)


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_arrives_once(terminal, tmp_path):
    """Also at node 0, which has the terminal: one key, one signal."""
    at = terminal("--nodes", 3, PROGRAM, "interrupted", tmp_path, "polite")
    pids = ready(tmp_path, 3)
    at.type(b"\x03")
    at.read_all()
    assert at.process.wait(LIMIT_S) == 0
    assert [(tmp_path / f"count-{rank}").read_text() for rank in range(3)] == ["1"] * 3
    assert gone(pids)


@pytest.mark.slow
def test_a_closed_terminal_ends_the_run(terminal, tmp_path):
    """Its end hangs up on ``nbps run``, which tells the nodes."""
    at = terminal("--nodes", 2, PROGRAM, "interrupted", tmp_path, "ignore")
    pids = ready(tmp_path, 2)
    at.close()
    assert at.process.wait(LIMIT_S) == 129
    assert gone(pids)
