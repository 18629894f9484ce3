"""SIGTERM while a job runs that takes checkpoints: it is saved at the next clock that can be, and ends in good order.

Slurm, Kubernetes and spot machines announce the end of a machine so, some seconds before they kill what is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from nbps.job.checkpoints import say

EXIT_CODE = 128 + signal.SIGTERM  # as a shell says it
_TOLD = b"nbps: SIGTERM: the job is saved as soon as it can be, and ends; a second one ends it at once\n"


class Termination:
    """Has SIGTERM call `terminate`, inside ``with``, and raises `SystemExit` when the run has ended after it.

    Only in the main thread, where Python lets signals be handled, and only where nothing else handles this one: a
    script with a handler of its own keeps it. A second SIGTERM does what it did before.
    """

    def __init__(self, terminate: Callable[[], None]) -> None:
        self._terminate = terminate
        self._is_installed = False
        self._received = False

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._is_installed = True
            signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._received and (error is None or isinstance(error, Exception)):
            say("SIGTERM: the run was over before it could be saved" if error is None else str(error))
            raise SystemExit(EXIT_CODE) from error

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._received = True
        with contextlib.suppress(OSError):  # nobody reads it
            os.write(2, _TOLD)  # `print` may be in the middle of a line
        self._terminate()
