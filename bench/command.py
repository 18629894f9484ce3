"""Whole commands: from what is typed to the saved model, beside LIBMF on the same ratings, and where the time goes.

Every sample is a fresh process, from its start to its end. Kernels are compiled and files are in the page cache before
the first one. Memory is that of all processes of a command together, shared pages counted once (`Pss`), in a run of its
own, less what they take for a thousand ratings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from measure import Line, Options, console, in_turn, options, report
from peers import libmf
from startup import TARGET_IMPORT_S

from nbps.data import Ratings, generate_ratings, read_ratings

_NBPS = (sys.executable, "-m", "nbps")
_SMALL = 1_000  # ratings of the run whose memory is the processes' own
_SAMPLE_S = 0.02  # peaks last longer: that of workers beside the driver as long as training
_TARGET_S = 1.0  # of a file as small as ml-1m, of which most is start-up: about what LIBMF's 0.73 s feel like
_TARGET_RATIO = 0.35  # of LIBMF's time: training alone takes a seventh of that, reading and start-up the rest
_TARGET_BYTES = 24.0  # a rating twice, 12 bytes with the driver and 8 with a worker, and what the model takes
_TARGETS_S = {"nbps --help": 0.3, "nbps doctor": 0.8, "import nbps": TARGET_IMPORT_S}  # what users do not wait for
_IMPORT = "import time; start = time.perf_counter(); import nbps; print(time.perf_counter() - start)"


@dataclass(frozen=True)
class Sample:
    """One run of a command: its seconds, and of nbps those of its phases."""

    seconds: float
    phases: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--data", type=Path, help="ratings file, for instance ml-1m (default: generated ratings)")
    parser.add_argument("--ratings", type=int, default=10_000_000, help="how many to generate (default %(default)s)")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    libmf.add_arguments(parser)


def write_files(ratings: Ratings, folder: Path, given: Path | None) -> dict[str, Path]:
    """Write the ratings in the formats to compare; return the files by format, LIBMF's last."""
    table = ratings.to_arrow()
    files = {"text": given} if given is not None else {"Parquet": folder / "x.parquet", "CSV": folder / "x.csv"}
    if given is None:
        pyarrow.parquet.write_table(table, files["Parquet"])
        pyarrow.csv.write_csv(table, files["CSV"], pyarrow.csv.WriteOptions(quoting_style="none"))
    codes = pa.table({"user": ratings.users, "item": ratings.items, "rating": ratings.values})
    files["libmf"] = folder / "x.txt"
    pyarrow.csv.write_csv(codes, files["libmf"], pyarrow.csv.WriteOptions(include_header=False, delimiter=" "))
    return files


def train_command(path: Path, folder: Path, given: Options) -> list[str]:
    """Return the command that trains on a file and saves the model."""
    arguments = given.arguments
    sizes = ["--rank", str(arguments.rank), "--epochs", str(arguments.epochs), "--workers", str(arguments.workers)]
    return [*_NBPS, "train", "mf", "--data", str(path), *sizes, "--out", str(folder / "model"), "--profile", "--json"]


def run_nbps(command: list[str]) -> Sample:
    """Run ``nbps train`` once."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Sample(time.perf_counter() - start, json.loads(done.stdout)["profile"])


def run_other(command: list[str]) -> Sample:
    """Run any other program once."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return Sample(time.perf_counter() - start, {})


def import_nbps() -> Sample:
    """Import nbps in a fresh process; the interpreter's own start does not count."""
    return Sample(float(subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True).stdout), {})


def peak_bytes(command: list[str]) -> int:
    """Run a command and return the most memory that its processes had together."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(_pss_bytes(pid) for pid in _family(process.pid)))
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return peak


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from _family(int(child))


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def read(given: Options) -> tuple[Ratings, Path | None]:
    """Return the ratings, and their file where one was given."""
    path = None if given.smoke else given.arguments.data
    if path is not None:
        return read_ratings(path), path
    sizes = given.size(72_000, 300), given.size(10_700, 200), given.size(given.arguments.ratings, 8_000)
    return generate_ratings(*sizes), None


def training_commands(files: dict[str, Path], folder: Path, given: Options) -> dict[str, list[str]]:
    """Return a command for each of the files; LIBMF's where it is there."""
    arguments, own = given.arguments, dict(files)
    text, program = own.pop("libmf"), libmf.Libmf(given.arguments).program
    commands = {f"nbps, {name}": train_command(path, folder, given) for name, path in own.items()}
    if program is not None:
        sizes = ["-k", str(arguments.rank), "-t", str(arguments.epochs), "-s", str(arguments.workers)]
        commands["libmf"] = [program, *libmf.options(arguments.rank), *sizes, str(text), str(folder / "libmf.model")]
    return commands


def measure(given: Options, folder: Path) -> list[Line]:
    """Time all commands in turn, then weigh those that train."""
    ratings, path = read(given)
    count, files = len(ratings), write_files(ratings, folder, path)
    del ratings
    commands = training_commands(files, folder, given)
    candidates: dict[str, Callable[[], Sample]] = {
        name: partial(run_other if name == "libmf" else run_nbps, command) for name, command in commands.items()
    }
    candidates |= {f"nbps {words}": partial(run_other, [*_NBPS, words]) for words in ("--help", "doctor")}
    candidates["import nbps"] = import_nbps
    in_turn(candidates, 1)  # compiles kernels, and brings files into memory
    samples: dict[str, list[Sample]] = in_turn(candidates, given.repeats)
    (folder / "small").mkdir()
    small = write_files(generate_ratings(100, 50, _SMALL), folder / "small", None)["CSV"]
    empty_bytes = peak_bytes(train_command(small, folder, given))
    lines = []
    for name, runs in samples.items():
        is_own = name.startswith("nbps,")
        target = _TARGET_S if is_own and path is not None else _TARGETS_S.get(name)
        note = libmf.Libmf(given.arguments).told(given.arguments.rank) if name == "libmf" else ""
        lines.append(Line(name, "s", [run.seconds for run in runs], target=target, note=note))
        phases = [phase for phase in runs[0].phases if phase != "total"]
        lines += [Line(f"  of it: {phase}", "s", [run.phases[phase] for run in runs]) for phase in phases]
        if is_own and "libmf" in samples:
            ratios = [run.seconds / other.seconds for run, other in zip(runs, samples["libmf"], strict=True)]
            lines.append(Line(f"{name}, of libmf's time", "x", ratios, target=_TARGET_RATIO))
        if name in commands:
            spent = (peak_bytes(commands[name]) - is_own * empty_bytes) / count
            lines.append(Line(f"{name}, peak", "bytes/rating", [spent], target=_TARGET_BYTES if is_own else None))
    if "libmf" not in samples:
        console().print("libmf: mf-train not found on PATH; --libmf PATH names it", highlight=False)
    return lines


def main() -> None:
    """Measure, print, write ``command.json``."""
    given = options(__doc__, repeats=5, add=add_arguments)
    with tempfile.TemporaryDirectory() as name:
        lines = measure(given, Path(name))
    report("command", "Whole commands", lines, given)


if __name__ == "__main__":
    main()
