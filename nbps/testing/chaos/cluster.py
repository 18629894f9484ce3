"""The nodes of one job as processes on this machine, for tests that start, watch, stop and kill them.

Each node runs the same script, as on machines of their own: only the environment tells them apart. What belongs to a
node is found by that environment, which every process inherits from the one that started it, also when that one is
gone: driver, fork server, supervisor, workers, agent and whatever else they start. A signal goes to a pidfd whose
process was looked at after it was opened, so never to another process that got the same pid later.

Nothing survives: leaving a `Cluster` kills all of it, and the drivers are killed with the thread that started them,
should a test be killed; what they started goes with them, which is nbps's own promise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from nbps.memory.segments import find_segments, remove_orphans
from nbps.transport import get_transport

T = TypeVar("T")

_MARK = "NBPS_TEST_CLUSTER"
_ROLE = re.compile("nbps-(forkserver|supervisor|worker|agent)")  # in what nbps has its processes called
_POLL_S = 0.01
_LIMIT_S = 60.0
_DUMP_S = 1.0  # for writing the tracebacks of a node that does not do what is waited for
# Runs before the driver: the kernel kills the process when the thread that started it ends.
_BOOT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Host(Protocol):
    """Where a node runs, for instance a host of a test bed: calls functions there."""

    def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call `function` there, in a thread that lives as long as the host, and return what it returns."""


@dataclass(frozen=True)
class Process:
    """A process of a node.

    Attributes
    ----------
    pid, parent : int
    role : str
        ``driver``, ``forkserver``, ``supervisor``, ``worker``, ``agent`` or ``other``.
    """

    pid: int
    parent: int
    role: str


class Node:
    """One node of a `Cluster`; it may be started again after it ended.

    Attributes
    ----------
    rank : int
    pid : int
        Of the driver.
    """

    def __init__(self, rank: int, command: Sequence[str], environment: Mapping[str, str], host: Host | None) -> None:
        self.rank = rank
        self._command = command
        self._environment = dict(environment)
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()  # of all drivers
        # Files without a name: they are gone with the last process that has them open.
        self._files = [os.memfd_create(f"node {rank} {what}", os.MFD_CLOEXEC) for what in ("output", "errors")]
        for file in self._files:  # its processes write at once, and would write over each other
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
        self._final: list[str] = []  # what was in them, when they are closed

    @property
    def pid(self) -> int:
        """Of the driver that was started last."""
        if self._process is None:
            raise ValueError(f"node {self.rank} has not been started")
        return self._process.pid

    @property
    def output(self) -> str:
        """What its processes have written to standard output so far, since the first start."""
        return self._texts()[0]

    @property
    def errors(self) -> str:
        """What they have written to standard error."""
        return self._texts()[1]

    def _texts(self) -> list[str]:
        if self._final:
            return self._final
        return [os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace") for file in self._files]

    @property
    def returncode(self) -> int | None:
        """How the driver ended, as in `subprocess`; None if it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the driver. Call it from a thread that lives on: the driver does not outlive it."""
        if self._process is not None and self._process.poll() is None:
            raise ValueError(f"node {self.rank} runs already, pid {self.pid}")
        start = subprocess.Popen if self._host is None else self._start_there
        self._process = start(
            [sys.executable, "-ISc", _BOOT, str(os.getpid()), *self._command], stdin=subprocess.DEVNULL,
            stdout=self._files[0], stderr=self._files[1], env=self._environment, process_group=0,
        )  # fmt: skip
        self._pids.add(self._process.pid)

    def _start_there(self, *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        assert self._host is not None
        return self._host.call(subprocess.Popen, *args, **kwargs)

    def wait(self, timeout_s: float = _LIMIT_S) -> int:
        """Wait until the driver has ended; return its exit code as `subprocess` does.

        Raises
        ------
        TimeoutError
            If it does not end: with all output, and the Python tracebacks of its processes, which are killed.
        """
        self._until(lambda: self.returncode is not None, "to end", timeout_s)
        assert self.returncode is not None
        return self.returncode

    def until(self, text: str, timeout_s: float = _LIMIT_S) -> None:
        """Wait until its standard output contains `text`.

        Raises
        ------
        TimeoutError
            If that does not come; as in `wait`.
        ChildProcessError
            If all its processes ended without it.
        """

        def said() -> bool:
            # Asked first: what it said before its end counts.
            ended = self.returncode is not None and not self.processes()
            if text in self.output:
                return True
            if ended:
                raise ChildProcessError(f"node {self.rank} ended before it said {text!r}\n{self.story()}")
            return False

        self._until(said, f"to say {text!r}", timeout_s)

    def _until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        try:
            eventually(condition, f"node {self.rank} {what}", timeout_s)
        except TimeoutError as error:
            who = [f"{process.role} {process.pid}" for process in self.processes()]
            self.send(signal.SIGABRT)  # faulthandler writes the tracebacks
            self.send(signal.SIGCONT)
            time.sleep(_DUMP_S)
            raise TimeoutError(f"{error}; it had {who}\n{self.story()}") from None

    def story(self) -> str:
        """Return exit code and output, for messages."""
        return (
            f"--- node {self.rank}, exit code {self.returncode}, standard output:\n{self.output}\n"
            f"--- node {self.rank}, standard error:\n{self.errors}\n---"
        )

    def processes(self, role: str | None = None) -> list[Process]:
        """Return the processes of this node that run, those of `role` only, in the order of their pids.

        Pids usually grow with the ranks of the workers; a test that must know has its workers say their pids.
        """
        mark = f"{_MARK}={self._environment[_MARK]}".encode()
        found = _marked(mark)
        processes = [Process(pid, parent, self._role(pid, name)) for pid, (parent, name) in sorted(found.items())]
        return [process for process in processes if role in (None, process.role)]

    def _role(self, pid: int, name: str) -> str:
        if pid in self._pids:
            return "driver"
        called = _ROLE.match(name)
        return "other" if called is None else called[1]

    def pids(self, role: str | None = None) -> list[int]:
        """Return the pids of `processes`."""
        return [process.pid for process in self.processes(role)]

    def send(self, number: signal.Signals, role: str | None = None) -> int:
        """Send a signal to all processes of this node, or those of `role`; return how many there were."""
        return sum(self.send_to(pid, number) for pid in self.pids(role))

    def send_to(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal to process `pid` of this node; return whether it ran."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if f"{_MARK}={self._environment[_MARK]}".encode() not in _environment_of(pid):
                return False  # another process has its pid now
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def kill(self) -> None:
        """Kill the whole node, as when its power fails: none of its processes sees another one die.

        Their sockets are closed by the kernel all the same; on a host of a test bed, unplug it first to have silence.
        """
        while self.send(signal.SIGSTOP) and self.send(signal.SIGKILL):
            time.sleep(_POLL_S)
        if self._process is not None:
            self._process.wait(_LIMIT_S)

    def close(self) -> None:
        """Kill what runs, and keep the output where it needs no file. Idempotent."""
        self.kill()
        self._final = self._texts()
        while self._files:
            os.close(self._files.pop())

    def left_behind(self) -> list[str]:
        """Return what remains of this node: processes that run, and segments of its drivers and of those processes."""
        processes = self.processes()
        owners = self._pids | {process.pid for process in processes}
        segments = [f"segment {found.name}" for found in find_segments() if found.pid in owners and not found.foreign]
        return [f"{process.role} {process.pid}" for process in processes] + segments


class Cluster:
    """The nodes of a job; use it as a context manager. Nothing is started before `start`.

    Parameters
    ----------
    script : str or Path
        Python file that every node runs.
    nodes : int
    arguments : sequence of str
        Of the script.
    transport : str
        ``NBPS_TRANSPORT``.
    rendezvous : str, optional
        ``NBPS_RENDEZVOUS``; a free one on this machine if not given.
    seen_from : mapping of int to str
        Another rendezvous for some ranks, for instance the address of a `nbps.testing.transport.proxy.ChaosProxy`.
    hosts : sequence of Host, optional
        Where each node runs; here if not given.
    environment : mapping of str to str
        Variables for all nodes, besides this process's own.

    Attributes
    ----------
    nodes : list of Node
    rendezvous : str
    """

    def __init__(
        self,
        script: str | Path,
        nodes: int,
        arguments: Sequence[str] = (),
        *,
        transport: str = "tcp",
        rendezvous: str | None = None,
        seen_from: Mapping[int, str] | None = None,
        hosts: Sequence[Host] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if hosts is not None and len(hosts) != nodes:
            raise ValueError(f"{len(hosts)} hosts for {nodes} nodes; expected one for each")
        name = secrets.token_hex(8)
        self.rendezvous = get_transport(transport).free_rendezvous(name) if rendezvous is None else rendezvous
        common = {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONUNBUFFERED": "1",
            "NBPS_NODES": str(nodes),
            "NBPS_TRANSPORT": transport,
            "NBPS_SECRET": secrets.token_hex(16),
            "NBPS_JOB": name,
            **(environment or {}),
        }
        self.nodes = []
        for rank in range(nodes):
            own = {
                "NBPS_NODE_RANK": str(rank),
                "NBPS_RENDEZVOUS": (seen_from or {}).get(rank, self.rendezvous),
                _MARK: f"{name}-{rank}",
            }
            command = [sys.executable, str(script), *arguments]
            host = None if hosts is None else hosts[rank]
            self.nodes.append(Node(rank, command, {**common, **own}, host))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for story in [node.story() for node in self.nodes]:
                if story not in str(error):
                    error.add_note(story)
        self.close()

    def start(self, *ranks: int) -> None:
        """Start the nodes of these ranks; all if none is given."""
        for node in [self.nodes[rank] for rank in ranks] or self.nodes:
            node.start()

    def wait(self, timeout_s: float = _LIMIT_S) -> list[int]:
        """Wait until all drivers have ended; return their exit codes. Raises what `Node.wait` does."""
        limit = time.monotonic() + timeout_s
        return [node.wait(max(0.0, limit - time.monotonic())) for node in self.nodes]

    def left_behind(self) -> list[str]:
        """Return what remains of all nodes; after they ended in good order, or had time to clean up, nothing does."""
        return [f"node {node.rank}: {what}" for node in self.nodes for what in node.left_behind()]

    def close(self) -> None:
        """Kill what runs, and remove its segments; the output can still be read. Idempotent."""
        for node in self.nodes:
            node.close()
        remove_orphans()


def eventually(condition: Callable[[], object], what: str, timeout_s: float = _LIMIT_S) -> None:
    """Wait until `condition` holds.

    Raises
    ------
    TimeoutError
        If it does not within the time limit; says `what` was waited for.
    """
    limit = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {round(timeout_s, 2)} s for {what}")
        time.sleep(_POLL_S)


def _environment_of(pid: int) -> list[bytes]:
    """Variables that process `pid` was started with; empty if it has ended, or belongs to somebody else."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _marked(mark: bytes) -> dict[int, tuple[int, str]]:
    """Parent and name of every process that runs and was started with variable `mark`."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and mark in _environment_of(int(folder.name)):
            with contextlib.suppress(OSError):  # it has ended
                # The second field is the name in parentheses and may hold anything.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in ("Z", "X"):
                    found[int(folder.name)] = int(fields[1]), (folder / "comm").read_text().strip()
    return found
