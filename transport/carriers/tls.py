"""TLS 1.3 over TCP: both ends show a certificate that the job's authority signed.

Names in certificates are not compared with addresses: a node with a certificate of that authority belongs to the job.
The handshake is part of sending and receiving: nobody waits for it, and frames are queued until it is over.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from nbps.errors import ConfigError, ConnectionLostError
from nbps.transport.carriers.stream import GONE
from nbps.transport.carriers.tcp_connection import TcpConnection
from nbps.transport.interface import Options, Tls

# What OpenSSL says about a peer that speaks something else.
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL"}
_HTTP = {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"}


def tls_context(files: Tls, server_side: bool) -> ssl.SSLContext:
    """Return what connections with these files need.

    Raises
    ------
    ConfigError
        If a file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if server_side:
        context.num_tickets = 0  # nobody resumes a session
    try:
        context.load_verify_locations(files.authority)
    except OSError as error:
        raise ConfigError(
            f"{files.authority} cannot be read as the certificate of an authority: {_short(error)}"
        ) from error
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{files.certificate} and {files.key} cannot be read as a certificate and its key, in PEM format and "
            f"without a password: {_short(error)}"
        ) from error
    return context


def _no_password() -> bytes:
    raise ValueError("the key is encrypted")


class TlsConnection(TcpConnection):
    """A connected TCP socket with TLS around it."""

    _socket: ssl.SSLSocket

    def __init__(
        self, connected: socket.socket, peer: str, options: Options, context: ssl.SSLContext, server_side: bool
    ) -> None:
        connected.setblocking(False)
        wrapped = context.wrap_socket(connected, server_side=server_side, do_handshake_on_connect=False)
        super().__init__(wrapped, peer, options)
        self._secured = False
        self._handshake_writes = False
        if not server_side:
            self.flush()  # the first word

    def lend(self) -> None:
        """Lend nothing: frames are encrypted on their way."""
        return

    @property
    def wants_write(self) -> bool:
        """Whether something is queued that can be sent."""
        return super().wants_write if self._secured else self._handshake_writes

    def flush(self) -> None:
        """Go on with the handshake, or sending what is queued."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        if not self._secured and self._broken is None:
            self._try_to_write([])
        if self._secured:
            super().flush()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is over."""
        if not self._secured:
            self._handshake_writes = False
            try:
                self._socket.do_handshake()
                self._secured = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                self._handshake_writes = True
        return self._secured

    def _write(self, buffers: list[memoryview]) -> int:
        total = 0
        if self._shake_hands():
            try:
                for view in buffers:
                    done = 0
                    while done < view.nbytes:
                        done += (taken := self._socket.send(view[done:]))
                        total += taken
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
        return total

    def _read(self, into: memoryview) -> int:
        try:
            return self._socket.recv_into(into) if self._shake_hands() else -1
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -1
        except ssl.SSLEOFError:
            if not self._secured:
                raise
            return 0

    def _no_more_writing(self) -> None:
        # Its own method would take the TLS away, and then read what is encrypted.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _say(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate of the other end is not accepted here: {error.verify_message}"
        if isinstance(error, ssl.SSLEOFError) and self._secured:
            return GONE
        if isinstance(error, ssl.SSLEOFError):
            return "the other end closed it within the TLS handshake: does it use TLS too, and why did it close?"
        if isinstance(error, ssl.SSLError):
            reason = error.reason or str(error)
            if reason in _HTTP:
                return "what arrived is not TLS, it looks like HTTP"
            if reason in _NO_TLS:
                return "the other end does not speak TLS 1.3: switch it on at both ends or at none"
            if "ALERT" in reason:
                return f"the other end does not accept our certificate or our TLS: {_short(error)}"
            return f"TLS: {_short(error)}"
        return super()._say(error)


def _short(error: Exception) -> str:
    """Return what an error of OpenSSL says, without the place in its source."""
    reason = getattr(error, "reason", None)
    if reason:
        return str(reason).replace("_", " ").lower()
    return str(getattr(error, "strerror", None) or error)
