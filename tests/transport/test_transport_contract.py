"""The contract of transports, kept by inproc, by tcp without and with TLS, and by one of another package."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from nbps.testing.transport.contract import TransportContract
from nbps.transport import Options, Tls, Transport, get_transport

_numbers = itertools.count()
_PIGEONS = Path(__file__).with_name("pigeons")


class TestInprocContract(TransportContract):
    def transport(self) -> Transport:
        return get_transport("inproc")

    def address(self) -> str:
        return f"node-{next(_numbers)}"


class TestTcpContract(TransportContract):
    def transport(self) -> Transport:
        return get_transport("tcp")

    def address(self) -> str:
        return "127.0.0.1:0"


@pytest.mark.slow
class TestTlsContract(TestTcpContract):
    tls: Tls

    @pytest.fixture(autouse=True)
    def _certificates(self, certificates: Any) -> None:
        self.tls = certificates("node")

    def options(self, **fields: Any) -> Options:
        return super().options(tls=self.tls, **fields)


@pytest.mark.slow
class TestCarrierPigeonContract(TransportContract):
    """A package that brings a transport, found by its entry point, whose addresses are nothing like host and port."""

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(_PIGEONS)
        monkeypatch.setenv("PYTHONPATH", str(_PIGEONS), prepend=os.pathsep)

    def transport(self) -> Transport:
        return get_transport("carrier-pigeon")

    def address(self) -> str:
        return f"loft {next(_numbers)} of {os.getpid()}"
