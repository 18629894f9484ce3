"""Addresses of TCP: ``host:port``, with IPv6 in brackets: ``[::1]:5000``."""

from __future__ import annotations

from nbps.errors import TransportError


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `address`.

    Raises
    ------
    TransportError
        If it is no address.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        raise TransportError(f"{address!r} is no address; expected host:port, for instance 10.0.0.1:5000 or [::1]:5000")
    if int(port) > 65535:
        raise TransportError(f"{address!r} has port {port}; expected at most 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return the address of `host` and `port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
