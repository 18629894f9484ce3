"""nbps: a stale-synchronous-parallel parameter server in shared memory.

A `Job` owns parameter `Table` objects and worker processes that read and add to them at compiled speed, while the clock
protocol bounds how stale a read can be (`BSP`, `SSP`, `ESSP`, `ASP`), or the value bound
`VAP` how much of others' updates it misses.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout nbps.kernels and nbps.transport lie beside this folder. Python started there finds this folder before an
# installed nbps, and would find them nowhere.
for _name in ("kernels", "transport"):
    _folder = Path(__file__).parents[1] / _name
    if not (Path(__file__).parent / _name).exists() and (_folder / "__init__.py").exists():
        _spec = importlib.util.spec_from_file_location(
            f"nbps.{_name}", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_spec.name])

if TYPE_CHECKING:
    from nbps import errors
    from nbps.consistency import ASP, BSP, ESSP, SSP, VAP
    from nbps.errors import Error
    from nbps.job.checkpoints import Checkpoints
    from nbps.job.job import Job
    from nbps.job.report import Report
    from nbps.job.tuning import auto_staleness
    from nbps.job.worker import Worker
    from nbps.nodes.nodes import Nodes
    from nbps.tables import init
    from nbps.tables.definition import Table
    from nbps.tables.driver import JobTable
    from nbps.tables.worker import WorkerTable

__all__ = [
    "ASP",
    "BSP",
    "ESSP",
    "SSP",
    "VAP",
    "Checkpoints",
    "Error",
    "Job",
    "JobTable",
    "Nodes",
    "Report",
    "Table",
    "Worker",
    "WorkerTable",
    "auto_staleness",
    "errors",
    "init",
]
_SUBMODULES = ("data", "kernels", "models", "sim", "testing", "transport")
# Where the names above are: nothing is imported before it is used, since a command prints its help sooner than Python
# imports NumPy, and Numba, which only workers need, takes half a second.
_MODULES = {
    **dict.fromkeys(["ASP", "BSP", "ESSP", "SSP", "VAP"], "consistency"),
    "Checkpoints": "job.checkpoints",
    "Error": "errors",
    "Job": "job.job",
    "JobTable": "tables.driver",
    "Nodes": "nodes.nodes",
    "Report": "job.report",
    "Table": "tables.definition",
    "Worker": "job.worker",
    "WorkerTable": "tables.worker",
    "auto_staleness": "job.tuning",
}


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"nbps.{_MODULES[name]}"), name)
    if name == "init":
        return importlib.import_module("nbps.tables.init")
    if name in (*_SUBMODULES, "errors"):
        return importlib.import_module(f"nbps.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("nbps")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
