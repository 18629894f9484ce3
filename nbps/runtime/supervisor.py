"""The process between the driver and the workers of one job: forks the workers, and outlives none.

It is forked from `nbps.runtime.forkserver`, takes on what the driver would hand to a process that it started now, and
runs the preload. It has one thread, so forking is sound, and its workers can ask the kernel to be killed with it, as it
is with the fork server. When the driver dies, by whatever signal, the supervisor kills the workers, also those that sit
in a kernel. It learns of that death from a pidfd: processes that the driver forked keep its end of the control socket
open.

Messages on the control socket (``multiprocessing.connection``, between our own processes only):
driver sends a pickled `Equipment`, the descriptors named in it, and the preload; supervisor answers ``("started",
pids)`` or ``("failed", (error, traceback))``, and later ``("exit", rank, wait status)`` for each worker that ended. The
driver asks for signals, which only the parent of a process can send to it for certain: `INTERRUPT` for SIGINT, `STOP`
for SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from nbps.errors import AbortedError
from nbps.memory.segments import remove_orphans
from nbps.runtime import child
from nbps.runtime.descriptors import beside, receive_descriptors, renumber
from nbps.runtime.naming import name_process
from nbps.runtime.surroundings import Surroundings

INTERRUPT, STOP = b"interrupt", b"stop"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Equipment:
    """What a supervisor is given.

    Attributes
    ----------
    surroundings : Surroundings
    names : list of str
        Of its workers and companions, by rank, as ``ps`` shows them.
    own : list of list of int
        Descriptors that only one of them has, for each; the first is its socket to the driver.
    inherited : list of int
        Descriptors that all of them have.
    """

    surroundings: Surroundings
    names: list[str]
    own: list[list[int]]
    inherited: list[int]

    @property
    def descriptors(self) -> list[int]:
        """Numbers of all descriptors, here and there."""
        return [self.surroundings.folder, *itertools.chain.from_iterable(self.own), *self.inherited]


def main(control: Connection, driver: int) -> None:
    """Run the supervisor until every worker has ended; `driver` is a pidfd."""
    os.setpgid(0, 0)
    name_process("nbps-supervisor")
    message = _receive(control, driver)
    if message is not None:
        equipment: Equipment = pickle.loads(message)
        control = _out_of_the_way(control, equipment.descriptors)
        driver = beside(driver, equipment.descriptors)
        _watch(control, driver, _start(equipment, control, driver))
    remove_orphans()  # of a driver or an agent that was killed
    flush_output()
    os._exit(0)  # the driver waits for this end, and taking down Numba's machine code in order is 0.3 s


def _out_of_the_way(control: Connection, numbers: list[int]) -> Connection:
    descriptor = beside(control.fileno(), numbers)
    if descriptor == control.fileno():
        return control
    control.close()
    return Connection(descriptor)


def _start(equipment: Equipment, control: Connection, driver: int) -> list[int]:
    """Preload and fork; return the pids of the workers, none if that failed or is not wanted any more."""
    pids: list[int] = []
    try:
        equipment.surroundings.take_limits()
        renumber(receive_descriptors(control, len(equipment.descriptors)), equipment.descriptors)
        equipment.surroundings.take_rest()
        preload = _receive(control, driver)
        if preload is None or preload == STOP:
            return pids
        for function, args in pickle.loads(preload):
            function(*args)
        on_end = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nobody can be waited for where it is ignored
        for rank in range(len(equipment.names)):
            pids.append(_fork_worker(rank, equipment, control, on_end))
        answer: tuple[str, Any] = "started", pids
    except BaseException as error:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        pids = []
        answer = failed(error)
    for descriptor in itertools.chain.from_iterable(equipment.own) if pids else ():
        os.close(descriptor)
    with contextlib.suppress(OSError):
        control.send(answer)
    return pids


def _receive(control: Connection, driver: int) -> bytes | None:
    """Wait for a message of the driver; None if it has died."""
    if driver in wait([control, driver]):
        return None
    try:
        return control.recv_bytes()
    except (EOFError, OSError):
        wait([driver])  # it is about to be gone: its descriptors are closed just before
        return None


def failed(error: BaseException) -> tuple[str, tuple[str, str]]:
    """Return what the driver is told where no workers can be forked."""
    what = traceback.format_exception_only(error)[-1].strip()  # its own str() may raise
    return "failed", (what, "".join(traceback.format_exception(error)))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; ends it if it is not `parent` any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _fork_worker(rank: int, equipment: Equipment, control: Connection, on_end: Any) -> int:
    """Fork worker `rank`, which treats the end of its own children as `on_end` says; return its pid."""
    flush_output()  # else both processes print what is buffered
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with(supervisor)
        name_process(equipment.names[rank])
        if on_end is not None:  # which is what Python makes of a handler that is not its own
            signal.signal(signal.SIGCHLD, on_end)
        control.close()
        for descriptor in itertools.chain(*equipment.own[:rank], *equipment.own[rank + 1 :]):
            os.close(descriptor)
        child.serve(rank, Connection(equipment.own[rank][0]))
        status = 0
    except AbortedError:
        status = 128 + signal.SIGINT  # as a shell says it
    except BaseException:
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(status)


def flush_output() -> None:
    """Write what standard output and error have buffered."""
    for stream in (sys.stdout, sys.stderr):
        # None if the driver's was closed; an error if its reader is gone.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _watch(control: Connection, driver: int, pids: list[int]) -> None:
    """Report the end of each worker, and send them the signals that the driver asks for, until all have ended."""
    running = {os.pidfd_open(pid): (rank, pid) for rank, pid in enumerate(pids)}
    listening: list[Connection | int] = [control, driver]
    while running:
        ready = wait([*running, *listening])
        for fd in ready:
            if fd in running:
                rank, pid = running.pop(fd)
                os.close(fd)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):
                    control.send(("exit", rank, status))
        if any(source in ready for source in listening):
            interrupt = _receive(control, driver) == INTERRUPT
            if not interrupt:
                listening = []
            for _, pid in running.values():
                os.kill(pid, signal.SIGINT if interrupt else signal.SIGKILL)
