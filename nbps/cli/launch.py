"""The processes of ``nbps run``: one for each node, their output, and how they end.

One thread and one ``poll`` loop, which never waits for a single thing: a terminal that is stopped, a node that prints
without end and a node that hangs hold up nobody's exit, and a signal is forwarded at once.

Every node is a session of its own. Ctrl-C reaches this process alone, which decides; and the first node, which
inherits the terminal, may read from it without being stopped as a background process would be.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from nbps.cli.output import Sink, Source
from nbps.transport.mesh.roll import Roll, describe

# A node outlives us in no case, not even kill -9. The request is about the thread that started the node, and survives
# exec; in a program of its own, because a function between fork and exec is not safe beside threads of libraries.
_STUB = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_TERMINATION_S = 5.0  # between SIGTERM and SIGKILL
_DRAIN_S = 1.0  # how long after the last node a process that it left behind is still listened to
_LONGEST_POLL_S = 3600.0  # poll refuses more than 24 days
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ending:
    """How a run ended: which node failed first, if any, and the signal that was forwarded before that.

    `status` is an exit code, or the negative number of a signal. `left` is the node because of which it failed, if that
    one left the job of the others and ended well.
    """

    rank: int | None = None
    status: int = 0
    interrupted_by: int | None = None
    left: int | None = None

    @property
    def exit_code(self) -> int:
        """What a shell would say."""
        if self.rank is None:
            return 0
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        return self.status if self.status >= 0 else 128 - self.status


@dataclass(eq=False)
class _Node:
    rank: int
    process: subprocess.Popen[bytes]
    exit_fd: int  # readable when the process has ended

    def signal(self, number: int) -> None:
        """Send a signal to the node's process and those it started itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Launch:
    """Runs a command once for each node.

    Parameters
    ----------
    command : sequence of str
        What comes after ``python``.
    environments : mapping of int to mapping of str to str
        The environment of each rank; the first one gets the terminal.
    grace_s : float
        How long the others may run after one has failed.
    roll : Roll or None
        On which all nodes of the job stand, if they are all here.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Mapping[int, Mapping[str, str]],
        grace_s: float,
        roll: Roll | None = None,
    ) -> None:
        self._command = list(command)
        self._environments = environments
        self._grace_s = grace_s
        self._running: dict[int, _Node] = {}
        self._sources: list[Source] = []
        self._out, self._err = _sinks()
        self._signals: list[int] = []  # not yet forwarded
        self._interrupts = 0
        self._forwarded: int | None = None
        self._roll = roll
        self._failed: dict[int, tuple[float, int]] = {}  # when a node failed by itself, and how it ended
        self._ended_well: list[int] = []
        self._interrupted_by: int | None = None  # the signal that was forwarded before any failed
        self._deadline = float("inf")
        self._escalation: list[int] = []  # signals that come at the next deadlines

    def run(self) -> Ending:
        """Run to the end of all nodes and of their output."""
        with self._catch_signals() as wakeup, contextlib.ExitStack() as stack:
            stack.callback(self._kill_all)
            for rank in self._environments:
                self._start(rank)
            while self._running:
                self._step(wakeup, self._deadline)
            self._drain(wakeup)
        if not self._failed:
            return Ending()
        rank = min(self._failed, key=lambda rank: self._failed[rank][0])  # of equal ones that which ended first
        failed_at, status = self._failed[rank]
        left = self._ended_well[0] if failed_at == float("inf") and self._ended_well else None
        return Ending(rank, status, self._interrupted_by, left)

    def _start(self, rank: int) -> None:
        first = not self._running
        direct = {sink: first and (len(self._environments) == 1 or os.isatty(sink.fd)) for sink in self._sinks()}
        pipes = {sink: None if direct[sink] else os.pipe2(os.O_CLOEXEC) for sink in self._sinks()}
        ends = {sink: None if pipe is None else pipe[1] for sink, pipe in pipes.items()}
        # Through a pipe Python would write blocks, long after the lines were printed.
        options = [] if direct[self._out] else ["-u"]
        command = [sys.executable, *options, *self._command]
        process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", _STUB, str(os.getpid()), *command],
            env=self._environments[rank],
            stdin=None if first else subprocess.DEVNULL,
            stdout=ends[self._out],
            stderr=ends[self._err],
            start_new_session=True,
        )
        self._running[rank] = _Node(rank, process, os.pidfd_open(process.pid))
        prefix = b"" if first else f"[node {rank}] ".encode()
        for sink, pipe in pipes.items():
            if pipe is not None:
                os.close(pipe[1])
                self._sources.append(Source(pipe[0], sink, prefix))

    def _sinks(self) -> list[Sink]:
        return [self._out] if self._out is self._err else [self._out, self._err]

    def _step(self, wakeup: socket.socket, deadline: float) -> None:
        """Wait for the next event and act on it: signals before exits, exits before output."""
        actions: dict[int, tuple[int, Callable[[], None]]] = {}
        actions[wakeup.fileno()] = select.POLLIN, lambda: self._forward(wakeup)
        for node in self._running.values():
            actions[node.exit_fd] = select.POLLIN, lambda node=node: self._on_exit(node)  # type: ignore[misc]
        for sink in self._sinks():
            if sink.pending:
                actions[sink.fd] = select.POLLOUT, sink.write
        for source in self._sources:
            if source.sink.has_room:
                actions[source.fd] = select.POLLIN, source.read
        poll = select.poll()
        for fd, (events, _) in actions.items():
            poll.register(fd, events)
        left_s = min(max(0.0, deadline - time.monotonic()), _LONGEST_POLL_S)
        ready = {fd for fd, _ in poll.poll(1000 * left_s)}
        for fd, (_, act) in actions.items():
            if fd in ready:
                act()
        self._close_sources(source for source in self._sources if source.ended or source.sink.broken)
        if time.monotonic() >= self._deadline:
            self._escalate()

    def _on_exit(self, node: _Node) -> None:
        del self._running[node.rank]
        status = node.process.wait()
        os.close(node.exit_fd)
        failed_at = None
        if self._roll is not None:
            self._roll.end(node.rank, status)
            failed_at = self._roll.failed_at(node.rank)
        if status == 0:
            self._ended_well.append(node.rank)
            return
        is_first = not self._failed
        self._failed[node.rank] = time.monotonic() if failed_at is None else failed_at, status
        if not is_first:
            return
        self._interrupted_by = self._forwarded
        if self._running:
            self._deadline = time.monotonic() + self._grace_s
            self._escalation = [signal.SIGTERM, signal.SIGKILL]
            if self._forwarded is None:  # else it was asked to
                limited = self._grace_s < float("inf")
                others = f"the others have {self._grace_s:g} s to end" if limited else "the others go on"
                how = "ended because of another" if failed_at == float("inf") else "failed"
                how += "".join(f" after node {rank}" for rank in self._failed_before(self._failed[node.rank][0]))
                self._note(f"node {node.rank} {how}: {describe(status)}; {others}")

    def _failed_before(self, failed_at: float) -> list[int]:
        """Return the running node, if any, whose job was the first to fail, if that was before the time given."""
        times = {rank: self._roll.failed_at(rank) for rank in self._running} if self._roll is not None else {}
        known = {rank: at for rank, at in times.items() if at is not None and at < failed_at < float("inf")}
        return sorted(known, key=known.__getitem__)[:1]

    def _escalate(self) -> None:
        number = self._escalation.pop(0)
        ranks = ", ".join(str(rank) for rank in self._running)
        if self._running:
            self._note(f"ending node {ranks}, still running, by {signal.Signals(number).name}")
        for node in self._running.values():
            node.signal(number)
        self._deadline = time.monotonic() + _TERMINATION_S if self._escalation else float("inf")

    def _forward(self, wakeup: socket.socket) -> None:
        wakeup.recv(4096)
        while self._signals:
            number = self._signals.pop(0)
            self._interrupts += number == signal.SIGINT
            self._forwarded = self._forwarded or number
            for node in self._running.values():
                node.signal(signal.SIGKILL if number == signal.SIGINT and self._interrupts > 1 else number)

    def _drain(self, wakeup: socket.socket) -> None:
        """Pass on what the nodes printed last; a process that a node left behind keeps its pipe open for good."""
        self._deadline = float("inf")
        end = time.monotonic() + _DRAIN_S
        while (self._sources or any(sink.pending for sink in self._sinks())) and self._interrupts < 2:
            self._step(wakeup, end)
            if time.monotonic() >= end:
                self._close_sources(source for source in self._sources if not source.has_data)
                end = time.monotonic() + _DRAIN_S

    def _close_sources(self, ended: Iterator[Source]) -> None:
        for source in list(ended):
            source.close()
            self._sources.remove(source)

    def _note(self, text: str) -> None:
        self._err.add(f"nbps run: {text}\n".encode())

    def _kill_all(self) -> None:
        """Leave nothing behind, also after an error of ours."""
        for node in self._running.values():
            node.signal(signal.SIGKILL)
            node.process.wait()
            os.close(node.exit_fd)
        self._close_sources(iter(self._sources))

    @contextlib.contextmanager
    def _catch_signals(self) -> Iterator[socket.socket]:
        """Collect signals and wake up the loop; those that are ignored stay so, as under nohup."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)

        def remember(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        wanted = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, remember) for number in wanted}
        descriptor = signal.set_wakeup_fd(theirs.fileno())
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()


def _sinks() -> tuple[Sink, Sink]:
    """Return standard output and error; one for both if they are the same file, lest lines of both get mixed."""
    out = Sink(1)
    return out, out if os.path.samestat(os.fstat(1), os.fstat(2)) else Sink(2)
