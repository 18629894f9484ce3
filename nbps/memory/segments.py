"""The life of shared-memory segments: create, attach, unlink, remove orphans. Nobody else touches ``/dev/shm``.

A segment's *name* says who owns it: ``nbps_<pid namespace>_<pid>_<start time>_<number>_<label>``. It exists from the
instant at which the segment does, so that a segment whose owner was killed at any moment can be recognised; a header
inside it could be missing. A pid counts as the owner only together with its start time, and only in the same pid
namespace: containers that share ``/dev/shm`` do not remove each other's segments.

Not `multiprocessing.shared_memory`: its resource tracker says that segments of a killed process leaked, though they are
removed; it makes them with ``ftruncate``, which succeeds past the size of ``/dev/shm``, where a later write is SIGBUS,
while ``posix_fallocate`` reserves the space; and on Python before 3.13 a process that attaches deletes the segment when
it exits. Arrays hold the mapping, so that a forgotten array reads old memory, never unmapped memory.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbps.errors import SharedMemoryError

FOLDER = Path("/dev/shm")
_NAME = re.compile(r"nbps_(?P<space>\d+)_(?P<pid>\d+)_(?P<start>\d+)_(?P<number>\d+)_(?P<label>.*)")
_LABEL_LIMIT = 64  # of the 255 bytes that a file name may have
_numbers = itertools.count()
# What to do where the system refuses something for another reason than a full `FOLDER`.
SYSTEM_HINTS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer workers: each takes two",
    errno.ENFILE: "the whole machine has too many open files",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.ENOMEM: "raise the limit of a process's memory (ulimit -v), or that of the container",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or that of the container",
}


@dataclass(frozen=True)
class Usage:
    """Size of ``/dev/shm`` and how much of it is free, in bytes."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class SegmentInfo:
    """A segment of nbps found in ``/dev/shm``.

    `alive`: its owner runs. `foreign`: its owner belongs to another pid namespace (a container) and cannot be judged
    from here.
    """

    name: str
    bytes: int
    pid: int
    alive: bool
    foreign: bool


@functools.cache
def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of process `pid`; None if it does not run (a zombie does not)."""
    try:
        # The second field is the command in parentheses and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Segment:
    """A named piece of shared memory that this process created; it exists until `unlink`.

    Parameters
    ----------
    label : str
        What is in it; appears in the name.
    size : int
        Bytes; reserved at once.

    Raises
    ------
    SharedMemoryError
        If ``/dev/shm`` has not enough free space. Nothing is left behind.
    """

    def __init__(self, label: str, size: int) -> None:
        label = re.sub(r"[^A-Za-z0-9.-]", "-", label)[:_LABEL_LIMIT]
        check_free(label, size)
        pid = os.getpid()
        name = f"nbps_{_pid_namespace()}_{pid}_{_start_time(pid)}_{next(_numbers)}_{label}"
        self.name = name
        self.size = size
        self._linked = True
        try:
            _create(name, size, label)
        except BaseException:
            self.unlink()
            raise

    @property
    def path(self) -> Path:
        """The segment as a file that any program can map."""
        return FOLDER / self.name

    def unlink(self) -> None:
        """Remove the name; the memory is given back when the last array over it is gone. Idempotent."""
        if self._linked:
            self._linked = False
            self.path.unlink(missing_ok=True)


def _create(name: str, size: int, label: str) -> None:
    try:
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _too_small(label, size) from error
        raise _refused(f"made for {label!r}", size, error) from error


def check_free(label: str, size: int) -> None:
    """Raise `SharedMemoryError` if `size` bytes for `label` are more than is free."""
    if size > shared_memory_usage().free_bytes:
        raise _too_small(label, size)


def _too_small(label: str, size: int) -> SharedMemoryError:
    usage = shared_memory_usage()
    return SharedMemoryError(
        f"shared memory is too small for {label!r}: needed {size:,} bytes, free {usage.free_bytes:,} of "
        f"{usage.total_bytes:,} in {FOLDER}; enlarge it (docker run --shm-size=..., mount -o remount,size=... "
        f"{FOLDER}), remove what is left over (nbps doctor --clean), or share less: smaller tables, smaller arrays "
        f"given to run"
    )


def _refused(what: str, size: int, error: OSError) -> SharedMemoryError:
    """Return what to raise where the system gives another reason than a full ``/dev/shm``."""
    hint = SYSTEM_HINTS.get(error.errno or 0, f"look at the permissions of {FOLDER}")
    return SharedMemoryError(f"a segment of {size:,} bytes could not be {what}: {error.strerror}; {hint}")


def attach(name: str, *, writable: bool = True) -> npt.NDArray[np.uint8]:
    """Map segment `name` of any process; the array holds the mapping as long as it, or a view of it, lives.

    Raises
    ------
    SharedMemoryError
        If there is no segment of that name (any more), or this process may not map it.
    """
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    size = 0
    try:
        descriptor = os.open(FOLDER / name, os.O_RDWR if writable else os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            return np.frombuffer(mmap.mmap(descriptor, 0, access=access), np.uint8)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise SharedMemoryError(f"segment {name!r} does not exist in {FOLDER}; its job has ended") from None
    except OSError as error:
        raise _refused(f"mapped, {name!r}", size, error) from error


def shared_memory_usage() -> Usage:
    """Return size and free bytes of ``/dev/shm``."""
    status = os.statvfs(FOLDER)
    return Usage(status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail)


def find_segments() -> list[SegmentInfo]:
    """Return every segment of nbps on this machine, with the state of its owner."""
    found = []
    for path in sorted(FOLDER.glob("nbps_*")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            foreign = int(match["space"]) != _pid_namespace()
            pid = int(match["pid"])
            alive = not foreign and _start_time(pid) == int(match["start"])
            found.append(SegmentInfo(path.name, path.stat().st_size, pid, alive, foreign))
    return found


def remove_orphans() -> list[SegmentInfo]:
    """Unlink the segments whose owner no longer runs; return them.

    Those of other pid namespaces stay, and those that only another user may remove.
    """
    removed = []
    for segment in find_segments():
        if not (segment.alive or segment.foreign):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                (FOLDER / segment.name).unlink()
                removed.append(segment)
    return removed
