"""Where machine code is kept between processes: one file for each kernel and signature, with a checksum.

Numba's own cache looks at the file of one function only: when a callee in another file changes, stale machine
code is loaded. So the folder carries a hash of every file of this package, and a change anywhere in it starts
an empty one.

Everything here may be gone, damaged or full at any time: a job compiles then, says so in a line on stderr, and runs.
Machine code whose checksum is another is never loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core.serialize import dumps

from .relaxed import PACK_BYTES

_PREFIX, _SUFFIX, _PART, _LOCK = "kernels-", ".nbc", ".tmp", "lock"
_DIGEST_BYTES = 32  # of SHA-256, before the pickle
_PART_S = 3600.0  # a file is written within seconds: one that is still a part after an hour has been left


@functools.cache
def source_hash() -> str:
    """Hash of every source file of this package and of what else decides the machine code and its pickle."""
    # Numba itself does not tell apart code with and without bounds checks.
    versions = f"{numba.__version__} {llvmlite.__version__} {np.__version__}"
    digest = hashlib.sha256(f"{versions} {numba.config.BOUNDSCHECK} {PACK_BYTES}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --------------------------------------------------------------------------- the folder


def cache_roots() -> list[Path]:
    """Folders that hold one folder of machine code for each version of the kernels, the one to use first.

    ``NBPS_CACHE_DIR``, else ``NUMBA_CACHE_DIR``, else the user's cache folder; and, where that cannot be written,
    one in the temporary folder.
    """
    chosen = os.environ.get("NBPS_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    roots = [Path(chosen) if chosen else platformdirs.user_cache_path("nbps", appauthor=False)]
    with contextlib.suppress(FileNotFoundError):  # there is no temporary folder that can be written
        roots.append(Path(tempfile.gettempdir()) / f"nbps-cache-{os.getuid()}")
    return roots


@functools.cache
def chosen_folder() -> tuple[Path | None, tuple[str, ...]]:
    """Return the folder of the machine code of these kernels, made on first use, and why no better one is used."""
    reasons = []
    for root in cache_roots():
        folder = root / f"{_PREFIX}{source_hash()}"
        try:
            _make(folder)
            tempfile.TemporaryFile(dir=folder).close()
            status = folder.stat()
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        # Machine code is loaded from here: not from a folder that somebody else made or can write to.
        if status.st_uid == os.getuid() and not status.st_mode & 0o022:
            return folder, tuple(reasons)
        reasons.append(f"{folder}: others own it or can write to it")
    return None, tuple(reasons)


def cache_folder() -> Path | None:
    """Folder of the machine code of these kernels; None if there is none that can be used."""
    return chosen_folder()[0]


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def compile_lock() -> Iterator[None]:
    """Hold the cache folder's lock, so that only one process on this machine compiles; without it where none can be."""
    folder = cache_folder()
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError):  # a full disk, one without locks: then each compiles for itself
                _make(folder)
                file = stack.enter_context((folder / _LOCK).open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --------------------------------------------------------------------------- files


class CodeFiles:
    """Files with the machine code of one kernel, whose names begin with `base`."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder = folder
        self._base = base

    def path(self, key: Hashable) -> Path:
        """File of the code for `key`: signature, processor, and a hash of the function's own code."""
        return self._folder / f"{self._base}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}{_SUFFIX}"

    def load(self, key: Hashable) -> Any:
        """Return what was saved for `key`; None if nothing was, or if the file is damaged."""
        path = self.path(key)
        try:
            pickled = _intact(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn("damaged", f"cannot read {path} ({error.strerror}): compiling that kernel anew")
            return None
        if pickled is None:
            _warn("damaged", f"{path} is damaged: compiling that kernel anew (nbps doctor looks at all of them)")
            return None
        known, code = pickle.loads(pickled)
        return code if known == key else None

    def save(self, key: Hashable, code: object) -> None:
        """Keep `code` for `key`, in place of what was there; without room for it the next process compiles again."""
        path = self.path(key)
        pickled = dumps((key, code))
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
        try:
            _make(self._folder)
            part.write_bytes(hashlib.sha256(pickled).digest() + pickled)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            _warn(
                "not kept",
                f"cannot keep compiled kernels in {self._folder} ({error.strerror}): every start compiles them again; "
                "mend that, or set NBPS_CACHE_DIR to another folder",
            )


def _intact(path: Path) -> bytes | None:
    """Return what a file of machine code holds, without its checksum; None if it has another."""
    content = path.read_bytes()
    digest, pickled = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return pickled if hashlib.sha256(pickled).digest() == digest else None


_warned: set[str] = set()  # of what this process has warned


def _warn(subject: str, text: str) -> None:
    """Say `text` on stderr, once for each subject: one damaged folder holds dozens of damaged files."""
    if subject not in _warned:
        _warned.add(subject)
        print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201


# --------------------------------------------------------------------------- looking after them


def damaged_files(folder: Path) -> dict[Path, str]:
    """Return the files in a folder of machine code that are of no use, and why."""
    found = {}
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == _SUFFIX and _intact(path) is None:
                found[path] = "its checksum is another"
            elif path.suffix == _PART and time.time() - path.stat().st_mtime > _PART_S:
                found[path] = "left by a process that was killed"
        except FileNotFoundError:  # replaced or removed meanwhile
            continue
        except OSError as error:
            found[path] = str(error.strerror)
    return found


def other_folders() -> list[Path]:
    """Folders of this user with machine code of other versions of the kernels, or of Numba."""
    found = []
    for root in cache_roots():
        for folder in sorted(root.glob(_PREFIX + "[0-9a-f]" * 16)):
            mine = folder != cache_folder() and not folder.is_symlink() and folder.is_dir()
            if mine and folder.stat().st_uid == os.getuid():
                found.append(folder)
    return found


def remove_folder(folder: Path) -> str | None:
    """Remove a folder of machine code; return why that cannot be done, None if it was.

    Not while a process compiles into it. One that runs has loaded what it needs, and compiles what else it calls.
    """
    try:
        with (folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except BlockingIOError:
        return "a process compiles into it right now"
    except OSError as error:
        return error.strerror
    return None
