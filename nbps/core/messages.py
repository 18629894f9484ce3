"""What nodes say to each other, what a driver tells its node, and what the node asks it to do.

Named tuples: they cannot be changed and print themselves, as frozen dataclasses do, and are made in a third of the time
(the simulator makes some ten million a minute). Only their types tell two kinds with equal fields apart.
"""

from __future__ import annotations

from typing import NamedTuple

from nbps.core.memory import Rows

# ----------------------------------------------------------------- from node to node


class Push(NamedTuple):
    """Additions of a node's workers to rows of the receiver, batch `number`; its workers have committed `clock`."""

    number: int
    clock: int
    rows: Rows | None


class Ship(NamedTuple):
    """Values of rows of the sender, which hold every update from clocks < `clock`.

    They contain the receiver's batches up to number `applied`, and those asked for by requests up to `answered`.
    """

    number: int
    clock: int
    applied: int
    answered: int
    rows: Rows | None


class Pull(NamedTuple):
    """Ship what changed as soon as the shard's clock is >= `clock`."""

    clock: int


class Subscribe(NamedTuple):
    """Ship `rows` now and whenever they change; the sender's request number `request`."""

    request: int
    rows: Rows


class Unsubscribe(NamedTuple):
    """Ship `rows` no more."""

    rows: Rows


class Arrived(NamedTuple):
    """Every worker of the sender has come to `count` barriers, the last with `summands` for the receiver's workers."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    summands: Rows | None = None


class Confirm(NamedTuple):
    """All workers of the sender have taken in the receiver's ships up to `number` (VAP)."""

    number: int


class Visible(NamedTuple):
    """Every node has taken in the receiver's batches up to `number` to rows of the sender (VAP)."""

    number: int


class Leaving(NamedTuple):
    """Every addition to rows of the sender has arrived, for good; it will be silent when all have said so."""


class Stop(NamedTuple):
    """The job ends; because node `lost` - 1 was not heard any more, if that is not 0, or if `unsaved`, a checkpoint."""

    lost: int
    unsaved: int
    reason: str


class Halt(NamedTuple):
    """The workers of the sender are held at clocks of at most `bound`; `asked` if it was told to end (SIGTERM)."""

    bound: int
    asked: int


Message = Push | Ship | Pull | Subscribe | Unsubscribe | Arrived | Confirm | Visible | Leaving | Stop | Halt


class Frame(NamedTuple):
    """What travels on a link: message `number` (0 for none), and the last number received the other way."""

    run: int
    number: int
    acknowledged: int
    message: Message | None


# ----------------------------------------------------------------- from the driver to its node


class Committed(NamedTuple):
    """The lowest clock of the node's workers is `clock`.

    Under VAP told after every commit, with the committed clock of `each` worker.
    """

    clock: int
    each: tuple[int, ...] | None = None


class Needed(NamedTuple):
    """A worker waits for the visible clock `clock`."""

    clock: int


class Touched(NamedTuple):
    """A worker wants rows of `owner` that this node does not keep fresh."""

    owner: int
    rows: Rows


class Evicted(NamedTuple):
    """Rows of `owner` are no longer kept fresh."""

    owner: int
    rows: Rows


class Spare(NamedTuple):
    """There is room for `bytes_limit` bytes to node `owner` before the next clock."""

    owner: int
    bytes_limit: int


class BarrierReached(NamedTuple):
    """Every worker of the node has come to `count` barriers, the last with `summands` for those of other nodes."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    summands: Rows | None = None


class Refreshed(NamedTuple):
    """Local worker `worker` has refreshed its copies since it saw `installs` ships in the node's rows (VAP).

    A ship that came in while it refreshed may not be in its copies. `last` if it will never read again.
    """

    worker: int
    installs: int
    last: bool = False


class Received(NamedTuple):
    """A frame of node `source` arrived."""

    source: int
    frame: Frame


class LinkUp(NamedTuple):
    """The connection to `peer` stands (again)."""

    peer: int


class LinkDown(NamedTuple):
    """The connection to `peer` broke; what was on its way may be lost."""

    peer: int


class Tick(NamedTuple):
    """Time has passed."""


class WorkerLost(NamedTuple):
    """The job ends here, because a local worker did, say; others may go on without node `lost`, if it is not None.

    `unsaved` if a checkpoint that could not be written is why.
    """

    reason: str
    lost: int | None = None
    unsaved: bool = False


class Terminate(NamedTuple):
    """The job is to be saved as soon as it can be, and to end (SIGTERM)."""


class Saved(NamedTuple):
    """The rows of the earliest `Save` that was not answered are written, for good or not: their copy is free."""


class Begin(NamedTuple):
    """The workers of the node begin the next run; its board has been reset (`nbps.core.runs`)."""


Event = (
    Committed
    | Needed
    | Touched
    | Evicted
    | Spare
    | BarrierReached
    | Refreshed
    | Received
    | LinkUp
    | LinkDown
    | Tick
    | WorkerLost
    | Terminate
    | Saved
    | Begin
)

# ----------------------------------------------------------------- from the node to its driver


class Send(NamedTuple):
    """Send `frame` to node `peer`; frames to one peer stay in order as long as the connection stands."""

    peer: int
    frame: Frame


class Refuse(NamedTuple):
    """Close the connection to `peer`, which sent what no node may send, and tell of it by `LinkDown`.

    Nothing of it was taken. A new connection brings everything again that was not acknowledged.
    """

    peer: int
    reason: str


class Save(NamedTuple):
    """Write `rows`, the owned ones, as of `clock` of run number `run`; answered by `Saved`.

    They hold exactly the updates from clocks < `clock`, and are a copy: nobody changes them any more.
    """

    run: int
    clock: int
    rows: Rows


class Done(NamedTuple):
    """Run number `run` is over: every node has the same rows, and everything that was to be saved is written."""

    run: int


class Leave(NamedTuple):
    """Nobody needs this node any more: its driver may end."""


class End(NamedTuple):
    """End the workers of this node and raise `reason`.

    Node `lost`, if any, was not heard any more, or was told to end. A checkpoint could not be written if `unsaved`.
    """

    reason: str
    lost: int | None = None
    unsaved: bool = False


Action = Send | Refuse | Save | Done | Leave | End
