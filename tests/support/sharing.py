"""A segment shared with processes that run a task of peers.py."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nbps.memory.segments import Segment, attach
from support.peers import WORDS

_LIMIT_S = 100  # a lost wake-up would hang for good: this is what makes it a failure


class Peers:
    """Processes on one segment; `words` are the test's, `memory` the task's."""

    def __init__(self, size: int) -> None:
        self.segment = Segment("peers", 8 * WORDS + size)
        whole = attach(self.segment.name)
        self.words, self.memory = whole[: 8 * WORDS].view(np.int64), whole[8 * WORDS :]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, task: str, *arguments: object) -> None:
        script = Path(__file__).with_name("peers.py")
        command = [sys.executable, str(script), task, self.segment.name, *map(str, [len(self.processes), *arguments])]
        self.processes.append(subprocess.Popen(command))

    def go(self) -> None:
        """Let all begin at once, when each has announced itself."""
        while self.words[1 : 1 + len(self.processes)].sum() < len(self.processes):
            for process in self.processes:
                assert process.poll() is None, "a peer ended before it began"
            time.sleep(0.001)
        self.words[0] = 1

    def join(self) -> None:
        for process in self.processes:
            assert process.wait(_LIMIT_S) == 0


@contextmanager
def peers(size: int) -> Iterator[Peers]:
    group = Peers(size)
    try:
        yield group
    finally:
        for process in group.processes:
            process.kill()
            process.wait()
        group.segment.unlink()
