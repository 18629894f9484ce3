"""A worker process as the driver sees it: it carries out calls, one after another, and answers each.

A call arrives as ``(segment or None, buffer extents, pickle)``: large arrays among the arguments lie in a shared
segment and are mapped read-only, not copied. The answer is ``("result", pickle)``, ``("error", pickle or None, name,
traceback)`` or ``("aborted",)``. SIGINT, sent by the driver, stops a running call.
"""

from __future__ import annotations

import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import cloudpickle

from nbps.errors import AbortedError
from nbps.runtime.segments import attach

_calling = False


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _calling:
        raise AbortedError("the job is stopping")


def serve(connection: Connection) -> None:
    """Answer calls until the driver closes the connection."""
    signal.signal(signal.SIGINT, _on_interrupt)
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        answer = _answer(message)
        try:
            connection.send_bytes(answer)
        except (BrokenPipeError, ConnectionError):
            return


def _answer(message: bytes) -> bytes:
    global _calling
    try:
        try:
            _calling = True
            function, args = _load(message)
            result = function(*args)
        finally:
            _calling = False  # an interrupt before this line stops the call, one after it changes nothing
        return pickle.dumps(("result", cloudpickle.dumps(result, protocol=5)))
    except AbortedError:
        return pickle.dumps(("aborted",))
    except BaseException as error:
        return pickle.dumps(_error_reply(error))


def _load(message: bytes) -> Any:
    segment, extents, payload = pickle.loads(message)
    if segment is None:
        return pickle.loads(payload)
    memory = attach(segment, writable=False).data.toreadonly()
    return pickle.loads(payload, buffers=[memory[start:stop] for start, stop in extents])


def _error_reply(error: BaseException) -> tuple[str, bytes | None, str, str]:
    text = "".join(traceback.format_exception(error))
    try:
        pickled = cloudpickle.dumps(error.with_traceback(None), protocol=5)
        pickle.loads(pickled)  # exceptions with required arguments pickle but do not load
    except Exception:
        pickled = None
    return "error", pickled, traceback.format_exception_only(error)[-1].strip(), text  # its own str() may raise
