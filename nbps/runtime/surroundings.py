"""What a process that the driver starts now would inherit from it.

Supervisors are forked from a process that was started earlier, perhaps in another folder and with another environment.
So the driver describes what it has at the time, and the supervisor takes it on. What cannot be taken on, because the
kernel forbids it or libraries read it when they are loaded, is the `kind` of the surroundings.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# One worker is one core: libraries that would start a thread for each core in every worker are told so (as torchrun
# does).
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# How variables begin that the interpreter, the loader, the C library, the kernels and the numeric libraries read when
# they start.
_READ_AT_START = (
    "PYTHON", "LD_", "GLIBC_", "MALLOC_", "LANG", "LC_", "HOME", "XDG_", "TMP", "TEMP", "NBPS_CAS_BYTES",
    "NUMBA_", "NUMPY_", "NPY_", "LLVM", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "ARROW_",
)  # fmt: skip
_FOLDERS = ("NBPS_CACHE_DIR", "NUMBA_CACHE_DIR")  # also read once; may be relative
_IDENTITY = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Mems_allowed")  # as /proc/self/status has it
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_KEPT = {signal.SIGINT, signal.SIGKILL, signal.SIGSTOP}  # a supervisor has its own way with these


def environment() -> dict[str, str]:
    """Return the variables for processes of a job."""
    return {**dict.fromkeys(_THREAD_LIMITS, "1"), **os.environ}


def kind() -> tuple[object, ...]:
    """Return what a process that was started earlier must have in common with this one."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}
    folders = [_absolute(Path(os.environ[name])) for name in _FOLDERS if os.environ.get(name)]
    status = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(_IDENTITY)]
    spaces = _namespaces()
    root = os.stat("/")  # noqa: PTH116  (one system call)
    priority = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    cgroup = Path("/proc/self/cgroup").read_text()
    return variables, folders, status, spaces, (root.st_dev, root.st_ino), priority, cgroup, sys.executable


def _absolute(folder: Path) -> Path:
    try:
        return folder.absolute()
    except FileNotFoundError:  # the working directory was removed
        return folder


def _namespaces() -> list[Path]:
    try:
        return [path.readlink() for path in sorted(Path("/proc/self/ns").iterdir())]
    except PermissionError:  # a process that was root may not look into itself
        return []


@dataclass(frozen=True)
class Surroundings:
    """What a supervisor takes on.

    Attributes
    ----------
    environment : mapping of str to str
    path : list of str
        ``sys.path``.
    folder : int
        Descriptor of the working directory, under this number in the driver and in the supervisor.
    umask : int
    cores : set of int
    limits : mapping of int to (int, int)
        ``resource.getrlimit`` by limit.
    ignored, blocked : set of int
        Signals.
    """

    environment: Mapping[str, str]
    path: list[str]
    folder: int
    umask: int
    cores: set[int]
    limits: Mapping[int, tuple[int, int]]
    ignored: set[int]
    blocked: set[int]

    @classmethod
    def of_now(cls, folder: int) -> Self:
        """Return those of this thread; `folder` is a descriptor of its working directory."""
        # os.umask could only tell by changing it for all threads.
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return cls(
            environment(),
            [str(entry) for entry in sys.path],
            folder,
            int(status["Umask"], 8),
            os.sched_getaffinity(0),
            {limit: resource.getrlimit(limit) for limit in _LIMITS},
            _ignored(),
            set(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        )

    def take_limits(self) -> None:
        """Take on the limits, before the descriptors, which they count."""
        for limit, pair in self.limits.items():
            if resource.getrlimit(limit) != pair:
                resource.setrlimit(limit, pair)

    def take_rest(self) -> None:
        """Take on everything else; descriptors 0 to 2 and `folder` are there."""
        os.fchdir(self.folder)
        os.close(self.folder)
        os.umask(self.umask)
        if os.sched_getaffinity(0) != self.cores:
            os.sched_setaffinity(0, self.cores)
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        sys.path[:] = self.path
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()
        for number in self.ignored ^ _ignored():
            signal.signal(number, signal.SIG_IGN if number in self.ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            _adapt(stream, descriptor)


def _ignored() -> set[int]:
    return {number for number in signal.valid_signals() - _KEPT if signal.getsignal(number) is signal.SIG_IGN}


def _adapt(stream: Any, descriptor: int) -> None:
    """Have a standard stream buffer as Python does for what `descriptor` is now."""
    if stream is not None:
        stream.reconfigure(line_buffering=descriptor == 2 or os.isatty(descriptor))
