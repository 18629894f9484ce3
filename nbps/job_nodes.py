"""What a job tells other nodes of itself, and what it cannot do with them."""

from __future__ import annotations

import itertools
import os
import platform
import secrets
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.agent.sharding import NODES_LIMIT
from nbps.checks import whole
from nbps.consistency import VAP, Consistency
from nbps.errors import ConfigError
from nbps.nodes import Nodes
from nbps.runtime.cores import usable_cores
from nbps.table import Table
from nbps.transport.place import Place

if TYPE_CHECKING:
    from nbps.job import Job

_numbers = itertools.count()  # of the jobs that this process starts with other nodes


def default_workers() -> int:
    """Return how many workers a node has where nobody says: ``NBPS_WORKERS``, else one for each core."""
    given = os.environ.get("NBPS_WORKERS")
    if given is None:
        return usable_cores()
    return whole("NBPS_WORKERS", int(given) if given.strip().isdecimal() else given, 1)


def check_nodes(nodes: Nodes, tables: Sequence[Table], model: Consistency) -> None:
    """Raise `ConfigError` if a job cannot be what it shall be on several nodes."""
    if nodes.count > NODES_LIMIT:
        raise ConfigError(f"Job: {nodes.count} nodes; expected at most {NODES_LIMIT}")
    for table in tables:
        if not isinstance(table.sharding, str) and len(table.sharding) != nodes.count - 1:
            raise ConfigError(
                f"table {table.name!r}: sharding gives the first rows of {len(table.sharding)} nodes; expected "
                f"{nodes.count - 1}, one for each node after node 0"
            )
        if isinstance(model, VAP) and table.access != "cached":
            raise ConfigError(
                f"Job: {model} with table {table.name!r}, access {table.access!r}, on {nodes.count} nodes: additions "
                f"to live rows are not counted as in transit, but other nodes see them later; expected access='cached'"
            )


def place_of(job: Job, tables: Sequence[tuple[Table, npt.NDArray[Any]]]) -> Place:
    """Return the place of `job` among its nodes, with its card: in what all nodes must agree.

    The card names the checksum of each table's initial values: replicas are exchanged by difference, so they must be
    the same at the start.
    """
    from nbps import __version__

    nodes = job.nodes
    definitions = [
        {
            "name": table.name, "rows": table.rows, "width": table.width, "dtype": table.dtype, "access": table.access,
            "staleness": table.staleness, "sharding": list(sharding) if isinstance(sharding, tuple) else sharding,
            "replicate": table.replicate, "initial values": f"crc32 {zlib.crc32(np.ascontiguousarray(values)):08x}",
        }
        for table, values in tables
        for sharding in [sharding_of(table)]
    ]  # fmt: skip
    return Place(
        rank=nodes.rank,
        nodes=nodes.count,
        rendezvous=str(nodes.rendezvous),
        job=f"{nodes.job}/{next(_numbers)}",
        incarnation=secrets.randbits(64),
        secret=nodes.secret,
        transport=nodes.transport,
        bind=nodes.bind,
        tls=nodes.tls,
        card={
            "version": __version__, "byte order": "little", "tables": definitions, "consistency": str(job.consistency),
            "resumed": None if job.resumed is None else f"{job.resumed.path} at clock {job.resumed.clock}",
            "workers": job.workers, "host": platform.node(), "pid": os.getpid(),
        },
        start_timeout_s=job.start_timeout_s,
        insecure=nodes.insecure,
    )  # fmt: skip


def sharding_of(table: Table) -> str | tuple[int, ...]:
    """Return which node owns which row, as agents want it."""
    return table.sharding if isinstance(table.sharding, str) else tuple(table.sharding)
