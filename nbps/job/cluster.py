"""What a job tells other nodes of itself, and what it cannot do with them."""

from __future__ import annotations

import dataclasses
import os
import platform
import secrets
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.consistency import VAP, Consistency
from nbps.core.rules import NODES_LIMIT
from nbps.errors import ConfigError, NodeError
from nbps.nodes.nodes import Nodes
from nbps.runtime.cores import own_cores
from nbps.tables.definition import Table
from nbps.transport.mesh.place import Place

if TYPE_CHECKING:
    from nbps.job.job import Job


def default_workers(nodes: Nodes) -> int:
    """Return how many workers a node has where nobody says: ``NBPS_WORKERS``, else one for each of its cores."""
    given = os.environ.get("NBPS_WORKERS")
    if given is None:
        return own_cores(nodes.neighbours)
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


def surviving_nodes(nodes: Nodes, addresses: Sequence[str], error: NodeError, lost: int) -> Nodes:
    """Return the place of this node among those that are left when node `lost` is.

    Raises
    ------
    NodeError
        If they are too few to know that they are not the ones cut off.
    """
    left = [rank for rank in range(nodes.count) if rank != lost]
    if nodes.rank not in left:
        raise NodeError(f"{error}; the others go on without this node")
    if 2 * len(left) < nodes.count or (2 * len(left) == nodes.count and 0 not in left):
        raise NodeError(
            f"{error}; {len(left)} of {nodes.count} nodes cannot go on: they may be the ones cut off. "
            f"Expected more than half of the nodes, or half with node 0"
        )
    return dataclasses.replace(
        nodes,
        count=len(left),
        rank=left.index(nodes.rank),
        rendezvous=nodes.rendezvous if lost != 0 else addresses[left[0]],
        job=f"{nodes.job}+",  # who was lost and comes back is no member of it
    )


def place_of(job: Job, initial: Mapping[str, npt.NDArray[Any]]) -> Place:
    """Return the place of `job` among its nodes, with its card: in what all nodes must agree.

    `initial` are the values of its tables. The card names their checksums: replicas are exchanged by difference, so
    they must be the same at the start.
    """
    from importlib.metadata import version  # takes 20 ms to import

    nodes, plan = job.nodes, job.checkpoints
    definitions = [
        {
            "name": table.name, "rows": table.rows, "width": table.width, "dtype": table.dtype, "access": table.access,
            "staleness": table.staleness, "sharding": list(sharding) if isinstance(sharding, tuple) else sharding,
            "replicate": table.replicate, "compress": table.compress,
            "initial values": f"crc32 {zlib.crc32(np.ascontiguousarray(values).data):08x}",
        }
        for table in job.tables
        for sharding, values in [(sharding_of(table), initial[table.name])]
    ]  # fmt: skip
    return Place(
        rank=nodes.rank,
        nodes=nodes.count,
        rendezvous=str(nodes.rendezvous),
        job=f"{nodes.job}/{job.number}",
        incarnation=secrets.randbits(64),
        secret=nodes.secret,
        transport=nodes.transport,
        bind=nodes.bind,
        tls=nodes.tls,
        card={
            "version": version("nbps"), "byte order": "little", "tables": definitions,
            "consistency": str(job.consistency), "seed": job.seed,
            "resumed": None if job.resumed is None else job.resumed.path.rstrip("/").rpartition("/")[2],
            "checkpoints": None if plan is None else f"every {plan.every} clocks, keep {plan.keep}",
            "on_failure": job.on_failure, "failure_timeout_s": job.failure_timeout_s,
            "workers": job.workers, "host": platform.node(), "pid": os.getpid(),
        },
        start_timeout_s=job.start_timeout_s,
        insecure=nodes.insecure,
    )  # fmt: skip


def sharding_of(table: Table) -> str | tuple[int, ...]:
    """Return which node owns which row, as agents want it."""
    return table.sharding if isinstance(table.sharding, str) else tuple(table.sharding)
