"""What an agent must know, and what it and its driver say to each other; free of Numba: the driver imports it.

Messages go over a pair of sockets as pickles: both ends are processes of one job on one machine. The driver says
`Run` when its workers begin, `Fail` when they cannot go on, `Terminate` when it was told to end, and `Close` when the
job is over. The agent answers with `Joined` once, with `RunDone` after each run, and with `Ended` if the job is over
for whatever reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nbps.core.terms import Terms
from nbps.tables.placed import PlacedTable
from nbps.transport.mesh.place import Place


@dataclass(frozen=True)
class SavePlan:
    """Where and how an agent saves its rows while the job runs.

    Attributes
    ----------
    path : str or Path
    every : int
        Clocks between two checkpoints.
    keep : int or None
    tables : dict
        Definitions by name.
    """

    path: str | Path
    every: int
    keep: int | None
    tables: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class AgentSpec:
    """What an agent must know of its job.

    Attributes
    ----------
    place : Place or None
        Of this node among the others; None for a job of one node.
    control : int
        Descriptor of its end of the sockets to the driver.
    board : str
    workers : int
        On this node.
    terms : Terms
    tables : tuple of PlacedTable
    failure_timeout_s : float
        A node that is not heard for so long is lost.
    waits : bool
        Whether it is waited for instead.
    bandwidth_budget : float or None
        Bytes a second for additions that are sent before their clock.
    clock : int
        At which the first run starts.
    first_run : int
        Number of the first run; those before were carried out in an earlier life of the job.
    save : SavePlan or None
        Where checkpoints of running jobs go.
    lineage : str or None
        Of checkpoints, where the job goes on from one.
    """

    place: Place | None
    control: int
    board: str
    workers: int
    terms: Terms
    tables: tuple[PlacedTable, ...]
    failure_timeout_s: float
    waits: bool
    bandwidth_budget: float | None
    clock: int
    first_run: int
    save: SavePlan | None
    lineage: str | None


class Run(NamedTuple):
    """The workers begin; the board has been reset."""


class Fail(NamedTuple):
    """The workers of this node cannot go on; if `gone`, those of others may without them."""

    reason: str
    gone: bool


class Terminate(NamedTuple):
    """The job is to be saved as soon as it can be, and to end."""


class Close(NamedTuple):
    """The job is over."""


class Joined(NamedTuple):
    """All nodes have found each other, with so many `workers` each; they call this life of the job `attempt`."""

    workers: tuple[int, ...]
    addresses: tuple[str, ...]
    attempt: str


class Traffic(NamedTuple):
    """What an agent has sent and received since it started."""

    bytes_sent: int = 0
    bytes_received: int = 0
    rows_sent: int = 0
    rows_received: int = 0


class RunDone(NamedTuple):
    """The run is over, and every node has the same rows."""

    traffic: Traffic


class Ended(NamedTuple):
    """The job is over for this node.

    If `lost` is not None, because that node was not heard any more, or was told to end; if `unsaved`, because a
    checkpoint could not be written.
    """

    reason: str
    lost: int | None = None
    unsaved: bool = False
