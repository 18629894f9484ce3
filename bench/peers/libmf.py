"""LIBMF (C++, Chin et al. 2015): its program ``mf-train``, run as a process.

Not part of this project: it is found on PATH or given. LIBMF prints errors for each epoch but no times. A build of it
that puts ``T <training seconds so far> <seconds of this epoch>`` before each line is read exactly. Any other is timed
by when its lines arrive, in a second run without a test set; that still contains its evaluation of the objective, so it
is an upper bound.
"""

from __future__ import annotations

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

OPTIONS = ("-l2", "0.05", "-r", "0.1")
_LINE = re.compile(r"(?:T\s+(?P<total>\S+)\s+(?P<own>\S+)\s+)?(?P<epoch>\d+)\s+(?P<numbers>[-+.\deE\s]+)$")


def find(given: str | None) -> str | None:
    """Return the path of ``mf-train``, given or on PATH, or None."""
    return shutil.which(given or "mf-train")


class Libmf:
    """A peer: `program` is a path of ``mf-train``."""

    def __init__(self, program: str | None) -> None:
        self.program = program
        self.timing = ""

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
            lines = self._run([*OPTIONS, *size, *flags, *files])
            seconds = [own for own, _, _ in lines]
            errors = [numbers[1] if test is not None else None for _, _, numbers in lines]
            self.timing = "its own timing"
            if any(second is None for second in seconds):
                self.timing = "arrival of its lines: an upper bound"
                lines = self._run([*OPTIONS, *size, *files])
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


def _write(ratings: Ratings, path: Path) -> None:
    columns = pa.table({"u": ratings.users, "i": ratings.items, "r": ratings.values})
    csv.write_csv(columns, path, csv.WriteOptions(include_header=False, delimiter=" "))
