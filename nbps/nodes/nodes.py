"""Where a process stands among the nodes of a job: given as an argument, or read from the environment once.

Nothing here opens a connection or resolves a name. A bad value is a `ConfigError` that names the variable it was in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nbps.checks import whole
from nbps.errors import ConfigError
from nbps.nodes.launchers import find_assignment
from nbps.nodes.settings import MAKE_ONE, VARIABLES, settings
from nbps.transport import get_transport
from nbps.transport.addresses import is_ip
from nbps.transport.interface import Tls, Transport

_JOB_LIMIT = 150  # characters; a connection begins with the name and a number, 200 at most

# What a field is called in messages, by where it was read.
_PLACES = {
    "NBPS_*": ("NBPS_NODES", "NBPS_NODE_RANK"),
    "torchrun": ("WORLD_SIZE", "RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}
_ONE_EACH = {
    "torchrun": "torchrun --nproc-per-node=1",
    "Open MPI": "mpirun --map-by ppr:1:node",
    "Slurm": "srun --ntasks-per-node=1",
}


@dataclass(frozen=True)
class Nodes:
    """Where this process stands among the nodes of a job, and how they find and trust each other.

    Parameters
    ----------
    count : int
        Nodes of the job.
    rank : int
        This one's number, from 0.
    rendezvous : str, optional
        Where node 0 can be reached, the same on every node, as the transport has its addresses: for ``tcp``
        ``host:port``, ``[::1]:5000`` for IPv6; for ``shm`` a name. Required if there are several nodes.
    transport : str
        ``tcp``, ``shm`` for nodes on one machine, or one that an installed package registers.
    job : str
        Nodes of different jobs refuse each other, should they meet at one address.
    secret : bytes
        Shared by all nodes, which prove to each other that they know it. Required, unless `insecure`, where other
        machines can reach a node: for ``tcp`` if `rendezvous` or `bind` is not loopback.
    bind : str
        IP address at which this node listens, where the transport uses IP. By default node 0 listens where `rendezvous`
        says, and each other node at the address from which it reaches node 0: nothing is open in other networks. Two
        cases need more. Where `rendezvous` names a host, node 0 listens at all its IPv4 addresses (``0.0.0.0``),
        because ``/etc/hosts`` of a machine often gives its own name a loopback address. Behind a gateway that passes
        connections on, as in a container with published ports, give ``0.0.0.0`` (``::`` for IPv6) for node 0.
    tls : Tls, optional
        Certificates with which connections are encrypted.
    insecure : bool
        Do without a secret: whoever reaches a port of this job can read and change its tables.
    source : str
        Who said so, for messages: ``"NBPS_*"``, ``"torchrun"``, ``"Open MPI"``, ``"Slurm"``, ``"argument"``,
        ``"default"``.
    local_count : int
        Nodes that the launcher started on this machine, as far as it says.
    roll : str
        Where ``nbps run`` and its nodes tell each other which of them have ended; it sets ``NBPS_ROLL``.

    Raises
    ------
    ConfigError
        If that cannot be: names the argument, or the variable it was read from.

    Examples
    --------
    >>> import nbps
    >>> nodes = nbps.Nodes(count=2, rank=1, rendezvous="10.0.0.1:29500", secret=b"of all nodes")
    >>> print(nodes)
    node 1 of 2 (says: argument), rendezvous at tcp 10.0.0.1:29500
    """

    count: int = 1
    rank: int = 0
    rendezvous: str | None = None
    transport: str = "tcp"
    job: str = "nbps"
    secret: bytes = field(default=b"", repr=False)
    bind: str = ""
    tls: Tls | None = None
    insecure: bool = False
    source: str = field(default="argument", compare=False)
    local_count: int = field(default=1, compare=False)
    roll: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", whole(self._name("count"), self.count, 1))
        object.__setattr__(self, "rank", whole(self._name("rank"), self.rank, 0))
        if self.rank >= self.count:
            raise ConfigError(
                f"{self._name('rank')} is {self.rank}, but {self._name('count')} is {self.count}; expected a rank from "
                f"0 to {self.count - 1}; nodes are numbered from 0"
            )
        transport = self._checked_transport()
        self._check_job()
        self._check_trust()
        self._check_bind()
        if self.rendezvous is None:
            self._check_alone()
            return
        self._check_rendezvous(transport)
        if self.count > 1 and not (self.secret or self.insecure):
            self._check_reach(transport)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read who this process is from its environment; one node where nothing says otherwise.

        The first of these that is there decides:

        1. ``NBPS_NODES`` and ``NBPS_NODE_RANK``, with ``NBPS_RENDEZVOUS``; or ``NBPS_NODES=1`` alone.
        2. torchrun's ``WORLD_SIZE`` and ``RANK``. nbps wants one process for each machine, which starts the workers
           itself: ``--nproc-per-node=1``. With more, each process is a node of its own, with workers of its own. The
           nodes meet at ``MASTER_ADDR``, one port above ``MASTER_PORT``, where torch's own store listens.
        3. Open MPI's ``OMPI_COMM_WORLD_SIZE`` and ``OMPI_COMM_WORLD_RANK``, which say no address: ``NBPS_RENDEZVOUS``
           is needed.
        4. Slurm's, if srun started this process: ``SLURM_STEP_NUM_TASKS`` (or ``SLURM_NTASKS``) and ``SLURM_PROCID``.
           The nodes meet at the first host of the step, at a port from 20000 to 29999 that follows from
           ``SLURM_JOB_ID``. The shell of an allocation and a batch script are one node.

        ``NBPS_RENDEZVOUS`` takes precedence over a launcher's address. All of them go with ``NBPS_TRANSPORT``,
        ``NBPS_SECRET`` or ``NBPS_SECRET_FILE`` (with mode 0600), ``NBPS_JOB``, ``NBPS_BIND``, ``NBPS_TLS_CERT`` with
        ``NBPS_TLS_KEY`` and ``NBPS_TLS_CA``, and ``NBPS_INSECURE=1``, which alone mean nothing and are not looked at.

        Raises
        ------
        ConfigError
            If a variable is missing beside others, or cannot be used.
        """
        if environ is None:
            environ = os.environ
        assignment = find_assignment(environ)
        if assignment is not None:
            said = {name: value for name, value in vars(assignment).items() if value is not None}
            return cls(**(said | settings(environ)))
        if "NBPS_RENDEZVOUS" in environ:
            raise ConfigError(
                "NBPS_RENDEZVOUS is set, but NBPS_NODES and NBPS_NODE_RANK are not, and no launcher says how many "
                "nodes there are; set both, or unset NBPS_RENDEZVOUS for a job on one machine"
            )
        return cls(source="default")

    @property
    def neighbours(self) -> int:
        """Nodes on this machine, this one too, as far as the launcher says or the rendezvous shows."""
        if self.count > 1 and get_transport(self.transport).is_local(str(self.rendezvous)):
            return self.count
        return min(self.count, self.local_count)

    @property
    def meeting_point(self) -> tuple[str, str | None]:
        """Where the nodes meet: equal to that of other nodes exactly if it is the same place."""
        return self.transport, get_transport(self.transport).canonical(str(self.rendezvous))

    def __str__(self) -> str:
        if self.count == 1:
            return "one node"
        text = (
            f"node {self.rank} of {self.count} (says: {self.source}), rendezvous at {self.transport} {self.rendezvous}"
        )
        if self.local_count > 1:
            text += f"; {self.local_count} of the nodes run on this machine, each process is one"
            text += f": {_ONE_EACH[self.source]} makes it one for each machine" if self.source in _ONE_EACH else ""
        return text

    def _name(self, what: str) -> str:
        """Return what a user calls a field."""
        if self.source not in _PLACES:
            return f"Nodes: {what}"
        count, rank = _PLACES[self.source]
        return {**VARIABLES, "count": count, "rank": rank}[what]

    def _checked_transport(self) -> Transport:
        name = f"{self._name('transport')} is {self.transport!r}"
        if not isinstance(self.transport, str):
            raise ConfigError(f"{name}; expected the name of a transport, for instance 'tcp'")
        try:
            transport = get_transport(self.transport)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        if self.count > 1 and not transport.crosses_processes:
            raise ConfigError(f"{name}, which stays within one process; expected one for several, for instance 'tcp'")
        return transport

    def _check_job(self) -> None:
        if not isinstance(self.job, str) or not (0 < len(self.job) <= _JOB_LIMIT and self.job.isprintable()):
            raise ConfigError(
                f"{self._name('job')} is {self.job!r}; expected a name of 1 to {_JOB_LIMIT} printable characters, the "
                f"same on every node"
            )

    def _check_trust(self) -> None:
        if not isinstance(self.secret, bytes):  # it is not shown
            raise ConfigError(f"{self._name('secret')} is of type {type(self.secret).__name__}; expected bytes")
        if not isinstance(self.insecure, bool):
            raise ConfigError(f"{self._name('insecure')} is {self.insecure!r}; expected True or False")
        if self.tls is None:
            return
        if not isinstance(self.tls, Tls):
            raise ConfigError(f"Nodes: tls is {self.tls!r}; expected a nbps.transport.Tls, or None")
        for what in ("certificate", "key", "authority"):
            path = Path(getattr(self.tls, what))
            if not (path.is_file() and os.access(path, os.R_OK)):
                raise ConfigError(
                    f"{self._name(what)} is {str(path)!r}; expected a file in PEM format that can be read"
                )

    def _check_alone(self) -> None:
        if self.count == 1:
            return
        name = self._name("rendezvous")
        how = {
            "argument": "give host:port of node 0",
            "Open MPI": (
                "Open MPI's variables hold no address; choose a free port on the machine of rank 0: "
                "mpirun -x NBPS_RENDEZVOUS=host:port ..."
            ),
            "torchrun": "MASTER_ADDR and MASTER_PORT are neither; set them, or NBPS_RENDEZVOUS=host:port of node 0",
        }.get(self.source, "set it to host:port of node 0, the same on every node")
        raise ConfigError(f"{name} is not set, but {self._name('count')} is {self.count}; {how}")

    def _check_rendezvous(self, transport: Transport) -> None:
        if not isinstance(self.rendezvous, str) or transport.canonical(self.rendezvous) is None:
            raise ConfigError(f"{self._name('rendezvous')} is {self.rendezvous!r}; expected {transport.address_form}")

    def _check_bind(self) -> None:
        if self.bind and not is_ip(self.bind):
            raise ConfigError(
                f"{self._name('bind')} is {self.bind!r}; expected an IP address of this machine, or 0.0.0.0 or :: for "
                f"all of them; without port and brackets"
            )

    def _check_reach(self, transport: Transport) -> None:
        """Refuse to be reachable from other machines."""
        rendezvous = str(self.rendezvous)
        exposed = transport.exposed(rendezvous, self.bind)
        if exposed is None:
            return
        name, shown = ("rendezvous", rendezvous) if exposed == rendezvous else ("bind", self.bind)
        one, insecure = ("the same secret", "insecure=True")
        if self.source in _PLACES:
            one, insecure = "NBPS_SECRET or NBPS_SECRET_FILE, the same", "NBPS_INSECURE=1"
        raise ConfigError(
            f"{self._name(name)} is {shown!r}, which other machines can reach, and there is no secret; set "
            f"{one} on every node (make one: {MAKE_ONE}), or {insecure} in a network where all are trusted"
        )
