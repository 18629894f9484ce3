"""A segment shared with processes that run tasks of peers.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nbps.memory.segments import Segment, attach
from nbps.runtime.surroundings import environment
from support.peers import WORDS

_LIMIT_S = 100  # a lost wake-up would hang for good: this is what makes it a failure


class Peers:
    """Processes on one segment; `words` are the test's, `memory` the tasks'."""

    def __init__(self, size: int) -> None:
        self.segment = Segment("peers", 8 * WORDS + size)
        whole = attach(self.segment.name)
        self.words, self.memory = whole[: 8 * WORDS].view(np.int64), whole[8 * WORDS :]
        self._tasks: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, task: str, *arguments: object) -> None:
        """Have one more process, which carries out `task`."""
        self._tasks.append(json.dumps([task, *arguments]))

    def go(self) -> None:
        """Start them, and let all begin at once, when each has announced itself."""
        script = Path(__file__).with_name("peers.py")
        command = [sys.executable, str(script), self.segment.name, *self._tasks]
        self._process = subprocess.Popen(command, env=environment(), process_group=0)
        while self.words[1 : 1 + len(self._tasks)].sum() < len(self._tasks):
            assert self._process.poll() is None, "a peer ended before it began"
            time.sleep(0.001)
        self.words[0] = 1

    def join(self) -> None:
        """Wait until all have ended well."""
        assert self._process is not None
        assert self._process.wait(_LIMIT_S) == 0

    def close(self) -> None:
        """Kill what runs; nothing stays."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.segment.unlink()


@contextmanager
def peers(size: int) -> Iterator[Peers]:
    with contextlib.closing(Peers(size)) as group:
        yield group
