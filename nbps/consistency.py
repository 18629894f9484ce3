"""Consistency models: how old a state a worker may read, and when data moves.

A worker at clock c under staleness s reads a state that holds every update of every worker from clocks < c - s, and
all its own (Ho et al., NIPS 2013, section 2). The models differ in s and in when a ``cached`` copy is refreshed;
``direct`` and ``exclusive`` tables are live, so they are as fresh as memory is. `eager` models refresh copies at every
clock; an `ordered` one also sends them in rank order, so that sums of floats do not depend on timing.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar

from nbps.errors import ConfigError


def check_staleness(staleness: float, owner: str) -> float:
    """Return `staleness` if it is a whole number >= 0 or infinity.

    Raises
    ------
    ConfigError
        Otherwise; names `owner`.
    """
    whole = isinstance(staleness, numbers.Real) and not isinstance(staleness, bool)
    if not whole or not (staleness >= 0 and (math.isinf(staleness) or staleness == int(staleness))):
        raise ConfigError(
            f"{owner}: staleness is {staleness!r}; expected a whole number of clocks >= 0, or math.inf for no bound"
        )
    return math.inf if math.isinf(staleness) else int(staleness)


@dataclass(frozen=True)
class SSP:
    """Stale synchronous parallel: a copy is refreshed only when it is too old (Ho et al., NIPS 2013).

    Parameters
    ----------
    staleness : int or math.inf
        Clocks by which a read may lag behind.
    """

    staleness: float
    eager: ClassVar[bool] = False
    ordered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "staleness", check_staleness(self.staleness, type(self).__name__))


@dataclass(frozen=True)
class ESSP(SSP):
    """Eager SSP: the same bound, and copies are refreshed at every clock (Dai et al., AAAI 2015). The default.

    Measured staleness is then mostly far below the bound, which becomes a safety net instead of a tuning knob.
    """

    staleness: float = 2
    eager: ClassVar[bool] = True


@dataclass(frozen=True)
class BSP:
    """Bulk synchronous parallel: staleness 0.

    ``cached`` tables see exactly what was committed in earlier clocks and add up in rank order, so runs with one
    number of workers are bit-identical. ``direct`` tables keep the bound but also show updates of the running clock.
    """

    eager: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    @property
    def staleness(self) -> float:
        """Always 0."""
        return 0


@dataclass(frozen=True)
class ASP:
    """Asynchronous: never waits; copies are refreshed at every clock. No bound on what a read misses."""

    eager: ClassVar[bool] = True
    ordered: ClassVar[bool] = False

    @property
    def staleness(self) -> float:
        """Always infinite."""
        return math.inf


Consistency = BSP | SSP | ESSP | ASP


def check_consistency(model: object, owner: str) -> None:
    """Raise `ConfigError`, which names `owner`, if `model` is no consistency model."""
    if isinstance(model, type) and issubclass(model, Consistency):
        raise ConfigError(
            f"{owner}: consistency is the class {model.__name__}; expected an object: {model.__name__}(...)"
        )
    if not isinstance(model, Consistency):
        raise ConfigError(f"{owner}: consistency is {model!r}; expected BSP(), SSP(s), ESSP(s) or ASP()")
