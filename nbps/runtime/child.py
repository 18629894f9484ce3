"""A worker process as the driver sees it: it carries out calls, one after another, and answers each.

A call arrives as `nbps.runtime.calls.pack` made it. The answer is ``("result", pickle)`` or ``("error", pickle, name,
traceback)``; an exception that cannot be raised in the driver has an empty pickle. SIGINT, which the driver has the
supervisor send, ends a running call and the process.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from types import FrameType

from nbps.errors import AbortedError
from nbps.runtime import calls


def leave_to_driver(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM by doing nothing: Slurm sends it to all processes of a job, whose driver says what is to be done.

    A function, since programs that a worker starts would inherit that a signal is ignored, but not its handler.
    """


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would find the process on its way out
    raise AbortedError("the job is stopping")


def serve(rank: int, connection: Connection) -> None:
    """Answer calls until the driver closes the connection; `AbortedError` if it stops the job."""
    signal.signal(signal.SIGINT, _on_interrupt)
    if signal.getsignal(signal.SIGTERM) is leave_to_driver:  # as the supervisor has it; workers may be ended by it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send_bytes(_answer(rank, connection.recv_bytes()))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(rank: int, message: bytes) -> bytes:
    try:
        function, args = calls.unpack(message)
        result = function(rank, *args)
        return pickle.dumps(("result", calls.dumps(result)))
    except AbortedError:
        raise
    except BaseException as error:
        return pickle.dumps(_error_reply(error))


def _error_reply(error: BaseException) -> tuple[str, bytes, str, str]:
    text = "".join(traceback.format_exception(error))
    pickled = b""
    if isinstance(error, Exception):  # SystemExit of a worker shall not end the driver
        with contextlib.suppress(Exception):
            pickled = calls.dumps(error.with_traceback(None))
    return "error", pickled, traceback.format_exception_only(error)[-1].strip(), text  # its own str() may raise
