"""The consistency contract as a test class: subclass it, say how your system runs a program, and pytest does the rest.

For instance, for workers that are threads of one process (``Table`` objects say what tables are wanted)::

    from nbps.testing.consistency.contract import ConsistencyContract


    class TestMyServer(ConsistencyContract):
        def run(self, program, workers, model, tables):
            server = MyServer(tables, workers, staleness=model.staleness)
            with ThreadPoolExecutor(workers) as pool:
                results = list(pool.map(program, server.workers))
            return results, {table.name: server.values(table.name) for table in tables}

The class attributes are what you may change. Needs pytest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

import nbps
from nbps.testing.consistency.history import Read, check
from nbps.testing.consistency.probe import UNITS, Array, Plan, Program, probe_tables, run_probe

_MODELS: list[Any] = [
    nbps.BSP(),
    *[nbps.SSP(staleness) for staleness in (0, 1, 3)],
    nbps.ESSP(2),
    nbps.ASP(),
    nbps.VAP(40.0 * UNITS["int64"][0]),
]


class ConsistencyContract:
    """What a system with the worker API of nbps promises, whatever it runs on.

    Attributes
    ----------
    workers : int
    access : tuple of str
        Access modes that the system has.
    dtypes : tuple of str
        Element types that it has.
    left_out : tuple of str
        Consistency models that the system does not have.
    plan : Plan
        How long and with which pauses the probe runs.
    """

    workers: ClassVar[int] = 3
    access: ClassVar[Sequence[str]] = ("direct", "exclusive", "cached")
    dtypes: ClassVar[Sequence[str]] = tuple(UNITS)
    left_out: ClassVar[Sequence[str]] = ()
    plan: ClassVar[Plan] = Plan(clocks=15, sleep_s=0.004)

    def run(
        self, program: Program, workers: int, model: Any, tables: Sequence[nbps.Table]
    ) -> tuple[list[Any], Mapping[str, Array]]:
        """Call ``program(worker)`` in each of `workers` workers under `model`.

        Tables start at 0. Returns what the calls returned, in rank order, and after the end of all the values of each
        table, shape (rows, width), by its name.
        """
        raise NotImplementedError

    @pytest.mark.parametrize("model", _MODELS, ids=str)
    def test_every_read_and_the_end_keep_the_promises(self, model: Any) -> None:
        """P1 to P5, the drift of workers and under VAP the value bound, with all access modes in one job."""
        if type(model).__name__ in self.left_out:
            pytest.skip(f"the system has no {type(model).__name__}")
        # Strict BSP shows nothing of the running clock, which rows that are added to directly do.
        access = [mode for mode in self.access if mode == "cached" or not isinstance(model, nbps.BSP)]
        self._probe(model, probe_tables(self.workers, access=access))

    @pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
    def test_other_element_types_keep_them_too(self, dtype: str) -> None:
        """Elements of 4 bytes and floats are neither torn nor lost."""
        if dtype not in self.dtypes:
            pytest.skip(f"the system has no {dtype}")
        self._probe(nbps.SSP(1), probe_tables(self.workers, access=self.access, dtype=dtype))

    def test_one_worker_alone_keeps_them(self) -> None:
        """With one worker nobody is waited for."""
        self._probe(nbps.SSP(0), probe_tables(1, access=self.access), workers=1)

    def test_a_table_may_be_fresher_than_its_job(self) -> None:
        """A table with a staleness of its own, where the job has no bound that matters."""
        access = [mode for mode in self.access if mode == "cached"]
        if not access:
            pytest.skip("the system has no cached tables")
        self._probe(nbps.SSP(5), probe_tables(self.workers, access=access, staleness=0))

    def _probe(self, model: Any, tables: Sequence[nbps.Table], workers: int | None = None) -> None:
        history = run_probe(self.run, workers or self.workers, model, tables, self.plan)
        reads = sum(isinstance(entry, Read) for entry in history.entries)
        violations = check(history)
        shown = "\n".join(f"{found.property}: {found.message}" for found in violations[:10])
        assert not violations, f"{len(violations)} violations in {reads} reads under {model}:\n{shown}"
        assert reads > 0
