"""The fork server: a process with Numba and the kernels loaded, from which the supervisor of every job is forked.

Importing and loading takes half a second, a fork a few milliseconds: only the first job of a driver waits. The server
starts with that job, before the first segment, and ends with the driver, by whatever signal that dies; the last thing
it does is to remove the driver's segments. It runs nothing of the user's, so none of its supervisors sees what a
preload of another did, or a module that was edited since; where its surroundings differ in what cannot be taken over
(`nbps.runtime.surroundings`), another server is started.

A request is one message: a pickled ``(function, args)``, which loads what the job needs into the server, and five
descriptors: 0 to 2 of the driver at the time, the supervisor's end of its control socket, and its *lifeline*. On that
the driver may ask for SIGKILL or SIGCONT, and the server tells its wait status. A message with the first three only
asks for loading ahead of the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from nbps.errors import WorkerDiedError
from nbps.memory.segments import remove_orphans
from nbps.runtime import child, supervisor, surroundings
from nbps.runtime.descriptors import fill_standard_descriptors
from nbps.runtime.naming import name_process

Load = tuple[Callable[..., Any], tuple[Any, ...]]
_REQUEST_BYTES, _STANDARD, _DESCRIPTORS = 1 << 16, 3, 5
_LAST_S = 5.0  # for what ends by itself, once it is not wanted any more
_BOOT = """
import json, sys
path, requests, driver = json.loads(sys.argv[1])
sys.path[:] = path
from nbps.runtime.forkserver import main
main(requests, driver)
"""


# ------------------------------------------------------------------------------------------------- the driver's side


class Supervisor:
    """A supervisor as the driver sees it.

    Attributes
    ----------
    control : Connection
        To the supervisor itself.
    """

    def __init__(self, server: ForkServer, control: Connection, lifeline: Connection) -> None:
        self._server = server  # a server that is not used any more lasts as long as its supervisors
        self.control = control
        self._lifeline = lifeline
        self._status: int | None = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return its exit code, negative for a signal, when it has ended; None if nobody is left who could tell.

        Raises
        ------
        TimeoutError
            If it has not within `timeout_s`.
        """
        if not self._lifeline.closed:
            if not self._lifeline.poll(timeout_s):
                raise TimeoutError(f"the supervisor has not ended after {timeout_s} s")
            with contextlib.suppress(EOFError, OSError):  # the server was killed, and the supervisor with it
                self._status = self._lifeline.recv()
            self._lifeline.close()
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def kill(self) -> None:
        """End it and its workers at once; does not wait for it."""
        self._ask_for(signal.SIGKILL)

    def go_on(self) -> None:
        """Have it continued if it was stopped, it or the server."""
        self._server.go_on()
        self._ask_for(signal.SIGCONT)

    def _ask_for(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            self._lifeline.send(number)


class ForkServer:
    """A fork server as the driver sees it; it ends when this object is dropped and its supervisors have ended.

    Attributes
    ----------
    pid : int
    descriptors : tuple of int
        What this process holds open for it.
    """

    def __init__(self, kind: tuple[object, ...]) -> None:
        self.kind = kind
        self.driver = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        driver = os.pidfd_open(self.driver)
        descriptors = theirs.fileno(), driver
        # -P: a json.py in the working directory is not the one that is meant.
        arguments = json.dumps([[str(folder) for folder in sys.path], *descriptors])
        command = [sys.executable, "-P", "-c", _BOOT, arguments]
        environment = surroundings.environment()
        try:
            # A process group of its own: Ctrl-C reaches the driver only, which decides.
            process = subprocess.Popen(command, pass_fds=descriptors, process_group=0, env=environment)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(driver)
        self._process, self._requests, self._file = process, ours, _file_of(ours)
        self.pid = process.pid
        self.descriptors = (ours.fileno(),)
        self._asked = threading.Event()  # for a supervisor
        weakref.finalize(self, _dismiss, ours, self._file, process, self.driver, self._asked)

    def runs(self) -> bool:
        """Whether it is there to take requests."""
        # It says nothing there: only its end makes this readable.
        return _file_of(self._requests) == self._file and not wait([self._requests], 0)

    def load(self, load: Load) -> None:
        """Have ``function(*args)`` of `load` called in the server, ahead of a job; does not wait for it."""
        with contextlib.suppress(ConnectionError):  # it has ended: the job will start another
            socket.send_fds(self._requests, [pickle.dumps(load)], [0, 1, 2])

    def fork(self, load: Load) -> Supervisor:
        """Have a supervisor forked, after ``function(*args)`` of `load` was called in the server.

        Raises
        ------
        WorkerDiedError
            If the server has ended.
        """
        (control, their_control), (lifeline, their_lifeline) = Pipe(), Pipe()
        with their_control, their_lifeline:
            descriptors = [0, 1, 2, their_control.fileno(), their_lifeline.fileno()]
            try:
                self._asked.set()
                socket.send_fds(self._requests, [pickle.dumps(load)], descriptors)
            except ConnectionError as error:
                raise WorkerDiedError(
                    f"the process from which workers are forked (pid {self.pid}) has just ended, perhaps by kill -9; "
                    f"open the job again"
                ) from error
        self.go_on()
        return Supervisor(self, control, lifeline)

    def go_on(self) -> None:
        """Have it continued if it was stopped: a job would wait for it without limit."""
        self._process.send_signal(signal.SIGCONT)


def _file_of(requests: socket.socket) -> tuple[int, int] | None:
    """Return what tells a socket from a file of the user's that has its number now; None if none has it."""
    try:
        status = os.fstat(requests.fileno())
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _dismiss(
    requests: socket.socket,
    file: tuple[int, int] | None,
    process: subprocess.Popen[bytes],
    owner: int,
    asked: threading.Event,
) -> None:
    """Let a server end, and wait for it; one that never had a supervisor need not even finish loading."""
    owned = os.getpid() == owner
    if _file_of(requests) != file:
        requests.detach()  # the user closed all descriptors, as a daemon does, perhaps opened others since
    elif owned:
        with contextlib.suppress(OSError):  # it has ended before
            requests.shutdown(socket.SHUT_RDWR)  # forks of this process hold copies of it open
    requests.close()
    if not owned:
        process.returncode = 0  # it is the child of our parent
        return
    if not asked.is_set():
        process.kill()
    try:
        process.wait(_LAST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_current: ForkServer | None = None


def current() -> ForkServer:
    """Return the server of this process and surroundings; starts it where there is none yet, or not any more."""
    fill_standard_descriptors()
    # Without a lock, which a fork could copy locked: at worst two threads start one each, and one is dropped.
    global _current
    kind = surroundings.kind()
    server = _current
    if server is None or server.driver != os.getpid() or server.kind != kind or not server.runs():
        _current = server = ForkServer(kind)
    return server


# ------------------------------------------------------------------------------------------------- the server's side


def main(requests: int, driver: int) -> None:
    """Serve until the driver closes the other end of the socket `requests`, or is dead: `driver` is a pidfd of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, child.leave_to_driver)  # supervisors are forked with it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where the driver ignores it, nobody could be waited for
    name_process("nbps-forkserver")
    for descriptor in (requests, driver):
        os.set_inheritable(descriptor, False)
    server = _Server(socket.socket(fileno=requests), driver)
    server.serve()
    if wait([driver], 0):
        server.end()
        remove_orphans()
    os._exit(0)  # taking down Numba's machine code in order is 0.3 s


class _Server:
    def __init__(self, requests: socket.socket, driver: int) -> None:
        self._requests = requests
        self._driver = driver
        self._supervisors: dict[int, tuple[int, Connection]] = {}  # pid and lifeline, by pidfd

    def serve(self) -> None:
        """Fork what is asked for; return when the driver is dead, or wants no more and all supervisors have ended."""
        while self._supervisors or self._requests.fileno() >= 0:
            sources = [self._driver, *([self._requests] if self._requests.fileno() >= 0 else [])]
            ready = self._attend(sources, None)
            if self._driver in ready:
                return
            if self._requests in ready:
                self._take_request()

    def end(self) -> None:
        """Wait for the supervisors, which kill their workers now that the driver is dead; kill one that does not."""
        deadline = time.monotonic() + _LAST_S
        while self._supervisors and (left := deadline - time.monotonic()) > 0:
            self._attend([], left)
        for pid, _ in self._supervisors.values():
            _send(pid, signal.SIGKILL)
        while self._supervisors:
            self._attend([], None)

    def _attend(self, sources: list[Any], timeout_s: float | None) -> list[Any]:
        """Wait for `sources` and supervisors; return those of `sources` that are ready."""
        lifelines = {lifeline: pid for pid, lifeline in self._supervisors.values() if not lifeline.closed}
        ready = wait([*sources, *self._supervisors, *lifelines], timeout_s)
        for source in ready:
            if source in self._supervisors:
                self._bury(source)
            elif source in lifelines and not source.closed:
                try:
                    _send(lifelines[source], source.recv())
                except (EOFError, OSError):  # the driver has died: the supervisor knows
                    source.close()
        return [source for source in sources if source in ready]

    def _bury(self, pidfd: int) -> None:
        pid, lifeline = self._supervisors.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            lifeline.send(status)
        lifeline.close()

    def _take_request(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(
            self._requests, _REQUEST_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            self._requests.close()
            return
        if len(descriptors) not in (_STANDARD, _DESCRIPTORS):
            for descriptor in descriptors:  # this process may not have so many; the driver sees its sockets closed
                os.close(descriptor)
            return
        for number, descriptor in enumerate(descriptors[:_STANDARD]):
            os.dup2(descriptor, number)  # what loading prints goes where the driver's output goes now
            os.close(descriptor)
        with contextlib.suppress(Exception):  # what the supervisor needs it loads itself, and tells what is wrong
            function, args = pickle.loads(message)
            function(*args)
        if sockets := descriptors[_STANDARD:]:
            control, lifeline = (Connection(descriptor) for descriptor in sockets)
            if not _is_unwanted(lifeline):
                self._fork(control, lifeline)
            control.close()
        # The server would keep a pipe open of which somebody waits for the end.
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(_STANDARD):
            os.dup2(null, number)
        os.close(null)

    def _fork(self, control: Connection, lifeline: Connection) -> None:
        supervisor.flush_output()
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            with contextlib.suppress(OSError):
                control.send(supervisor.failed(error))
            lifeline.close()
            return
        if pid:
            self._supervisors[os.pidfd_open(pid)] = pid, lifeline
            return
        try:
            supervisor.die_with(server)
            self._requests.close()
            lifeline.close()
            for pidfd, (_, other) in self._supervisors.items():
                os.close(pidfd)
                other.close()
            supervisor.main(control, self._driver)
        except BaseException:
            traceback.print_exc()
        finally:
            supervisor.flush_output()
            os._exit(1)


def _is_unwanted(lifeline: Connection) -> bool:
    """Whether the driver has given up a supervisor before it was forked."""
    try:
        return any(lifeline.recv() == signal.SIGKILL for _ in iter(lifeline.poll, False))
    except (EOFError, OSError):
        return True


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a supervisor, which was not waited for yet; SIGKILL to its workers and its preload's, too."""
    if number == signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError):  # it was forked just now, and has no group yet
            os.killpg(pid, number)
    os.kill(pid, number)
