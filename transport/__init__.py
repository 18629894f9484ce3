"""How bytes travel between nodes. A job on one box needs no transport: its workers share memory.

`interface` is what a transport must do, `registry` finds one by name, `carriers` are ours, and `mesh` is how the nodes
of a job find and know each other. `wire` is how the messages of the protocol look as bytes. Importing this package
imports no transport.
"""

from nbps.transport.interface import Connection, Listener, Options, Tls, Transport
from nbps.transport.registry import get_transport, transport_names

__all__ = ["Connection", "Listener", "Options", "Tls", "Transport", "get_transport", "transport_names"]
