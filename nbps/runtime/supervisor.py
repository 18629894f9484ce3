"""The process between the driver and its workers: imports and compiles once, forks the workers, and outlives none.

One import of Numba and one copy of the machine code serve all workers (copy-on-write). The supervisor has one thread,
so forking is sound, and its workers can ask the kernel to be killed with it. When the driver dies, by whatever signal,
the supervisor kills the workers, also those that sit in a kernel, and removes the driver's segments. It learns of that
death from a pidfd: processes that the driver forked keep its end of the control socket open.

Messages on the control socket (``multiprocessing.connection``, between our own processes only):
driver sends the preload; supervisor answers ``("started", pids)`` or ``("failed", traceback)``, and later
``("exit", rank, wait status)`` for each worker that ended. The driver asks for signals, which only the parent of a
process can send to it for certain: ``interrupt`` for SIGINT, ``stop`` for SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

from nbps.errors import AbortedError
from nbps.memory.segments import remove_orphans
from nbps.runtime import child

_PR_SET_PDEATHSIG = 1


def main(driver_pid: int, control_fd: int, worker_fds: list[int]) -> None:
    """Run the supervisor until every worker has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        driver = os.pidfd_open(driver_pid)
    except ProcessLookupError:
        remove_orphans()
        return
    control = Connection(control_fd)
    _watch(control, driver, _start(control, driver, worker_fds))
    if wait([driver], 0):
        remove_orphans()
    _flush_output()
    os._exit(0)  # the driver waits for this end, and taking down Numba's machine code in order is 0.3 s


def _start(control: Connection, driver: int, worker_fds: list[int]) -> list[int]:
    """Preload and fork; return the pids of the workers, none if that failed or is not wanted any more."""
    pids: list[int] = []
    preload = _receive(control, driver)
    if preload is None or preload == b"stop":
        return pids
    try:
        for function, args in pickle.loads(preload):
            function(*args)
        for rank in range(len(worker_fds)):
            pids.append(_fork_worker(rank, control, worker_fds))
        answer: tuple[str, Any] = "started", pids
    except BaseException:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        pids = []
        answer = "failed", traceback.format_exc()
    for fd in worker_fds:
        os.close(fd)
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


def _fork_worker(rank: int, control: Connection, worker_fds: list[int]) -> int:
    _flush_output()  # else both processes print what is buffered
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == supervisor:  # else it died before the request
            control.close()
            for other, fd in enumerate(worker_fds):
                if other != rank:
                    os.close(fd)
            child.serve(rank, Connection(worker_fds[rank]))
            status = 0
    except AbortedError:
        status = 128 + signal.SIGINT  # as a shell says it
    except BaseException:
        traceback.print_exc()
    finally:
        _flush_output()
        os._exit(status)


def _flush_output() -> None:
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
            interrupt = _receive(control, driver) == b"interrupt"
            if not interrupt:
                listening = []
            for _, pid in running.values():
                os.kill(pid, signal.SIGINT if interrupt else signal.SIGKILL)
