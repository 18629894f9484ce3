"""The contract of transports, kept by shm."""

from __future__ import annotations

import itertools
import os

from nbps.testing.transport.contract import TransportContract
from nbps.transport import Transport, get_transport

_numbers = itertools.count()


class TestShmContract(TransportContract):
    def transport(self) -> Transport:
        return get_transport("shm")

    def address(self) -> str:
        return f"contract-{os.getpid()}-{next(_numbers)}"
