"""Several nodes: rows shipped between two processes, empty clocks, factorization, bytes by rows that changed, a soak.

Nodes are processes of this machine, connected by loopback TCP or shared memory. Each part writes a JSON of its own,
``nodes_<part>.json``. The soak, five minutes, runs only if asked for: ``--only soak``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Options, options, report
from node_jobs import measure_bytes, measure_clocks, measure_factorization
from node_shipping import measure_rows
from node_soak import measure_soak

_SOAK = "soak"
_PARTS: dict[str, tuple[str, Callable[[Options], Any]]] = {
    "rows": ("Shipping rows of 128 bytes between two processes", measure_rows),
    "clock": ("An empty clock, one worker on each node, ESSP(0)", measure_clocks),
    "bytes": ("Bytes between two nodes", measure_bytes),
    "mf": ("Matrix factorization on two nodes", measure_factorization),
    _SOAK: ("Two nodes for a while", measure_soak),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(_PARTS)} (default: all but {_SOAK})")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the soak (default %(default)s)")
    folder = os.environ.get("NBPS_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=folder and Path(folder, "ml-1m", "ratings_notime.tsv.gz"),
        help="ratings file for the factorization (default: ml-1m in the folder NBPS_DATA, else generated ratings)",
    )


def main() -> None:
    """Run the chosen parts, print, write."""
    given = options(__doc__, repeats=5, add=add_arguments)
    only = given.arguments.only
    parts = only.split(",") if only else [part for part in _PARTS if part != _SOAK]
    if unknown := sorted(set(parts) - set(_PARTS)):
        raise SystemExit(f"--only: unknown {', '.join(unknown)}; known: {', '.join(_PARTS)}")
    for part in parts:
        title, measure = _PARTS[part]
        found = measure(given)
        lines, details = found if isinstance(found, tuple) else (found, {})
        report(f"nodes_{part}", title, lines, given, details)


if __name__ == "__main__":
    main()
