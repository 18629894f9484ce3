"""nbps: a stale-synchronous-parallel parameter server in shared memory.

A `Job` owns parameter `Table` objects and worker processes that read and add to them at compiled speed, while the clock
protocol bounds how stale a read can be (`BSP`, `SSP`, `ESSP`, `ASP`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout nbps.kernels and nbps.transport lie beside this folder. Python started there finds this folder before an
# installed nbps, and would find them nowhere.
_checkout = Path(__file__).parents[1]
if not (Path(__file__).parent / "kernels").exists() and (_checkout / "kernels" / "layout.py").exists():
    __path__.append(str(_checkout))

from nbps import errors, init
from nbps.consistency import ASP, BSP, ESSP, SSP
from nbps.errors import Error
from nbps.job import Job, JobTable
from nbps.report import Report
from nbps.table import Table

if TYPE_CHECKING:
    from nbps.worker import Worker
    from nbps.worker_table import WorkerTable

__all__ = [
    "ASP",
    "BSP",
    "ESSP",
    "SSP",
    "Error",
    "Job",
    "JobTable",
    "Report",
    "Table",
    "Worker",
    "WorkerTable",
    "errors",
    "init",
]


def __getattr__(name: str) -> Any:
    # Workers need Numba; who only defines a job does not, and its import takes half a second.
    if name == "Worker":
        from nbps.worker import Worker

        return Worker
    if name == "WorkerTable":
        from nbps.worker_table import WorkerTable

        return WorkerTable
    if name in ("data", "kernels", "models"):
        return importlib.import_module(f"nbps.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("nbps")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
