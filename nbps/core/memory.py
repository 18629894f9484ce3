"""What a node's driver lends to the core: the rows of this node and its board of clocks.

What a node does to its rows is part of the protocol's meaning, so the core calls these in the order that counts; how
rows are stored, marked as changed and packed is theirs. `Rows` is opaque to the core. Workers read and add at the same
time, also in the middle of any of these calls.

A batch that another node sent may be anything. Where it cannot be used, `apply`, `install`, `subscribe` and
`unsubscribe` raise `RemoteProtocolError`, and have changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Rows = Any  # a batch of rows, additions or values; never changed once it was handed over


class Memory(Protocol):
    """The rows of one node: those it owns, and a replica of those that others own."""

    def collect(self, owner: int, exact: bool) -> Rows | None:
        """Take the deltas of the changed replica rows of `owner`: ``d = values - base; base += d``.

        Unless `exact`, some of it may be left for a later call. A row is unmarked *before* it is read: an addition in
        between is taken now or still marked. None if no row changed.
        """

    def important(self, owner: int, bytes_limit: int) -> Rows | None:
        """Take, as `collect` does, the deltas that are largest beside the rows' values, of about so many bytes."""

    def bytes_of(self, rows: Rows) -> int:
        """Return how much memory a batch takes, in bytes."""

    def check(self, rows: Rows) -> None:
        """Raise `RemoteProtocolError` if `apply` could not add this batch."""

    def apply(self, source: int, rows: Rows) -> None:
        """Add a batch of node `source` to the rows owned here; every other subscriber must be told.

        `source` has its own additions; it is told of a row when somebody else changed it.
        """

    def gather(self, subscriber: int, everything: bool) -> Rows | None:
        """Take the values of the owned rows that changed since `subscriber` was last given them.

        With `everything`, at the end of a run, also of rows to which it does not subscribe.
        """

    def install(self, owner: int, rows: Rows, unapplied: Sequence[Rows], answered: int) -> None:
        """Take in values of `owner`: ``base' = value + unapplied; values += base' - base; base = base'``.

        `unapplied` are this node's own batches that the values do not contain. Rows wanted with a request up to
        `answered` can be read from now on.
        """

    def want(self, owner: int, rows: Rows, request: int) -> None:
        """Remember that `rows` were asked for by `request`; they cannot be read until it is answered."""

    def subscribe(self, subscriber: int, rows: Rows) -> None:
        """Give `subscriber` these rows now, and whenever they change."""

    def unsubscribe(self, subscriber: int, rows: Rows) -> None:
        """Stop that."""

    def copy_owned(self) -> Rows:
        """Return a copy of the owned rows as they are now, to be saved."""


class Board(Protocol):
    """The slots of the node's board that the node itself writes (`nbps.core.worker.Group`)."""

    def publish_shard(self, owner: int, clock: int) -> None:
        """Say that every update of every worker from clocks < `clock` to rows of `owner` can be read on this node."""

    def publish_arrived(self, node: int, count: int, summands: Rows | None) -> None:
        """Say that every worker of `node` has come to `count` barriers; before that, lay down its `summands`."""

    def hold(self, clock: int) -> int:
        """Have workers that come to `clock` or a later one wait there, and those that wait below it go on.

        Returns
        -------
        int
            The clock that a worker may come to at most before it heeds that, or would have, had it not finished.
        """

    def publish_installs(self, count: int) -> None:
        """Say that `count` ships have been taken into this node's rows (VAP); to a worker that polls, that is news."""

    def publish_seen(self, clocks: Sequence[int]) -> None:
        """Say that other nodes have taken in each local worker's updates from clocks < ``clocks[worker]`` (VAP)."""
