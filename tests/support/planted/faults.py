"""Deliberate faults of the protocol, each of which the simulator and its checks must find. Only tests switch them on.

A fault is a function that takes pytest's monkeypatch (or anything with its `setattr`) and breaks one thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from nbps.core import runs
from nbps.sim import random_scenario, simulate

SEEDS = 1000


class Fault(NamedTuple):
    """What is broken, and in which schedules it is looked for."""

    plant: Callable[[Any], None]
    narrowed: dict[str, Any]


FAULTS: dict[str, Fault] = {}


def fault(text: str, **narrowed: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a fault under a text that says what is wrong.

    It is looked for in random schedules; `narrowed` replaces some of what they draw, for faults that need much to
    come together.
    """

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        FAULTS[text] = Fault(function, narrowed)
        return function

    return register


def first_found(fault: Fault, seeds: int = SEEDS) -> tuple[int, str] | None:
    """Return the first seed that shows a violation, and of what."""
    for seed in range(seeds):
        outcome = simulate(dataclasses.replace(random_scenario(seed), **fault.narrowed))
        if outcome.violations:
            return seed, outcome.violations[0].property
    return None


def patch_events(patch, kind, handler):
    """Have `Runs` handle events of a kind by `handler` in every phase that knows them."""
    for handlers in runs._HANDLERS.values():
        if kind in handlers:
            patch.setitem(handlers, kind, handler)
