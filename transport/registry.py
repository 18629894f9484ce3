"""Transports by name.

`get_transport` gives the transport of a name: one of ours, or one that an installed package registers as an entry point
of the group ``nbps.transports``, whose object is called without arguments and returns a
`nbps.transport.interface.Transport`::

    [project.entry-points."nbps.transports"]
    carrier-pigeon = "pigeons.nbps:PigeonTransport"
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbps.errors import ConfigError
from nbps.transport.interface import Transport

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_GROUP = "nbps.transports"
# Ours are not entry points: a checkout that is not installed has none.
_OURS = {
    "inproc": "nbps.transport.carriers.inproc:InprocTransport",
    "shm": "nbps.transport.carriers.shm:ShmTransport",
    "tcp": "nbps.transport.carriers.tcp:TcpTransport",
}


def transport_names() -> list[str]:
    """Return the names that `get_transport` knows."""
    return sorted(_OURS.keys() | _others().keys())


def get_transport(name: str) -> Transport:
    """Return the transport called `name`.

    Raises
    ------
    ConfigError
        If there is none of that name, or it cannot be loaded.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        return _made(name, getattr(importlib.import_module(module), attribute)())
    others = _others()
    if name not in others:
        known = ", ".join(repr(known) for known in sorted(_OURS.keys() | others.keys()))
        raise ConfigError(
            f"there is no transport {name!r}; known are {known}. Others come from packages that register an entry "
            f"point of the group {_GROUP!r}: is one to be installed?"
        )
    entry = others[name]
    try:
        return _made(name, entry.load()())
    except Exception as error:
        origin = f"package {entry.dist.name!r}" if entry.dist is not None else "an installed package"
        raise ConfigError(f"transport {name!r} ({entry.value}, of {origin}) cannot be loaded: {error!r}") from error


def _others() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # takes 20 ms to import

    return {entry.name: entry for entry in entry_points(group=_GROUP) if entry.name not in _OURS}


def _made(name: str, made: Any) -> Transport:
    if not isinstance(made, Transport):
        raise ConfigError(f"transport {name!r} gives {made!r}; expected a nbps.transport.interface.Transport")
    return made
