"""Two whole workers of the real protocol with the real kernels, in every interleaving; and what each rule is there for.

One or two clocks each: every wait of the protocol occurs in one. For strict BSP and VAP two would take too long, so
what shows only in the clock after is not seen: a VAP worker that calls seen what was committed while it took in rows.
"""

from __future__ import annotations

import math

import pytest

from nbps.core import worker as core
from nbps.core.terms import Terms
from nbps.errors import LocalProtocolError
from nbps.testing.consistency.interleave import Order
from support.small_job import SmallJob

SSP, LAZY, ESSP, BSP = Terms(0, eager=False), Terms(1, eager=False), Terms(1), Terms(0, ordered=True)
VAP = Terms(math.inf, v0=0.9)  # nothing may be in transit when a worker goes on


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "order", "clocks", "schedules"),
    [
        (SSP, Order.TSO, 2, 1e31),
        (SSP, Order.PSO, 1, 1e20),
        (LAZY, Order.TSO, 2, 1e23),
        (ESSP, Order.TSO, 1, 1e15),
        (BSP, Order.TSO, 1, 1e43),
        (VAP, Order.SC, 1, 1e41),
    ],
    ids=["SSP(0)-TSO", "SSP(0)-PSO", "SSP(1)-TSO", "ESSP(1)-TSO", "BSP-TSO", "VAP-SC"],
)
def test_two_workers_keep_every_promise_in_every_schedule(terms, order, clocks, schedules):
    """No deadlock, exact sums, reads as fresh as promised, strict BSP exact, nothing above the value bound."""
    result = SmallJob(order, 2, clocks, terms).explore()
    assert result.failures == []
    assert result.schedules > schedules


class Early(core.Worker):
    """Publishes its clock before it sends what belongs to it."""

    def tick(self, wait=True):
        end = self._enter("tick")
        self.now += 1
        yield core.Publish(core.Group.COMMITTED, self.now)
        self.now -= 1
        yield from self._commit()
        self.now += 1
        self.gate_owed = True
        yield from self._pass_gate()
        self.state = end


class Hasty(core.Worker):
    """Goes on whatever is in transit."""

    def _await_value_bound(self, v0):
        yield core.Lowest(core.Group.SEEN)


class Impatient(core.Worker):
    """Waits for one clock less."""

    def _await(self, group, first, count, target, what):
        yield from super()._await(group, first, count, target - 1, what)


def nothing(*_):
    """Stand in for an operation that was forgotten."""


MISTAKES = {
    "published before it was sent": (SSP, Order.SC, {"core_worker": Early}, "too old"),
    "a gate that opens a clock early": (SSP, Order.SC, {"core_worker": Impatient}, "satisfies the gate"),
    "strict BSP from a board that says all have begun": (BSP, Order.SC, {"refreshed": 0}, "not committed before"),
    "no value bound": (VAP, Order.SC, {"core_worker": Hasty}, "entered"),
    "tick without a fence": (SSP, Order.TSO, {"planted": {"tick": {"fence": nothing}}}, "deadlock"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_broken_rule_is_found(name):
    """Planted in the protocol, the board or a kernel: some schedule shows it."""
    terms, order, planted, message = MISTAKES[name]
    try:
        failures = [failure.message for failure in SmallJob(order, 2, 1, terms, **planted).explore().failures]
    except LocalProtocolError as error:  # the worker notices it itself
        failures = [str(error)]
    assert any(message in failure for failure in failures), failures[:3]
