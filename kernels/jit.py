"""`kernel`: the decorator of all compiled code here, and the folder where the machine code is kept.

Numba's own cache looks at the file of one function only: when a callee in another file changes, stale machine
code is loaded. So the folder carries a hash of every file of this package, and a change anywhere in it starts
an empty one. Nothing global in Numba is changed: the user's own functions keep their cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from .atomics import PACK_BYTES


@functools.cache
def source_hash() -> str:
    """Hash of every source file of this package and of what else decides the machine code."""
    # Numba itself does not tell apart code with and without bounds checks.
    flags = f"{numba.__version__} {numba.config.BOUNDSCHECK} {PACK_BYTES}"
    digest = hashlib.sha256(flags.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Folder that holds one folder of machine code for each version of the kernels.

    ``NBPS_CACHE_DIR``, else ``NUMBA_CACHE_DIR``, else the user's cache folder, else (where that cannot be
    written) one in the temporary folder.
    """
    chosen = os.environ.get("NBPS_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("nbps", appauthor=False)


@functools.cache
def cache_folder() -> Path:
    """Folder of the machine code of these kernels; made on first use."""
    name = f"kernels-{source_hash()}"
    for root in (cache_root(), Path(tempfile.gettempdir()) / f"nbps-cache-{os.getuid()}"):
        folder = root / name
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            status = folder.stat()
            # Machine code is loaded from here: not from a folder that somebody else made or can write to.
            if status.st_uid == os.getuid() and not status.st_mode & 0o022:
                return folder
    return Path(tempfile.mkdtemp(prefix="nbps-cache-"))


@contextlib.contextmanager
def compile_lock() -> Iterator[None]:
    """Hold the cache folder's lock, so that only one process on this machine compiles."""
    with (cache_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Locator(_CacheLocator):
    """Puts the machine code of every kernel into `cache_folder`."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return source_hash()

    def get_disambiguator(self) -> str:
        return str(self._lineno)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func, py_file)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012  (the base class declares it so)


class _Cache(FunctionCache):
    _impl_class = _CacheImpl


def kernel(function: Callable[..., Any] | None = None, *, fastmath: bool = False, inline: bool = False) -> Any:
    """Compile `function` without the GIL, cached in `cache_folder`; ``.py_func`` is the plain Python form.

    `inline` is for what is called once for a row: the call alone costs as much as adding eight floats.
    Floats divide as in NumPy (x / 0 is infinite): a check and an exception path in every loop would cost more.
    """
    if function is None:
        return functools.partial(kernel, fastmath=fastmath, inline=inline)
    if numba.config.DISABLE_JIT:
        return function
    dispatcher = numba.njit(nogil=True, fastmath=fastmath, error_model="numpy", forceinline=inline)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher
