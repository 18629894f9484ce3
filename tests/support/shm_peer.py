"""What a second process does in tests of shm. Run as a script this forks one for each task that it reads.

Importing takes longer than most tasks, and a test that kills has many of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback

import numpy as np

from nbps.kernels import ring
from nbps.kernels.prepare import prepare
from nbps.runtime.surroundings import environment
from nbps.testing.transport.ends import Echo, End, drive
from nbps.transport import Options, get_transport

FRAME_LIMIT = 16 << 20


def lengths(seed: int, longest: int) -> np.ndarray:
    """Return the lengths of frames: as many short ones as long ones, also of 0 bytes and longer than a ring."""
    random = np.random.default_rng(seed)
    return np.exp(random.uniform(0, np.log(longest), 300)).astype(int) - 1


def frame(seed: int, number: int, length: int) -> np.ndarray:
    """Return a frame that no other equals."""
    return np.random.default_rng([seed, number]).integers(0, 256, length, np.uint8)


def exchange(address: str, seed: int, longest: int) -> None:
    """Send frames of `seed`, and expect those of ``seed + 1``."""
    end = End(get_transport("shm").connect(address, Options(frame_limit=FRAME_LIMIT, queue_bytes=1 << 20), 30))
    check(end, seed, seed + 1, longest)
    end.connection.close()


def check(end: End, mine: int, theirs: int, longest: int) -> None:
    """Send frames of seed `mine` and compare what comes with those of `theirs`, both at once."""
    end.outbox.extend((frame(mine, n, length),) for n, length in enumerate(lengths(mine, longest)))
    expected = lengths(theirs, longest)
    received = 0

    def compared() -> bool:
        nonlocal received
        for found in end.frames:
            assert np.array_equal(found, frame(theirs, received, expected[received])), f"frame {received} is another"
            received += 1
        end.frames.clear()
        assert end.lost is None or received == expected.size, end.lost
        return received == expected.size and end.idle

    drive(end, until=compared)


def flood(address: str, length: int) -> None:
    """Send frames for good, each full of its number."""
    end = End(get_transport("shm").connect(address, Options(frame_limit=FRAME_LIMIT, queue_bytes=1), 30))
    number = 0
    while True:
        end.outbox.append((np.full(length, number % 251, np.uint8),))
        number += 1
        drive(end, until=lambda: not end.outbox)


def echo(address: str) -> None:
    """Send back what comes."""
    end = Echo(get_transport("shm").connect(address, Options(frame_limit=FRAME_LIMIT, queue_bytes=1 << 20), 30))
    drive(end, until=lambda: end.lost is not None)


def connect_and_close(address: str) -> None:
    """Connect for good, which makes and unlinks segments."""
    while True:
        get_transport("shm").connect(address, Options(), 30).close()


class Forks:
    """The script as a test has it: starts one process at a time, and tells how it ended."""

    def __init__(self) -> None:
        self._script = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=environment(),
        )  # fmt: skip

    def start(self, task: str, *arguments: object) -> int:
        """Start a process that does `task`; return its pid."""
        self._script.stdin.write(json.dumps([task, *arguments]) + "\n")
        return int(self._script.stdout.readline())

    def wait(self) -> int:
        """Return the exit code of the process when it has ended."""
        return int(self._script.stdout.readline())

    def close(self) -> None:
        """End the script."""
        self._script.communicate()


def main() -> None:
    """Fork a process for each line, and say its pid and how it ended."""
    prepare(ring.requests())
    for line in sys.stdin:
        task, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                globals()[task](*arguments)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(pid, flush=True)  # noqa: T201
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
