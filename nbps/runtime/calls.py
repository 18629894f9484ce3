"""Calls on their way to the workers, and results on their way back: pickled, large arrays through shared memory.

Functions of ``__main__``, of scripts and of notebook cells travel by value, with the names of their files and, where
these are nowhere on disk, with their source lines: a traceback from a worker shows what the user wrote.
"""

from __future__ import annotations

import io
import linecache
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, Literal

import cloudpickle
import numpy as np

from nbps.memory.segments import Segment, attach

# Buffers from this size on travel through shared memory, once for all workers, instead of through a socket to each.
_SHARED_BYTES = 1 << 16
_ALIGNMENT = 64


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the file names of code, and has the memory of every array travel as a buffer where buffers are wanted."""

    def __init__(self, file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], None] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._has_buffers = buffer_callback is not None
        # What a spawned child of multiprocessing calls the script; nobody else can import a module of that name.
        script = sys.modules.get("__mp_main__")
        if script is not None:
            cloudpickle.register_pickle_by_value(script)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is CodeType:  # of which cloudpickle 3.1.3 hides the file name
            return _code, (obj.co_filename, _lines_of(obj.co_filename), *self.dispatch_table[CodeType](obj))
        plain = type(obj) in (np.ndarray, np.memmap) and not obj.dtype.hasobject and obj.dtype.itemsize > 0
        if not (plain and self._has_buffers):
            return super().reducer_override(obj)
        # NumPy itself copies the memory of strided, mapped and date arrays.
        order: Literal["C", "F"] = "F" if obj.flags.fnc else "C"
        memory = np.asarray(obj, order=order).reshape(-1, order=order).view(np.uint8)
        return np.ndarray, (obj.shape, obj.dtype, pickle.PickleBuffer(memory.data), 0, None, order)


def _lines_of(filename: str) -> list[str]:
    """Source lines that only this process has, such as those of a notebook cell."""
    return [] if Path(filename).exists() else linecache.getlines(filename)


def _code(filename: str, lines: list[str], make: Callable[..., CodeType], args: tuple[Any, ...]) -> CodeType:
    if lines:
        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)  # None: never looked for on disk
    return make(*args).replace(co_filename=filename)


def dumps(value: object) -> bytes:
    """Pickle `value`; `pickle.loads` reads it."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def pack(call: tuple[Callable[..., Any], tuple[Any, ...]]) -> tuple[Segment | None, bytes]:
    """Pickle a call; if there are large buffers in it they go to a segment, which is the caller's to unlink."""
    views: list[memoryview] = []
    pickled = io.BytesIO()
    _Pickler(pickled, lambda buffer: views.append(buffer.raw())).dump(call)
    parts: list[bytes | tuple[int, int]] = []
    end = 0
    for view in views:
        if view.nbytes < _SHARED_BYTES:
            parts.append(view.tobytes())
        else:
            parts.append((end, end + view.nbytes))
            end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
    if end == 0:
        return None, pickle.dumps((None, parts, pickled.getvalue()))
    segment = Segment("arguments", end)
    try:
        memory = attach(segment.name)
        for view, part in zip(views, parts, strict=True):
            if isinstance(part, tuple):
                memory[slice(*part)] = np.frombuffer(view, np.uint8)
        return segment, pickle.dumps((segment.name, parts, pickled.getvalue()))
    except BaseException:
        segment.unlink()
        raise


def unpack(message: bytes) -> Any:
    """Return the call that `pack` made a message of; its arrays are read-only, the large ones mapped, not copied."""
    segment, buffers, payload = pickle.loads(message)
    if segment is not None:
        memory = attach(segment, writable=False).data
        buffers = [part if isinstance(part, bytes) else memory[slice(*part)] for part in buffers]
    return pickle.loads(payload, buffers=buffers)
