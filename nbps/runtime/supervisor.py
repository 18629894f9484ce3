"""The process between the driver and its workers: imports and compiles once, forks the workers, and outlives none.

One import of Numba and one copy of the machine code serve all workers (copy-on-write). The supervisor has one thread,
so forking is sound, and its workers can ask the kernel to be killed with it. When the driver dies, by whatever signal,
the control socket ends: the supervisor kills the workers, also those that sit in a kernel, and removes the driver's
segments.

Messages on the control socket (``multiprocessing.connection``, between our own processes only):
driver sends the preload; supervisor answers ``("started", pids)`` or ``("failed", traceback)``, and later
``("exit", rank, wait status)`` for each worker that ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection

from nbps.runtime import child
from nbps.runtime.segments import remove_orphans

_PR_SET_PDEATHSIG = 1
_DRIVER_EXIT_S = 2.0  # how long a driver whose socket has ended may take to be gone


def main(control_fd: int, worker_fds: list[int]) -> None:
    """Run the supervisor until every worker has ended."""
    driver = os.getppid()
    control = Connection(control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for function, args in pickle.loads(control.recv_bytes()):
            function(*args)
    except EOFError:
        return
    except BaseException:
        with contextlib.suppress(OSError):
            control.send(("failed", traceback.format_exc()))
        return
    pids = [_fork_worker(rank, control, worker_fds) for rank in range(len(worker_fds))]
    for fd in worker_fds:
        os.close(fd)
    with contextlib.suppress(OSError):
        control.send(("started", pids))
    _watch(control, pids)
    if os.getppid() != driver:
        remove_orphans()
    _flush_output()
    os._exit(0)  # the driver waits for this end, and taking down Numba's machine code in order is 0.3 s


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
            child.serve(Connection(worker_fds[rank]))
            status = 0
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


def _watch(control: Connection, pids: list[int]) -> None:
    """Report the end of each worker; kill them all when the driver is gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(control.fileno(), selectors.EVENT_READ)
        running = {}
        for rank, pid in enumerate(pids):
            fd = os.pidfd_open(pid)
            running[fd] = rank, pid
            selector.register(fd, selectors.EVENT_READ)
        while running:
            for key, _ in selector.select():
                if key.fd in running:
                    rank, pid = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(pid, 0)
                    with contextlib.suppress(OSError):
                        control.send(("exit", rank, status))
                else:  # the driver never speaks again: this is the end of its socket
                    selector.unregister(key.fd)
                    for _, pid in running.values():
                        os.kill(pid, signal.SIGKILL)
                    _wait_for_driver()


def _wait_for_driver() -> None:
    deadline = time.monotonic() + _DRIVER_EXIT_S
    driver = os.getppid()
    while os.getppid() == driver and time.monotonic() < deadline:
        time.sleep(0.01)
