"""How every benchmark here measures, prints and writes: candidates take turns, medians count, raw samples are kept."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_BUSY = 0.5  # load average from which two workers no longer have two cores
_PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "pyarrow",
    "nbps",
    "torch",
    "ray",
    "celer",
    "scikit-learn",
    "skglm",
    "tomotopy",
)


@dataclass(frozen=True)
class Line:
    """One measured quantity: a line of the table and an entry of the JSON.

    Attributes
    ----------
    name, unit : str
    samples : list of float
        One for each repeat, in the order in which they were taken.
    target : float, optional
        What the project must reach.
    at_least : bool
        Whether the target is a lower bound; else an upper one.
    note : str
    """

    name: str
    unit: str
    samples: list[float]
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON says about it."""
        target = {} if self.target is None else {"target": self.target, "reached": self.reached}
        return {
            "name": self.name,
            "unit": self.unit,
            **summary(self.samples),
            **target,
            "note": self.note,
        }


def summary(samples: list[float]) -> dict[str, Any]:
    """Return median, min, max, number of repeats and the samples themselves."""
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "repeats": len(samples),
        "samples": samples,
    }


def in_turn(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Call the candidates A B C A B C ... and return what each call returned.

    A disturbance of a shared machine hits all candidates alike that way, not the one that happened to run. A candidate
    that must warm up does so before.
    """
    results: dict[str, list[Any]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            results[name].append(candidate())
    return results


@dataclass
class Options:
    """The command line that all benchmarks share."""

    smoke: bool
    repeats: int
    out: Path
    arguments: argparse.Namespace = field(repr=False)
    load: float = field(default_factory=lambda: os.getloadavg()[0])  # processes that ran before this one began

    def size(self, full: int, smoke: int) -> int:
        """Return `full`, or `smoke` in a smoke run."""
        return smoke if self.smoke else full


def options(
    description: str | None, repeats: int, add: Callable[[argparse.ArgumentParser], object] | None = None
) -> Options:
    """Read the command line; `add` adds a benchmark's own options to the parser."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repeat: does it still run?")
    parser.add_argument("--repeats", type=int, default=repeats, help="turns of each candidate (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON (default: bench/results, a temporary one with --smoke)"
    )
    if add is not None:
        add(parser)
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error(f"--repeats is {given.repeats}; expected at least 1")
    # A smoke run says nothing about speed and must not replace a result.
    out = given.out or (Path(tempfile.mkdtemp(prefix="bench-smoke-")) if given.smoke else RESULTS)
    return Options(given.smoke, 1 if given.smoke else given.repeats, out, given)


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu_model() -> str:
    fields = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    family = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{fields.get('model name', platform.processor())} ({family})"


def report(name: str, title: str, lines: list[Line], given: Options, details: Mapping[str, Any] | None = None) -> None:
    """Print a table of `lines` and write ``<name>.json``; `details` goes into the JSON only."""
    table = Table(title=title)
    for heading in ("", "unit", "median", "min", "max", "target", "reached"):
        table.add_column(heading, justify="left" if heading in ("", "unit") else "right")
    for line in lines:
        target = "" if line.target is None else f"{'>=' if line.at_least else '<='} {line.target:g}"
        reached = {None: "", True: "yes", False: "[red]no[/red]"}[line.reached]
        numbers = (line.median, min(line.samples), max(line.samples))
        table.add_row(line.name, line.unit, *map(significant, numbers), target, reached)
    console().print(table)
    for line in lines:
        if line.note:
            console().print(f"{line.name}: {line.note}", highlight=False)
    write(name, {"results": [line.to_dict() for line in lines], **(details or {})}, given)


def write(name: str, content: Mapping[str, Any], given: Options) -> None:
    """Write `content`, with the machine and the command, as ``<name>.json``."""
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{name}.json"
    frame = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [Path(word).name for word in sys.argv],  # no folders of this machine
        "smoke": given.smoke,
        "load_average_at_start": given.load,
        "machine": machine(),
    }
    path.write_text(json.dumps({**frame, **content}, indent=1) + "\n")
    console().print(f"written: {path}", soft_wrap=True)
    if given.load > _BUSY and not given.smoke:
        console().print(f"[red]load average at the start {given.load:.1f}: does something else run here?[/red]")


def significant(value: float) -> str:
    """Format with three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def console() -> Console:
    """Return a console as wide as the terminal, or wide enough for the tables where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=130)
