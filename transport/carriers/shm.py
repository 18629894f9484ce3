"""Nodes of one job on one host, as processes of one user, that share memory.

An address is a name, for instance the job's. It stands for a Unix socket in the abstract namespace, which leaves no
file behind whatever happens, and needs no folder that all processes agree on. Unlike in a private folder anybody on
this machine may connect, or take a name first: each end asks the kernel whose process the other is (SO_PEERCRED) and
has nothing to do with those of other users. So a stranger can be in the way, and is named, but gets no byte.

How they come to share memory is in `nbps.transport.carriers.shm_greeting`. ``Options.user_timeout_s`` means nothing
here: the kernel tells at once that a process ended. Whoever only asks about addresses, as drivers do, does not pay for
connections: these need Numba.
"""

from __future__ import annotations

import errno
import os
import re
import time

from nbps.errors import ConfigError, TransportError
from nbps.transport.interface import Connection, Listener, Options, Transport

_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RENDEZVOUS = re.compile(r"[A-Za-z0-9._-]{1,40}")  # the other nodes' names begin so, and are longer
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5  # between two attempts to connect
# An attempt that fails so may succeed later: the other node starts at any time before or after us.
_MAY_PASS = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EAGAIN, errno.EINTR}


class ShmTransport(Transport):
    """Frames through shared memory, between processes of one user on one machine."""

    name = "shm"
    address_form = (
        "a name for shm, of at most 40 letters, digits, dots, underscores and hyphens, that no other job on this "
        "machine has"
    )

    def listen(self, address: str, options: Options) -> Listener:
        """Listen at a name: letters, digits, dots, underscores and hyphens, at most 64."""
        from nbps.transport.carriers.shm_greeting import listen

        return listen(_socket_name(address, options), address, options)

    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to the process that listens at a name.

        Raises
        ------
        TransportError
            If nobody answered, or a process of another user.
        SharedMemoryError
            If there is no room for the rings; `Listener.accept` raises it as well.
        """
        from nbps.transport.carriers.shm_greeting import attempt

        where = _socket_name(address, options)
        start = time.monotonic()
        pause = _FIRST_PAUSE_S
        while True:
            left = timeout_s - (time.monotonic() - start)
            try:
                return attempt(where, address, options, max(left, 0.001))
            except TransportError:
                raise
            except OSError as error:
                last = error
            if not (isinstance(last, TimeoutError) or last.errno in _MAY_PASS):
                raise TransportError(f"cannot connect to {address!r}: {last.strerror}") from last
            left = timeout_s - (time.monotonic() - start)
            if left <= 0:
                raise TransportError(
                    f"nobody answers at {address!r} (tried for {time.monotonic() - start:.1f} s; last error: "
                    f"{last.strerror or last}): does the other node run, on this machine, in the same container, and "
                    "is this its address?"
                ) from last
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def canonical(self, address: str) -> str | None:
        """Return `address`, if the names of all nodes, which begin with it, are short enough."""
        return address if _RENDEZVOUS.fullmatch(address) else None

    def is_local(self, address: str) -> bool:
        """Return True: the kernel says whose process the other is, and nothing is said to those of other users."""
        return True

    def free_rendezvous(self, job: str) -> str:
        """Return the name of the job."""
        return job


def _socket_name(address: str, options: Options) -> str:
    """Return the name of the socket for `address`, in the abstract namespace."""
    if options.tls is not None:
        raise ConfigError(
            "shm needs no TLS: what it carries stays in this machine's memory, which only processes of this user can "
            "open; leave tls out, or take the transport tcp"
        )
    if not _ADDRESS.fullmatch(address):
        raise TransportError(
            f"{address!r} is not an address of shm; expected a name of at most 64 letters, digits, dots, underscores "
            "and hyphens, for instance job-17.node-0"
        )
    return f"\0nbps-shm-{os.geteuid()}-{address}"
