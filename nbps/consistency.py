"""Consistency models: how old a state a worker may read, and when data moves.

A worker at clock c under staleness s reads a state that holds every update of every worker from clocks < c - s, and
all its own (Ho et al., NIPS 2013, section 2). The models differ in s and in when a ``cached`` copy is refreshed;
``direct`` and ``exclusive`` tables are live, so they are as fresh as memory is. `eager` models refresh copies at every
clock; an `ordered` one also sends them in rank order, so that sums of floats do not depend on timing.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.errors import ConfigError


def check_staleness(staleness: float, owner: str) -> float:
    """Return `staleness` if it is a whole number >= 0 or infinity.

    Raises
    ------
    ConfigError
        Otherwise; names `owner`.
    """
    real = isinstance(staleness, numbers.Real) and not isinstance(staleness, bool)
    if not real or not (staleness == math.inf or (0 <= staleness < FINISHED and staleness == int(staleness))):
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

    Notes
    -----
    *Consistency.* A read at clock c of a ``cached`` table shows exactly the updates from clocks < c and the worker's
    own, and tables add up in rank order: runs with one number of workers are bit-identical. An ``exclusive`` table is
    live, so this holds for the rows that the reader itself may write in that clock and for rows that nobody writes in
    it; what another worker is writing is seen when it comes. A job with ``direct`` tables is refused: they show updates
    of the running clock.
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


@dataclass(frozen=True)
class VAP:
    """Value-bounded asynchronous parallel (Dai et al., AAAI 2015, section 2): what others miss is small, not young.

    A worker that has committed t clocks goes on when its updates that not every other worker has taken in are at most
    ``v0 / sqrt(t)`` in the maximum norm. Copies are refreshed at every clock.

    Parameters
    ----------
    v0 : float
        Bound on the updates in transit after the first clock; > 0 and finite, in the units of the tables' values.

    Notes
    -----
    *Consistency.* The bound is checked when a worker commits: updates of the running clock count from then on. Norms of
    several clocks in transit are added, which is never less than the norm of their sum; the norm is taken over all
    ``cached`` tables together. A single clock larger than the bound is committed and then waited for until all have
    it. Additions to ``direct`` and ``exclusive`` tables are visible to everybody on the machine at once, or a moment
    later where another worker adds to the same row (at a clock or barrier at the latest): nothing of them counts as in
    transit, and the model neither counts nor delays them; a job with no other tables is refused, and on
    several nodes, where it would not hold, one with any such table. Others take updates in when they call
    ``clock()``, and whenever they wait, in ``clock``, ``get`` or ``barrier``; so rows of a ``cached`` table may change
    in a ``barrier`` too. There is no bound on clocks, unless a table has a staleness of its own: both bounds then hold.
    `Report.transit_share` says how much of the bound was used.
    """

    v0: float
    eager: ClassVar[bool] = True
    ordered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        real = isinstance(self.v0, numbers.Real) and not isinstance(self.v0, bool)
        try:
            v0 = float(self.v0) if real else math.nan
        except OverflowError:  # an integer beyond all floats
            v0 = math.inf
        if not 0 < v0 < math.inf:
            raise ConfigError(
                f"VAP: v0 is {self.v0!r}; expected a finite number > 0, in the units of the tables' values; "
                f"ASP() has no bound at all"
            )
        object.__setattr__(self, "v0", v0)

    @property
    def staleness(self) -> float:
        """Always infinite: clocks are not bounded."""
        return math.inf


Consistency = BSP | SSP | ESSP | ASP | VAP
_MODELS: dict[str, type[Consistency]] = {model.__name__: model for model in (BSP, SSP, ESSP, ASP, VAP)}


def consistency_named(name: str, bound: float | None = None) -> Consistency:
    """Return the model called `name`, in capitals or not; `bound` is its staleness or v0, where it has one.

    Raises
    ------
    ConfigError
        If there is no such model, or `bound` cannot be used.
    """
    model: Any = _MODELS.get(name.upper())
    if model is None:
        raise ConfigError(f"consistency: no model is called {name!r}; expected one of {', '.join(_MODELS)}")
    return model(bound) if fields(model) else model()  # type: ignore[no-any-return]


def terms_of(model: Consistency, checkpoint_every: int, staleness: Iterable[float] = (), copies: bool = True) -> Terms:
    """Return what the protocol must know of `model`.

    Parameters
    ----------
    model : BSP, SSP, ESSP, ASP or VAP
    checkpoint_every : int
        Clocks between two checkpoints, 0 for none.
    staleness : iterable of float
        Bounds of tables that have their own; the tightest counts.
    copies : bool
        Whether there are ``cached`` tables: only their copies are refreshed in order.
    """
    return Terms(
        staleness=min([model.staleness, *staleness]),
        eager=model.eager,
        ordered=model.ordered and copies,
        v0=model.v0 if isinstance(model, VAP) else None,
        checkpoint_every=checkpoint_every,
    )


def check_consistency(model: object, owner: str) -> None:
    """Raise `ConfigError`, which names `owner`, if `model` is not a consistency model."""
    if isinstance(model, type) and issubclass(model, Consistency):
        raise ConfigError(
            f"{owner}: consistency is the class {model.__name__}; expected an object: {model.__name__}(...)"
        )
    if not isinstance(model, Consistency):
        raise ConfigError(f"{owner}: consistency is {model!r}; expected BSP(), SSP(s), ESSP(s), ASP() or VAP(v0)")
