"""A job whose nodes run, and strangers that come to it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import zlib

from nbps.transport.addresses import split_address
from support.meeting import (
    PATIENCE_S,
    close_links,
    links,
    opened,
    places,
    receive,
)

SECRET = b"the secret of the job"


@contextlib.contextmanager
def running(nodes=2, **other):
    """Run a job of some nodes, whose meshes are polled in the background; what each makes goes to a list.

    When the block ends, the nodes show that they still hear each other on the connections of the start.
    """
    where = places(nodes, secret=SECRET, **other)
    with opened(where) as results:
        mine = links(results)
        meshes = [result.mesh for result in results]
        made = [[] for _ in meshes]
        stop = threading.Event()

        def drive():
            while not stop.is_set():
                select.select(meshes, [], [], 0.05)
                for mesh, have in zip(meshes, made, strict=True):
                    have.extend(mesh.poll())

        thread = threading.Thread(target=drive)
        thread.start()
        try:
            yield where, meshes, made
        finally:
            stop.set()
            thread.join()
        for one in range(nodes):
            for other_rank in mine[one]:
                mine[one][other_rank].send(b"unharmed")
        for one in range(nodes):
            for other_rank in mine[one]:
                assert receive(mine[one][other_rank]) == b"unharmed"
        close_links(mine)
        close_links([{0: connection} for have in made for _, connection in have])


def announcement(length):
    """Return the header of a first frame of this length, as `nbps.transport.carriers.header` describes it."""
    fields = struct.pack("<4sHHIQQ", b"nbps", 1, 0, 0, length, 0)
    return fields + struct.pack("<I", zlib.crc32(fields))


def stranger(address):
    """Return a plain socket that is connected there."""
    return socket.create_connection(split_address(address), PATIENCE_S)


def said_to(caller):
    """Return what the other end sends until it closes."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := caller.recv(1 << 16):
            heard += chunk
    caller.close()
    return heard
