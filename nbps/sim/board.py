"""The board of a simulated node: its slots, and the workers that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.core.worker import ALL, Await, Group, Poll

# Reading a member of an enum costs as much as comparing with it.
_COMMITTED, _REFRESHED, _LAST = Group.COMMITTED, Group.REFRESHED, Group.LAST


class Snapshot(NamedTuple):
    """What the rows of a node hold: committed slots, and ships taken in."""

    committed: list[int]
    installs: int


class SimBoard:
    """Slots of `workers` local workers and, with several nodes, of `nodes` shards.

    Attributes
    ----------
    slots : list of list of int
        By group. COMMITTED: workers, then shards. ARRIVED: workers, then nodes.
    seen : list of list of int
        A row for each reader, local workers first, then all other nodes as one.
    lowest : int
        Lowest committed slot.
    held : int
        The slot of group HELD.
    last : list of int
        Slots of group LAST.
    needed, ships : list of int
        For each worker the highest clock that it has waited for, where nodes must ask, and how many ships it has taken
        in.
    installs : int
        Ships that the node has taken in.
    """

    def __init__(
        self, workers: int, nodes: int, copies: bool, terms: Terms, wake: Callable[[list[Any], bool], None]
    ) -> None:
        self.workers = workers
        self.bounded = terms.v0 is not None
        self._shards = nodes if nodes > 1 else 0
        self._must_ask = nodes > 1 and not terms.pushes
        # Live rows are seen by all workers of a node at once: only copies, and other nodes, have to take them in.
        self._copies = workers if copies else 0
        self._wake = wake
        self.reset(0)

    def reset(self, clock: int) -> None:
        """Begin a run at `clock`: nobody has done anything in it."""
        workers, shards = self.workers, self._shards
        self.slots = [[clock] * (workers + shards), [clock - 1] * workers, [0] * (workers + shards)]
        self.seen = [[clock] * workers for _ in range(self._copies + (1 if shards else 0))]
        self.needed = [0] * workers
        self.ships = [0] * workers
        self.lowest = clock
        self.held = 0
        self.last = [0] * workers
        self._told = [clock, 0, 0]  # the lowest slot of the workers, by group
        self._at_told = [workers] * 3  # how many of them are there
        self._at_lowest = len(self.slots[Group.COMMITTED])
        self._gates: dict[int, list[Any]] = {}  # those that wait for the lowest committed slot, by what it is to be
        self._waiting: list[tuple[Any, Await | Poll]] = []  # everybody else that waits
        self.installs = 0
        self._taken = [self.snapshot()] * workers  # the snapshot that each worker took in last

    # ----------------------------------------------------------------- what workers do

    def publish(self, group: Group, index: int, value: int) -> None:
        """Set a slot and wake those that can go on."""
        if group is _LAST:
            self.last[index] = value
            return
        slots = self.slots[group]
        before, slots[index] = slots[index], value
        if group is _COMMITTED and before == self.lowest and value > before:
            self._at_lowest -= 1
            if not self._at_lowest:
                self.lowest = lowest = min(slots)
                self._at_lowest = slots.count(lowest)
                for target in sorted(target for target in self._gates if target <= lowest):
                    self._wake(self._gates.pop(target), True)
        if self._waiting:
            self._look_again()

    def hold(self, clock: int) -> int:
        """Hold workers at `clock` and later ones; return the clock that one may come to before it heeds that."""
        self.held = clock
        self._look_again()
        committed = self.slots[Group.COMMITTED][: self.workers]
        clocks = [last if clock == FINISHED else clock for clock, last in zip(committed, self.last, strict=True)]
        return 1 + max(clocks)

    def publish_own(self, group: Group, worker: int, value: int) -> bool:
        """Set the slot of a worker; return whether the agent is to look, as it is at most slots under a value bound."""
        if group is _REFRESHED or group is _LAST:
            self.publish(group, worker, value)
            return False
        before = self.slots[group][worker]
        self.publish(group, worker, value)
        if before != self._told[group] or value == before:
            return self.bounded
        self._at_told[group] -= 1
        if self._at_told[group]:
            return self.bounded
        own = self.slots[group][: self.workers]
        self._told[group] = lowest = min(own)
        self._at_told[group] = own.count(lowest)
        return True

    def need(self, worker: int, clock: int) -> bool:
        """Have the agent know that `worker` waits for the visible clock `clock`; return whether that is news to it."""
        is_new = self._must_ask and clock > self.needed[worker]
        if is_new:
            self.needed[worker] = clock
        return is_new

    def survey(self) -> tuple[int, int, list[int], list[int], list[int]]:
        """Return what the agent must know, as `nbps.core.watch.Watch.news` wants it."""
        committed = self.slots[Group.COMMITTED][: self.workers] if self.bounded else []
        return self._told[Group.COMMITTED], self._told[Group.ARRIVED], committed, self.needed, self.ships

    def lowest_of(self, group: Group, worker: int) -> int:
        """Return the lowest slot of `group`, committed or seen, that is not `worker`'s own."""
        if group is not _COMMITTED:
            return self.seen_of(worker)
        slots = self.slots[_COMMITTED]
        if self._at_lowest > 1 or slots[worker] > self.lowest:
            return self.lowest
        return min(slots[:worker] + slots[worker + 1 :], default=FINISHED)

    def snapshot(self) -> Snapshot:
        """Return what the rows of this node hold now."""
        return Snapshot(list(self.slots[Group.COMMITTED]), self.installs)

    def publish_row(self, reader: int, taken: Snapshot | None) -> bool:
        """Say what local worker `reader` has taken in, None for everything, for good; return whether ships were new."""
        if taken is not None:
            self._taken[reader] = taken
        before, self.ships[reader] = self.ships[reader], FINISHED if taken is None else taken.installs
        if reader < self._copies:
            self.seen[reader] = [FINISHED] * self.workers if taken is None else taken.committed[: self.workers]
            self._look_again()
        return self._copies > 0 and self.ships[reader] != before

    def seen_of(self, worker: int) -> int:
        """Clock below which everybody has taken in all of local worker `worker`."""
        return min((row[worker] for row in self.seen), default=FINISHED)

    def holds(self, worker: int, wait: Await | Poll) -> bool:
        """Whether what `worker` waits for has come."""
        if wait.group is _COMMITTED and wait.count == ALL:
            return self.lowest >= wait.target
        if wait.group is Group.SEEN:
            return self.seen_of(worker) >= wait.target
        if wait.group is Group.HELD:
            return self.held >= wait.target
        if wait.count == ALL:
            return min(self.slots[wait.group]) >= wait.target
        return min(self.slots[wait.group][wait.first : wait.first + wait.count]) >= wait.target

    def has_news(self, worker: int) -> bool:
        """Whether the rows hold what `worker` has not taken in: of a worker here, or that came with a ship."""
        taken = self._taken[worker]
        return self.installs != taken.installs or self.slots[Group.COMMITTED] != taken.committed

    def park(self, who: Any, worker: int, wait: Await | Poll) -> None:
        """Wake `who` when what it waits for has come."""
        if type(wait) is Await and wait.group is Group.COMMITTED and wait.count == ALL:
            self._gates.setdefault(wait.target, []).append(who)
        else:
            self._waiting.append((who, wait))

    def _look_again(self) -> None:
        still: list[tuple[Any, Await | Poll]] = []
        waiting, self._waiting = self._waiting, still
        for who, wait in waiting:
            if self.holds(who.local, wait):
                self._wake([who], True)
            elif type(wait) is Poll and self.has_news(who.local):
                self._wake([who], False)
            else:
                still.append((who, wait))

    # ----------------------------------------------------------------- what the node does

    def publish_shard(self, owner: int, clock: int) -> None:
        """Set the slot of a shard."""
        self.publish(Group.COMMITTED, self.workers + owner, clock)

    def publish_arrived(self, node: int, count: int, summands: Any) -> None:
        """Set the barrier slot of a node; simulated workers add nothing up."""
        self.publish(Group.ARRIVED, self.workers + node, count)

    def publish_installs(self, count: int) -> None:
        """Count the ships that are in the rows."""
        self.installs = count
        self._look_again()

    def publish_seen(self, clocks: Sequence[int]) -> None:
        """Say what other nodes have taken in."""
        self.seen[-1] = list(clocks)
        self._look_again()
