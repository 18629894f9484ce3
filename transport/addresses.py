"""Addresses of TCP: ``host:port``, with IPv6 in brackets: ``[::1]:5000``. No name is looked up here."""

from __future__ import annotations

import ipaddress
import random
import socket

from nbps.errors import TransportError

LOOPBACK = "127.0.0.1"
# Below the ports that Linux hands out by itself (32768 on), above those of most services.
FIRST_PORT, PORTS = 20_000, 10_000
_PORT_ATTEMPTS = 100
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `address`.

    Raises
    ------
    TransportError
        If it is not an address.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        raise TransportError(f"{address!r} is not an address; expected host:port, as in 10.0.0.1:5000 or [::1]:5000")
    if int(port) > 65535:
        raise TransportError(f"{address!r} has port {port}; expected at most 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return the address of `host` and `port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only; of names, those that always are."""
    return ipaddress.ip_address(host).is_loopback if is_ip(host) else host.lower() in _LOOPBACK_NAMES


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    return is_ip(host) and ipaddress.ip_address(host).is_unspecified


def free_address() -> str:
    """Return an address of the loopback device that nobody listens at.

    Not one that the system would hand out: a node that connects to such a port, before node 0 listens there, may be
    given that very port for its own end, and be connected to itself.

    Raises
    ------
    TransportError
        If none is found.
    """
    ports = range(FIRST_PORT, FIRST_PORT + PORTS)
    for port in random.SystemRandom().choices(ports, k=_PORT_ATTEMPTS):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return join_address(LOOPBACK, port)
    raise TransportError(
        f"no free port: {_PORT_ATTEMPTS} random ones from {ports[0]} to {ports[-1]} are in use or refused; give the "
        f"nodes a rendezvous of your choice"
    )
