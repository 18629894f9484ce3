"""LIBMF (C++, Chin et al. 2015): its program ``mf-train``, run as a process.

Not part of this project: it is found on PATH or given. LIBMF prints errors for each epoch but no times. A build of it
that puts ``T <training seconds so far> <seconds of this epoch>`` before each line is read exactly. Any other is timed
by when its lines arrive, in a second run without a test set; that still contains its evaluation of the objective, so it
is an upper bound.

It is built for SSE, for AVX or for neither (its Makefile's DFLAG), which the program does not tell: with AVX an epoch
takes 0.6 of the time. Tables say what ``--libmf-build`` says.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from nbps.data import Ratings
from peers import Epoch, epochs_from

_WIDE = 64  # from this rank on the smaller step ends better
_LINE = re.compile(r"(?:T\s+(?P<total>\S+)\s+(?P<own>\S+)\s+)?(?P<epoch>\d+)\s+(?P<numbers>[-+.\deE\s]+)$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which LIBMF is meant."""
    parser.add_argument("--libmf", metavar="PATH", help="LIBMF's mf-train, if it is not on PATH")
    parser.add_argument("--libmf-build", metavar="NAME", help="what it was built for, say AVX: stands in the tables")


class Libmf:
    """A peer, as the command line's `arguments` say."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.program = shutil.which(arguments.libmf or "mf-train")
        self.build = arguments.libmf_build
        self.timing = ""

    def told(self, rank: int) -> str:
        """Return build and options for tables."""
        return f"{self.build or 'unknown'} build, {' '.join(options(rank))}"

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        return None if self.program else "mf-train not found (--libmf PATH)"

    def train(self, train: Ratings, test: Ratings | None, rank: int, epochs: int, workers: int) -> list[Epoch]:
        """Fit with `workers` threads."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write(train, folder / "train")
            flags: list[str] = []
            if test is not None:
                _write(test, folder / "test")
                flags = ["-p", str(folder / "test")]
            size = ["-k", str(rank), "-t", str(epochs), "-s", str(workers)]
            files = [str(folder / "train"), str(folder / "model")]
            lines = self._run([*options(rank), *size, *flags, *files])
            seconds = [own for own, _, _ in lines]
            errors = [numbers[1] if test is not None else None for _, _, numbers in lines]
            self.timing = "its own timing"
            if any(second is None for second in seconds):
                self.timing = "arrival of its lines: an upper bound"
                lines = self._run([*options(rank), *size, *files])
                arrivals = [arrival for _, arrival, _ in lines]
                # Nothing marks the start of the first epoch: it is taken to last as long as the second.
                steps = [after - before for before, after in itertools.pairwise(arrivals)]
                seconds = [steps[0] if steps else arrivals[0], *steps]
        return epochs_from([float(s or 0) for s in seconds], errors, len(train))

    def _run(self, arguments: list[str]) -> list[tuple[float | None, float, list[float]]]:
        """Return for each epoch: own seconds if printed, time of arrival, numbers after the epoch's."""
        assert self.program is not None
        lines = []
        start = time.perf_counter()
        with subprocess.Popen([self.program, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                arrival = time.perf_counter() - start
                match = _LINE.match(text.strip())
                if match:
                    own = float(match["own"]) if match["own"] else None
                    lines.append((own, arrival, [float(number) for number in match["numbers"].split()]))
        if process.returncode or not lines:
            raise RuntimeError(f"{self.program} ended with exit code {process.returncode} after {len(lines)} epochs")
        return lines


def options(rank: int) -> list[str]:
    """Return what gives the best test error on ml-1m, as far as was tried."""
    return ["-l2", "0.05", "-r", "0.05" if rank >= _WIDE else "0.1"]


def _write(ratings: Ratings, path: Path) -> None:
    columns = pa.table({"u": ratings.users, "i": ratings.items, "r": ratings.values})
    csv.write_csv(columns, path, csv.WriteOptions(include_header=False, delimiter=" "))
