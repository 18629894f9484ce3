"""``nbps run`` as a process, with its output in pipes or at a terminal of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAM = Path(__file__).with_name("node_programs.py")
LIMIT_S = 60
# Makes the terminal on standard input the process's own, so that Ctrl-C typed there reaches it.
_AT_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def facts(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"facts-{rank}.json").read_text())


def ready(folder: Path, nodes: int) -> list[int]:
    """Process numbers of the nodes, when all are ready."""
    paths = [folder / f"ready-{rank}" for rank in range(nodes)]
    while not all(path.exists() for path in paths):
        time.sleep(0.01)
    return [int(path.read_text()) for path in paths]


def wait_until_stuck(pids: list[int]) -> None:
    """Return when these processes print no more; fails if what they printed is held anywhere without limit."""
    before, now = -1, 0
    while now != before:
        before = now
        time.sleep(0.3)
        counts = [re.search(r"^wchar: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE) for pid in pids]
        now = sum(int(count[1]) for count in counts)
        assert now < len(pids) << 20


def start(command) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``nbps run`` with these arguments; kills it if the test did not end it."""
    started = []

    def begin(*arguments: object, **how: object) -> subprocess.Popen[bytes]:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        how["env"] = {name: value for name, value in how.get("env", os.environ).items() if name != "PYTHONUNBUFFERED"}
        started.append(subprocess.Popen([*command, "run", *map(str, arguments)], process_group=0, **how))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def play(start) -> Callable[..., tuple[int, str, str]]:
    """Run ``nbps run`` to its end: exit code, standard output and error."""

    def run(*arguments: object, **how: object) -> tuple[int, str, str]:
        process = start(*arguments, **how)
        out, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, (out or b"").decode(), (err or b"").decode()

    return run


class Terminal:
    """A terminal at which ``nbps run`` was typed."""

    def __init__(self, line: list[str]) -> None:
        self.fd, end = os.openpty()
        self.seen = b""
        arguments = [sys.executable, "-c", _AT_TERMINAL, *line]
        self.process = subprocess.Popen(arguments, stdin=end, stdout=end, stderr=end, start_new_session=True)
        os.close(end)

    def read_until(self, text: bytes) -> None:
        """Read until `text` has appeared."""
        while text not in self.seen:
            self.seen += os.read(self.fd, 4096)

    def read_all(self) -> bytes:
        """Read to the end of all who write there."""
        with contextlib.suppress(OSError):  # EIO: nobody is left
            while part := os.read(self.fd, 4096):
                self.seen += part
        return self.seen

    def close(self) -> None:
        """Close it; once more does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def type(self, keys: bytes) -> None:
        """Type `keys`."""
        os.write(self.fd, keys)


def terminal(command) -> Iterator[Callable[..., Terminal]]:
    """Type ``nbps run`` at a terminal of its own."""
    opened = []

    def begin(*arguments: object) -> Terminal:
        opened.append(Terminal([*command, "run", *map(str, arguments)]))
        return opened[-1]

    yield begin
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        one.close()
