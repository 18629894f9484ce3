"""Scripts that play a node for the tests of ``nbps run``: ``node_programs.py <which> [arguments]``. Import no nbps."""
# ruff: noqa: T201

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RANK = int(os.environ["NBPS_NODE_RANK"])


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)


def say_ready(folder):
    """Tell the test this process's number, whole or not at all."""
    path = Path(folder, f"starting-{RANK}")
    path.write_text(str(os.getpid()))
    path.rename(Path(folder, f"ready-{RANK}"))


def show(folder, *arguments):
    """Write down everything that a node was given."""
    facts = {
        "environment": dict(os.environ),
        "arguments": arguments,
        "argv": sys.argv,
        "terminals": [os.isatty(fd) for fd in range(3)],
        "leads its session": os.getsid(0) == os.getpid(),
        "executable": sys.executable,
    }
    Path(folder, f"facts-{RANK}.json").write_text(json.dumps(facts))


def end(*statuses):
    """Each node ends as its word says: an exit code, or a signal's name."""
    status = statuses[RANK]
    if status.isdigit():
        sys.exit(int(status))
    os.kill(os.getpid(), getattr(signal, status))


def in_turn(folder, *codes):
    """Node 2 ends first, then 1, then 0: each when `nbps run` has taken note of the one before."""
    say_ready(folder)
    if RANK < 2:
        wait_for(Path(folder, f"ready-{RANK + 1}"))
        pid = Path(folder, f"ready-{RANK + 1}").read_text()
        while Path("/proc", pid).exists():
            time.sleep(0.01)
    sys.exit(int(codes[RANK]))


def hang(folder, *how):
    """Node 1 fails; node 0 ends on SIGTERM, and node 2 not even then."""

    def note(number, frame):
        Path(folder, f"signal-{RANK}").write_text(signal.Signals(number).name)
        if RANK == 0:
            sys.exit(0)

    signal.signal(signal.SIGTERM, note)
    say_ready(folder)
    for rank in range(int(os.environ["NBPS_NODES"])):
        wait_for(Path(folder, f"ready-{rank}"))
    if RANK == 1:
        sys.exit(9)
    while True:
        time.sleep(100)


def interrupted(folder, how):
    """Count interrupts; `how`: end by the first with its own code, ignore all, or do not handle them."""
    count = 0

    def note(number, frame):
        nonlocal count
        count += 1
        Path(folder, f"count-{RANK}").write_text(str(count))

    if how != "default":
        signal.signal(signal.SIGINT, note)
    say_ready(folder)
    while not (how == "polite" and count):
        time.sleep(0.01)
    time.sleep(0.3)  # a second one would come now


def print_lines(count, length):
    """Lines of every length on both streams."""
    for number in range(int(count)):
        text = f"{RANK}:{number}:" + "x" * (number % int(length)) + ":end"
        print(text)
        print(text, file=sys.stderr)


def pieces(count):
    """Lines in pieces, so that several nodes are within a line at any time."""
    for number in range(int(count)):
        stream = sys.stderr if number % 2 else sys.stdout
        for piece in (f"{RANK}:", f"{number}:", "x" * 50, ":end\n"):
            stream.write(piece)
            stream.flush()
            time.sleep(0.001)


def raw(size):
    """Bytes that are no text and do not end with a line; node 1 writes one endless line."""
    if RANK == 0:
        os.write(1, b"a\r\n\xff\xfe\x00\rprogress 1\rprogress 2\n\n  no end")
    else:
        os.write(1, b"y" * int(size))


def flood(folder):
    """Print for good."""
    say_ready(folder)
    while True:
        print("z" * 1000)


def fail_when_told(folder):
    """Node 0 prints for good, node 1 fails when the test says so."""
    say_ready(folder)
    if RANK == 1:
        wait_for(Path(folder, "go"))
        sys.exit(9)
    while True:
        print("z" * 1000)


def ask():
    """Node 0 asks at the terminal."""
    if RANK == 0:
        print("answer:", input("question? "))
    else:
        print("input:", repr(sys.stdin.read()))


def leave_behind(folder):
    """Start a process that outlives its node and holds its output open."""
    if RANK == 1:
        sleeper = subprocess.Popen(["sleep", "600"])
        Path(folder, "sleeper").write_text(str(sleeper.pid))
        print("left")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
