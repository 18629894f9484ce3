"""`kernel`: the decorator of all compiled code here. Its machine code is kept by `nbps.kernels.cache`.

Nothing global in Numba is changed: the user's own functions keep their cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from .cache import CodeFiles, cache_folder, source_hash

# A kernel and arguments on which it ends at once. `requests` of a file of kernels says which its callers in Python use.
Request = tuple[Any, tuple[Any, ...]]


class _Locator(_CacheLocator):
    """What Numba asks for before it makes a cache; files are named and written by `CodeFiles`."""

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

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        super().__init__(function)
        self._cache_file = CodeFiles(folder, self._impl.filename_base)

    def _save_overload(self, sig: Any, data: Any) -> None:
        # As Numba does, but without looking first whether the folder can be written: `CodeFiles.save` takes care.
        if self._enabled and self._impl.check_cachable(data):
            self._cache_file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))

    def path(self, sig: Any, target: Any) -> Path:
        """File of the machine code for argument types `sig`."""
        return self._cache_file.path(self._index_key(sig, target.codegen()))


def kernel(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: bool | set[str] = False,
    inline: bool = False,
    early: bool = False,
) -> Any:
    """Compile `function` without the GIL, cached in `cache_folder`; ``.py_func`` is the plain Python form.

    `inline` is for what is called once for a row: the call alone costs as much as adding eight floats. With `early`,
    for what is given rows, it is inlined before types are known: a row that lives until a call returns has its
    references counted, which takes 40 ns.
    Floats divide as in NumPy (x / 0 is infinite): a check and an exception path in every loop would cost more.
    """
    if function is None:
        return functools.partial(kernel, fastmath=fastmath, inline=inline, early=early)
    if numba.config.DISABLE_JIT:
        return function
    dispatcher = numba.njit(
        nogil=True, fastmath=fastmath, error_model="numpy", forceinline=inline, inline="always" if early else "never"
    )(function)
    folder = cache_folder()
    if folder is not None:
        dispatcher._cache = _Cache(function, folder)
    return dispatcher


def argument_types(request: Request) -> tuple[Any, ...]:
    """Numba's types of the arguments of a request."""
    return tuple(numba.typeof(argument) for argument in request[1])


def code_file(request: Request) -> Path | None:
    """File where the machine code of a request lies or would lie; None without a folder for it."""
    dispatcher = request[0]
    cache = dispatcher._cache
    return cache.path(argument_types(request), dispatcher.targetctx) if isinstance(cache, _Cache) else None


def is_compiled(request: Request) -> bool:
    """Whether there is machine code for a request, in this process or in the cache."""
    dispatcher = request[0]
    if not isinstance(dispatcher, numba.core.dispatcher.Dispatcher) or argument_types(request) in dispatcher.overloads:
        return True
    path = code_file(request)
    return path is not None and path.exists()
