"""What a job is told: each setting stands here once, is checked here, and gets its default here."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

from nbps.checks import real, whole
from nbps.consistency import BSP, ESSP, VAP, Consistency, check_consistency
from nbps.core.rules import NODES_LIMIT
from nbps.errors import ConfigError
from nbps.job.checkpoints import Checkpoints
from nbps.kernels.layout import WORKERS_LIMIT
from nbps.nodes.nodes import Nodes
from nbps.runtime.cores import own_cores
from nbps.tables.definition import Table, checked_tables

P = ParamSpec("P")
S = TypeVar("S")
Policy = Literal["fail", "continue", "wait"]
_LONGEST_S = 1e9  # thirty years; more than the waits of the system take


@dataclass(frozen=True)
class JobSettings:
    """What a job is told; `nbps.Job` takes the same arguments, and says what each of them means.

    Raises
    ------
    ConfigError
        If one of them cannot be used, or two of them not together.
    """

    # `| Any`, because None is taken there, but never found: it stands for a default that is looked up.
    tables: Sequence[Table]
    workers: int | Any = None
    _: KW_ONLY
    consistency: Consistency | Any = None
    seed: int = 0
    clock_timeout_s: float = 600.0
    preload: Callable[[], object] | None = None
    record_staleness: bool = True
    nodes: Nodes | Any = None
    failure_timeout_s: float = 30.0
    start_timeout_s: float = 60.0
    checkpoints: Checkpoints | None = None
    on_failure: Policy = "fail"
    bandwidth_budget: float | None = None

    def __post_init__(self) -> None:
        nodes = Nodes.from_environment() if self.nodes is None else self.nodes
        if not isinstance(nodes, Nodes):
            raise ConfigError(f"Job: nodes is {nodes!r}; expected nbps.Nodes(count, rank, ...)")
        checked = {
            "tables": checked_tables(self.tables),
            "nodes": nodes,
            "workers": whole(
                "Job: workers", default_workers(nodes) if self.workers is None else self.workers, 1, WORKERS_LIMIT
            ),
            "consistency": ESSP() if self.consistency is None else self.consistency,
            "seed": whole("Job: seed", self.seed, 0),
            **{name: _seconds(name, getattr(self, name)) for name in _SECONDS},
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_consistency(self.consistency, "Job")
        self._check_each()
        if nodes.count > 1:
            self._check_nodes()
        self._check_model()

    def _check_each(self) -> None:
        if self.preload is not None and not callable(self.preload):
            raise ConfigError(f"Job: preload is {self.preload!r}; expected a function without arguments, or None")
        if not isinstance(self.record_staleness, bool):
            raise ConfigError(f"Job: record_staleness is {self.record_staleness!r}; expected True or False")
        if not isinstance(self.checkpoints, Checkpoints | None):
            raise ConfigError(f"Job: checkpoints is {self.checkpoints!r}; expected nbps.Checkpoints(path, every=...)")
        if self.on_failure not in get_args(Policy):
            raise ConfigError(f"Job: on_failure is {self.on_failure!r}; expected one of {', '.join(get_args(Policy))}")
        if self.bandwidth_budget is not None:
            real("Job: bandwidth_budget", self.bandwidth_budget, "bytes a second > 0, or None", positive=True)

    def _check_model(self) -> None:
        """Check that the tables can be what the consistency model promises."""
        live = [table.name for table in self.tables if table.access == "direct"]
        if isinstance(self.consistency, BSP) and live:
            raise ConfigError(
                f"Job: BSP() with table {live[0]!r}, access 'direct': direct rows show updates of the running clock, "
                f"so runs would not be reproducible; expected access='cached', or 'exclusive' where each row has one "
                f"writer in a clock, or SSP(0) for the bound alone"
            )
        bounds_nothing = self.tables and all(table.access != "cached" for table in self.tables)
        if isinstance(self.consistency, VAP) and bounds_nothing:
            table = self.tables[0]
            raise ConfigError(
                f"Job: {self.consistency} with table {table.name!r}, access {table.access!r}, and none that is cached: "
                f"additions to live rows are seen at once, or a moment later where another worker adds to the same "
                f"row (at a clock or barrier at the latest), so there is nothing to bound; expected access='cached', "
                f"or ASP(), which has no bound"
            )

    def _check_nodes(self) -> None:
        """Check what only several nodes cannot be."""
        count = self.nodes.count
        if count > NODES_LIMIT:
            raise ConfigError(f"Job: {count} nodes; expected at most {NODES_LIMIT}")
        for table in self.tables:
            if not isinstance(table.sharding, str) and len(table.sharding) != count - 1:
                raise ConfigError(
                    f"table {table.name!r}: sharding gives the first rows of {len(table.sharding)} nodes; expected "
                    f"{count - 1}, one for each node after node 0"
                )
            if isinstance(self.consistency, VAP) and table.access != "cached":
                raise ConfigError(
                    f"Job: {self.consistency} with table {table.name!r}, access {table.access!r}, on {count} nodes: "
                    f"additions to live rows are not counted as in transit, but other nodes see them later; expected "
                    f"access='cached'"
                )


_SECONDS = [name for name in JobSettings.__dataclass_fields__ if name.endswith("_s")]


def taking(settings: Callable[P, S]) -> Callable[[Callable[[Any, S], None]], Callable[Concatenate[Any, P], None]]:
    """Have a constructor take the arguments of the class `settings`, and be given the object made of them.

    Raises
    ------
    TypeError
        Where it is called with others: says which there are.
    """
    signature = inspect.signature(settings)
    first = [name for name, each in signature.parameters.items() if each.kind is not each.KEYWORD_ONLY]
    named = [name for name in signature.parameters if name not in first]

    def decorate(init: Callable[[Any, S], None]) -> Callable[Concatenate[Any, P], None]:
        @functools.wraps(init)
        def construct(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(
                    f"{type(self).__name__}: {error}; expected {', '.join(first)}, and by name: {', '.join(named)}"
                ) from None
            init(self, settings(*args, **kwargs))

        receiver = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        shown = signature.replace(parameters=[receiver, *signature.parameters.values()])
        construct.__signature__ = shown  # type: ignore[attr-defined]  # what help() and editors show
        return construct

    return decorate


def default_workers(nodes: Nodes) -> int:
    """Return how many workers a node has where nobody says: ``NBPS_WORKERS``, else one for each of its cores."""
    given = os.environ.get("NBPS_WORKERS")
    if given is None:
        return min(own_cores(nodes.neighbours), WORKERS_LIMIT)
    return whole("NBPS_WORKERS", int(given) if given.strip().isdecimal() else given, 1, WORKERS_LIMIT)


def _seconds(name: str, value: Any) -> float:
    return float(min(real(f"Job: {name}", value, "seconds > 0", positive=True), _LONGEST_S))
