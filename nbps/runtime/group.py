"""The driver's side of its worker processes: start them, call a function in all of them, notice how they end."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from types import MappingProxyType
from typing import Any

from nbps.errors import NodeError, SharedMemoryError, TransportError, WorkerDiedError, WorkerError
from nbps.runtime import calls
from nbps.runtime.descriptors import send_descriptors
from nbps.runtime.forkserver import ForkServer, Load
from nbps.runtime.supervisor import INTERRUPT, STOP, Equipment
from nbps.runtime.surroundings import Surroundings

_STOPPED_S = 1.0  # a supervisor that was silent for so long may have been stopped
_SIGNAL_HINTS: dict[int, str] = {
    signal.SIGKILL: "; out of memory?",
    signal.SIGSEGV: "; a row id out of range in a kernel? kernels check nothing",
}
Listen = tuple[Connection, Callable[[], None]]  # what else to listen to, and what takes a message from it


class WorkerGroup:
    """Worker processes, forked from one supervisor.

    Parameters
    ----------
    server : ForkServer
        From which the supervisor is forked.
    count : int
        Number of workers.
    companions : mapping of str to sequence of int
        What ``ps`` calls processes beside the workers, forked from the same supervisor: ranks `count` and up; and the
        descriptors that only this one has. Each carries out one call, which is to last as long as the group; the end
        of one of them ends the group.
    inherited : sequence of int
        Descriptors that all of them have. Each descriptor has there the number that it has here.
    load : (callable, args)
        Called in the fork server: loads what is ready for this job and for others.
    preload : sequence of (callable, args)
        Called in the supervisor before it forks.
    on_stop : callable
        Called, with the reason and the error, when the workers are to stop: makes those that wait for each other give
        up.
    describe : callable
        Names a worker, given its rank, in errors.
    grace_s : float
        How long workers may take to stop before they are killed.
    """

    def __init__(
        self,
        server: ForkServer,
        count: int,
        load: Load,
        preload: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        on_stop: Callable[[str, BaseException], None],
        describe: Callable[[int], str],
        grace_s: float = 5.0,
        companions: Mapping[str, Sequence[int]] = MappingProxyType({}),
        inherited: Sequence[int] = (),
    ) -> None:
        self.pids: list[int] = []
        self._workers = range(count)
        self._companions = set(range(count, count + len(companions)))
        self._on_stop = on_stop
        self._describe = describe
        self._grace_s = grace_s
        self._exits: dict[int, int | None] = {}  # by rank; None if nobody is left who could tell
        self._closed = False
        self._failed = ""  # whose error is being raised
        self._preload = calls.dumps(list(preload))
        names = [*(f"nbps-worker-{rank}" for rank in self._workers), *companions]
        pipes = [Pipe() for _ in names]
        self._connections = [ours for ours, _ in pipes]
        folder = os.open(".", os.O_PATH)
        try:
            own = [[theirs.fileno()] for _, theirs in pipes]
            for numbers, more in zip(own[count:], companions.values(), strict=True):
                numbers.extend(more)
            equipment = Equipment(Surroundings.of_now(folder), names, own, list(inherited))
            message = pickle.dumps(equipment)  # first: what may fail must not leave a supervisor that waits for it
            self._supervisor = server.fork(load)
            self._control = self._supervisor.control
            try:
                self._control.send_bytes(message)
                send_descriptors(self._control, equipment.descriptors)
            except ConnectionError:
                pass  # `start` tells of its end
            except BaseException:
                self._supervisor.kill()  # it would wait for the rest as long as somebody keeps the error
                raise
        finally:
            os.close(folder)
            for _, theirs in pipes:
                theirs.close()

    @property
    def closed(self) -> bool:
        """Whether the workers have ended, or are about to."""
        return self._closed

    def start(self) -> None:
        """Have the supervisor preload and fork; returns when every worker runs."""
        try:
            self._control.send_bytes(self._preload)
            while not self._control.poll(_STOPPED_S):
                self._supervisor.go_on()
            kind, value = self._control.recv()
        except (EOFError, OSError):
            code = self._supervisor.wait()
            raise WorkerDiedError(f"the process that starts the workers ended: {_describe_exit(code)}") from None
        if kind == "failed":
            what, text = value
            error = WorkerError(f"the workers could not be started: {what}")
            error.add_note(f"\nraised in the process that starts the workers:\n{text}")
            raise error
        self.pids = value

    def accompany(self, rank: int, function: Callable[..., Any], *args: Any) -> None:
        """Start ``function(rank, *args)`` in companion `rank`."""
        _, message = calls.pack((function, args))
        with contextlib.suppress(ConnectionError):  # `wait_for` notices its end
            self._connections[rank].send_bytes(message)

    def call(self, function: Callable[..., Any], *args: Any, listen: Listen | None = None) -> list[Any]:
        """Call ``function(rank, *args)`` in every worker; return the results in rank order.

        Arrays among `args` arrive read-only. Meanwhile `listen` is heeded as in `wait_for`.

        Raises
        ------
        Exception
            What a worker raised, with its traceback as a note; the others have stopped by then.
        WorkerError
            If it cannot be raised here, or would end the driver, as `SystemExit` does.
        WorkerDiedError
            If a worker process ended.
        """
        segment, message = calls.pack((function, args))
        try:
            for rank in self._workers:
                with contextlib.suppress(ConnectionError):  # its end is noticed below
                    self._connections[rank].send_bytes(message)
            return self._collect(listen)
        except BaseException as error:
            self._stop(error)
            raise
        finally:
            if segment is not None:
                segment.unlink()

    def wait_for(self, listen: Listen, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done`, calling ``listen[1]()`` whenever there is something on the connection ``listen[0]``.

        Raises
        ------
        Exception
            What the call raises, or a companion; the workers have stopped by then.
        WorkerDiedError
            If a companion ended.
        """
        try:
            while not is_done():
                self._ready(set(), listen)
        except BaseException as error:
            self._stop(error)
            raise

    def fail(self, error: BaseException) -> None:
        """End all workers between two calls because the program raised `error`."""
        self._failed = "its program raised "
        self._stop(error)

    def _collect(self, listen: Listen | None) -> list[Any]:
        waiting = set(self._workers)
        results: list[Any] = [None] * len(waiting)
        while waiting:
            for rank in self._ready(waiting, listen):
                waiting.remove(rank)
                answer = self._receive(rank)
                if answer is None:
                    raise WorkerDiedError(
                        f"{self._describe(rank)} (pid {self.pids[rank]}) ended: {_describe_exit(self._exit_of(rank))}; "
                        f"the other workers were stopped; tables keep what was published before"
                    )
                if answer[0] == "error":
                    self._failed = f"{self._describe(rank)} raised "
                    raise _remote_error(self._describe(rank), *answer[1:])
                results[rank] = pickle.loads(answer[1])
        return results

    def _ready(self, waiting: set[int], listen: Listen | None) -> list[int]:
        """Wait for some of the `waiting` ranks to answer or end, or for something to listen to; return those ranks."""
        # A process that a worker forked keeps its socket open, so its end is also told by the supervisor.
        sources = [self._connections[rank] for rank in waiting | self._companions]
        if not self._control.closed:
            sources.append(self._control)
        if listen is not None and not listen[0].closed:
            sources.append(listen[0])
        # The end of a worker may have been told in an earlier run, after it had answered.
        ready = wait(sources, 0 if waiting & self._exits.keys() else None)
        if listen is not None and listen[0] in ready:
            listen[1]()
        if self._control in ready:
            self._read_exit()
        for rank in self._companions:
            if rank in self._exits or self._connections[rank] in ready:
                self._raise_end_of(rank)
        return [rank for rank in waiting if rank in self._exits or self._connections[rank] in ready]

    def _raise_end_of(self, companion: int) -> None:
        answer, what = self._receive(companion), self._describe(companion)
        if answer is not None and answer[0] == "error":
            error = _remote_error(what, *answer[1:])
            if isinstance(error, (NodeError, TransportError, SharedMemoryError)):
                del error.__notes__  # what is wrong is not in the code: its message says all
            raise error
        exit_ = "" if answer is not None else f": {_describe_exit(self._exit_of(companion))}"
        raise WorkerDiedError(f"{what} (pid {self.pids[companion]}) ended{exit_}; the workers were stopped")

    def _read_exit(self) -> None:
        """Take one message about the end of a worker from the supervisor; its own end is that of all workers."""
        try:
            _, rank, status = self._control.recv()
            self._exits[rank] = os.waitstatus_to_exitcode(status)
        except (EOFError, OSError):
            self._control.close()
            self._exits = {rank: self._exits.get(rank) for rank in range(len(self._connections))}

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
        while rank not in self._exits and self._control.poll(max(0.0, deadline - time.monotonic())):
            self._read_exit()
        return self._exits.get(rank)

    def _stop(self, error: BaseException) -> None:
        """End all workers because of `error`: ask, wait `grace_s`, kill."""
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            what = "".join(traceback.format_exception_only(error)).strip()  # its own str() may raise
            self._on_stop("interrupted by Ctrl-C" if interrupted else f"{self._failed}{what}", error)
            self._tell(INTERRUPT)
        finally:
            self.close()

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended, and its workers with it
            self._control.send_bytes(message)

    def close(self) -> None:
        """Let idle workers end; kill those that have not within `grace_s`, or at once at Ctrl-C."""
        if self._closed:
            return
        self._closed = True
        for connection in self._connections:
            connection.close()
        try:
            self._supervisor.wait(self._grace_s if self.pids else 0.0)
        except TimeoutError:
            self.kill()
        except BaseException:
            self.kill()
            raise
        self._control.close()

    def kill(self) -> None:
        """End all workers at once."""
        self._closed = True
        self._tell(STOP)
        self._control.close()
        try:
            self._supervisor.wait(0.5)
        except TimeoutError:  # it still runs the preload
            self._supervisor.kill()
            with contextlib.suppress(TimeoutError):  # the fork server is busy, but will
                self._supervisor.wait(self._grace_s)


def _remote_error(worker: str, pickled: bytes, name: str, text: str) -> Exception:
    note = f"\nraised in {worker}:\n{text}"
    try:
        error: Exception = pickle.loads(pickled)
        error.add_note(note)
    except Exception:  # it does not travel, its class is not known here, or it takes no notes
        error = WorkerError(name)
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
    return f"killed by signal {-code} ({name}{_SIGNAL_HINTS.get(-code, '')})"
