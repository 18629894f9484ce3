"""The driver's side of its worker processes: start them, call a function in all of them, notice how they end."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
import numpy as np

from nbps.errors import AbortedError, WorkerDiedError, WorkerError
from nbps.runtime.segments import Segment, attach

# Arrays from this size on travel through shared memory, once for all workers, instead of through a socket to each.
_SHARED_BYTES = 1 << 16
_ALIGNMENT = 64
_BOOT = """
import json, sys
path, control, workers = json.loads(sys.argv[1])
sys.path[:] = path
from nbps.runtime.supervisor import main
main(control, workers)
"""
# One worker is one core: libraries that would start a thread for each core in every worker are told so (as torchrun
# does).
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` where descriptors 0 to 2 are closed: else a worker's print goes to what opens next."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


class WorkerGroup:
    """Worker processes, forked from one supervisor.

    Parameters
    ----------
    count : int
        Number of workers.
    preload : sequence of (callable, args)
        Called in the supervisor before it forks.
    on_stop : callable
        Called when the workers are to stop: makes those that wait for each other give up.
    describe : callable
        Names a worker, given its rank, in errors.
    grace_s : float
        How long workers may take to stop before they are killed.
    """

    def __init__(
        self,
        count: int,
        preload: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        on_stop: Callable[[], None],
        describe: Callable[[int], str],
        grace_s: float = 5.0,
    ) -> None:
        self.pids: list[int] = []
        self._on_stop = on_stop
        self._describe = describe
        self._grace_s = grace_s
        self._exits: dict[int, int] = {}
        self._closed = False
        pairs = [socket.socketpair() for _ in range(count + 1)]
        remote = [theirs.fileno() for _, theirs in pairs]
        # -P: a json.py in the working directory is not the one that is meant.
        path = [str(folder) for folder in sys.path]
        command = [sys.executable, "-P", "-c", _BOOT, json.dumps([path, remote[0], remote[1:]])]
        environment = {**dict.fromkeys(_THREAD_LIMITS, "1"), **os.environ}
        # A process group of its own: Ctrl-C reaches the driver only, which decides.
        self._supervisor = subprocess.Popen(command, pass_fds=remote, process_group=0, env=environment)
        for _, theirs in pairs:
            theirs.close()
        self._control, *self._connections = (Connection(ours.detach()) for ours, _ in pairs)
        self._preload = cloudpickle.dumps(list(preload), protocol=5)

    @property
    def closed(self) -> bool:
        """Whether the workers have ended, or are about to."""
        return self._closed

    def start(self) -> None:
        """Have the supervisor preload and fork; returns when every worker runs."""
        try:
            self._control.send_bytes(self._preload)
            kind, value = self._control.recv()
        except (EOFError, OSError):
            code = self._supervisor.wait()
            raise WorkerDiedError(f"the process that starts the workers ended: {_describe_exit(code)}") from None
        if kind == "failed":
            raise WorkerError(f"the workers could not be started:\n{value}")
        self.pids = value

    def call(self, function: Callable[..., Any], args: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call ``function(*args[rank])`` in every worker; return the results in rank order.

        Arrays among `args` that several ranks share should be one object: they are sent once.

        Raises
        ------
        BaseException
            What a worker raised, with its traceback as a note; the others have stopped by then.
        WorkerDiedError
            If a worker process ended.
        """
        segment, messages = _pack(function, args)
        try:
            for connection, message in zip(self._connections, messages, strict=True):
                with contextlib.suppress(BrokenPipeError, ConnectionError):  # its end is noticed below
                    connection.send_bytes(message)
            return self._collect()
        except BaseException:
            self._stop()
            raise
        finally:
            if segment is not None:
                segment.unlink()

    def _collect(self) -> list[Any]:
        waiting = dict(zip(self._connections, range(len(self._connections)), strict=True))
        results: list[Any] = [None] * len(waiting)
        while waiting:
            for rank in self._ready(waiting):
                del waiting[self._connections[rank]]
                answer = self._receive(rank)
                if answer is None:
                    raise WorkerDiedError(
                        f"{self._describe(rank)} (pid {self.pids[rank]}) ended: {_describe_exit(self._exit_of(rank))}; "
                        f"the other workers were stopped; tables keep what was published before"
                    )
                if answer[0] == "error":
                    raise _remote_error(self._describe(rank), *answer[1:])
                if answer[0] == "aborted":
                    raise AbortedError(f"{self._describe(rank)} was stopped")
                results[rank] = pickle.loads(answer[1])
        return results

    def _ready(self, waiting: dict[Connection, int]) -> list[int]:
        """Wait for some of the `waiting` ranks to answer or end; return those that did."""
        # A process that a worker forked keeps its socket open, so its end is also told by the supervisor.
        sources = [*waiting] if self._control.closed else [*waiting, self._control]
        ready = wait(sources)
        if self._control in ready:
            self._read_exit()
        ended = [connection for connection, rank in waiting.items() if rank in self._exits]
        return [waiting[connection] for connection in waiting if connection in ready or connection in ended]

    def _read_exit(self) -> bool:
        """Take one message about the end of a worker from the supervisor; False if it will send none any more."""
        try:
            _, rank, status = self._control.recv()
        except (EOFError, OSError):
            self._control.close()
            return False
        self._exits[rank] = os.waitstatus_to_exitcode(status)
        return True

    def _receive(self, rank: int) -> tuple[Any, ...] | None:
        if rank in self._exits and not self._connections[rank].poll():
            return None
        try:
            return pickle.loads(self._connections[rank].recv_bytes())  # type: ignore[no-any-return]
        except (EOFError, OSError):
            return None

    def _exit_of(self, rank: int) -> int | None:
        """Exit code of worker `rank`, negative for a signal; None if the supervisor cannot tell."""
        deadline = time.monotonic() + 1.0
        while rank not in self._exits and not self._control.closed:
            if not self._control.poll(max(0.0, deadline - time.monotonic())) or not self._read_exit():
                break
        return self._exits.get(rank)

    def _stop(self) -> None:
        """End all workers: ask, wait `grace_s`, kill."""
        try:
            self._on_stop()
            for rank, pid in enumerate(self.pids):
                if self._exits.get(rank) is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGINT)
        finally:
            self.close()

    def close(self) -> None:
        """Let idle workers end; kill those that have not within `grace_s`, or at once at Ctrl-C."""
        if self._closed:
            return
        self._closed = True
        for connection in self._connections:
            connection.close()
        try:
            self._supervisor.wait(self._grace_s if self.pids else 0.0)
        except subprocess.TimeoutExpired:
            self.kill()
        except BaseException:
            self.kill()
            raise
        self._control.close()

    def kill(self) -> None:
        """End all workers at once."""
        self._closed = True
        self._control.close()  # the supervisor kills its workers
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(0.5)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._supervisor.pid, signal.SIGKILL)
        self._supervisor.wait()


def _pack(function: Callable[..., Any], args: Sequence[tuple[Any, ...]]) -> tuple[Segment | None, list[bytes]]:
    """Pickle one call for each rank; large arrays go to one segment, each once even if several ranks get it."""
    places: dict[tuple[int, int], tuple[int, int]] = {}
    arrays: list[tuple[int, memoryview]] = []
    end = 0
    packed = []
    for rank_args in args:
        extents: list[tuple[int, int]] = []

        def keep(buffer: pickle.PickleBuffer, extents: list[tuple[int, int]] = extents) -> bool:
            nonlocal end
            view = buffer.raw()
            if view.nbytes < _SHARED_BYTES:
                return True  # in the pickle itself
            key = (np.frombuffer(view, np.uint8).ctypes.data, view.nbytes)
            if key not in places:
                places[key] = (end, end + view.nbytes)
                arrays.append((end, view))
                end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
            extents.append(places[key])
            return False

        payload = cloudpickle.dumps((function, rank_args), protocol=5, buffer_callback=keep)
        packed.append((extents, payload))
    if not arrays:
        return None, [pickle.dumps((None, [], payload)) for _, payload in packed]
    segment = Segment("arguments", end)
    try:
        memory = attach(segment.name)
        for start, view in arrays:
            memory[start : start + view.nbytes] = np.frombuffer(view, np.uint8)
        return segment, [pickle.dumps((segment.name, extents, payload)) for extents, payload in packed]
    except BaseException:
        segment.unlink()
        raise


def _remote_error(worker: str, pickled: bytes | None, name: str, text: str) -> BaseException:
    note = f"\nraised in {worker}:\n{text}"
    error: BaseException = WorkerError(name) if pickled is None else pickle.loads(pickled)
    error.add_note(note)
    return error


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "killed together with the process that watches it"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}{hint})"
