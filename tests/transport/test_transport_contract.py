"""The contract of transports, kept by inproc and by tcp without and with TLS."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from nbps.transport import Options, Tls, Transport, get_transport

from nbps.testing.transport.contract import TransportContract

_numbers = itertools.count()


class TestInprocContract(TransportContract):
    crosses_processes = False

    def transport(self) -> Transport:
        return get_transport("inproc")

    def address(self) -> str:
        return f"node-{next(_numbers)}"


class TestTcpContract(TransportContract):
    def transport(self) -> Transport:
        return get_transport("tcp")

    def address(self) -> str:
        return "127.0.0.1:0"


class TestTlsContract(TestTcpContract):
    tls: Tls

    @pytest.fixture(autouse=True)
    def _certificates(self, certificates: Any) -> None:
        self.tls = certificates("node")

    def options(self, **fields: Any) -> Options:
        return super().options(tls=self.tls, **fields)
