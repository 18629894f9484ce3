"""What a job tells other nodes of itself, and what it cannot do with them."""

from __future__ import annotations

import dataclasses
import os
import platform
import secrets
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import NodeError
from nbps.job.checkpoints import Resumed
from nbps.job.settings import JobSettings
from nbps.nodes.nodes import Nodes
from nbps.transport.mesh.place import Place


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
        job=f"{nodes.job}+",  # a node that was lost and comes back is not a member of it
        roll="",  # it knows the nodes by their first ranks
    )


def place_of(
    settings: JobSettings, number: int, resumed: Resumed | None, initial: Mapping[str, npt.NDArray[Any]]
) -> Place:
    """Return the place of job number `number` among its nodes, with its card: in what all nodes must agree.

    `initial` are the values of its tables. The card names their checksums: replicas are exchanged by deltas, so
    they must be the same at the start.
    """
    from importlib.metadata import version  # takes 20 ms to import

    nodes, plan = settings.nodes, settings.checkpoints
    definitions = [
        {**table.plain(), "initial values": f"crc32 {zlib.crc32(np.ascontiguousarray(initial[table.name]).data):08x}"}
        for table in settings.tables
    ]
    return Place(
        rank=nodes.rank,
        nodes=nodes.count,
        rendezvous=str(nodes.rendezvous),
        job=f"{nodes.job}/{number}",
        incarnation=secrets.randbits(64),
        secret=nodes.secret,
        transport=nodes.transport,
        bind=nodes.bind,
        tls=nodes.tls,
        card={
            "version": version("nbps"), "byte order": "little", "tables": definitions,
            "consistency": str(settings.consistency), "seed": settings.seed,
            "resumed": None if resumed is None else resumed.path.rstrip("/").rpartition("/")[2],
            "checkpoints": None if plan is None else f"every {plan.every} clocks, keep {plan.keep}",
            "on_failure": settings.on_failure, "failure_timeout_s": settings.failure_timeout_s,
            "workers": settings.workers, "host": platform.node(), "pid": os.getpid(),
        },
        start_timeout_s=settings.start_timeout_s,
        insecure=nodes.insecure,
        roll=nodes.roll,
    )  # fmt: skip
