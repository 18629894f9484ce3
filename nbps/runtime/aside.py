"""What a worker has put aside of its additions to claimed rows, in all its tables (`nbps.kernels.claims`)."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

from nbps.kernels.claim_layout import COUNT
from nbps.kernels.claims import Aside

_YIELDS = 20  # of the core, which may be what a claimant lacks, before this worker sleeps, ever longer
_NAP_S = 0.0001, 0.01
_all: weakref.WeakSet[PutAside] = weakref.WeakSet()  # of this process


class PutAside:
    """What one worker has put aside; others see it when `settle` has added it."""

    def __init__(self) -> None:
        self._tables: dict[str, Aside] = {}
        self._counts: list[memoryview[int]] = []  # read in every clock: faster than elements of arrays
        _all.add(self)

    def watch(self, name: str, aside: Aside) -> None:
        """Look after one more table."""
        self._tables[name] = aside
        self._counts.append(aside.words.data)

    def forget(self) -> None:
        """Have nothing put aside; nothing of it is added."""
        for words in self._counts:
            words[COUNT] = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is put aside."""
        for words in self._counts:  # noqa: SIM110  (a generator takes twice as long)
            if words[COUNT]:
                return False
        return True

    def settle(self) -> bool:
        """Add what can be added now; return whether nothing is left."""
        return sum([aside.retry() for aside in self._tables.values()]) == 0

    def settle_within(self, limit_s: float, look: Callable[[], None]) -> bool:
        """Add what is put aside, trying for so long; return whether nothing is left. Calls `look` between."""
        until, tries = time.monotonic() + limit_s, 0
        while not (settled := self.settle()) and time.monotonic() < until:
            look()
            if tries < _YIELDS:
                os.sched_yield()
            else:
                time.sleep(min(_NAP_S[0] * 2 ** min(tries - _YIELDS, 10), _NAP_S[1]))
            tries += 1
        return settled

    def story(self) -> str:
        """Say of one row that is left who claims it, as a number of its node; empty if nothing is left."""
        for name, aside in self._tables.items():
            for row, holder in aside.holders():
                claimed = f", which worker {holder} of its node is adding to" if holder >= 0 else ""
                return f"row {row} of table {name!r}{claimed}"
        return ""


def _forget_all() -> None:
    for aside in _all:
        aside.forget()


os.register_at_fork(after_in_child=_forget_all)  # what a worker has put aside it adds itself: its child has a copy
