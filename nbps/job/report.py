"""What a job measured: clocks, compute and wait time, and the staleness that reads really had."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.spec import Traffic
from nbps.errors import NotRecordedError
from nbps.kernels import layout


@dataclass(frozen=True)
class ClockDifferential:
    """Histogram of the clock differential, visible clock minus the reader's clock at each read (Dai et al., section 3).

    The visible clock v of a read is the highest for which the reader sees all updates of every worker from clocks < v;
    so -s <= differential <= 0 under staleness s, and 0 means that nothing committed was missed. Every ``get`` is a
    sample; a clock without any ``get`` (reads inside kernels) gives one, taken where it began.

    Attributes
    ----------
    counts : dict of int to int
        Reads for each differential; the lowest key also counts everything below.
    mean, variance : float
        Over all samples, exact; NaN without samples.
    """

    counts: dict[int, int]
    samples: int
    mean: float
    variance: float

    @staticmethod
    def from_counters(counters: npt.NDArray[np.int64]) -> ClockDifferential:
        """From the counters of a worker, or the sum of those of several."""
        bins = counters[layout.HISTOGRAM : layout.HISTOGRAM + layout.HISTOGRAM_BINS]
        samples = int(counters[layout.READS])
        mean = int(counters[layout.DIFFERENTIAL_SUM]) / samples if samples else float("nan")
        square = int(counters[layout.DIFFERENTIAL_SQUARES]) / samples if samples else float("nan")
        counts = {-int(d): int(bins[d]) for d in np.flatnonzero(bins)}
        return ClockDifferential(counts, samples, mean, square - mean * mean)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; no samples give None."""
        known = self.samples > 0
        return {
            "counts": {str(d): n for d, n in sorted(self.counts.items())},
            "samples": self.samples,
            "mean": self.mean if known else None,
            "variance": self.variance if known else None,
        }


@dataclass(frozen=True)
class WorkerReport:
    """One worker's figures, over all runs of the job.

    `wait_seconds` is time at gates and barriers; the rest is compute. `transit_share` is, under `VAP`, the largest
    share of the bound v0 / sqrt(t) that was in transit when the worker was let on, 0 to 1; None under other models.
    """

    rank: int
    clocks: int
    compute_seconds: float
    wait_seconds: float
    rows_sent: int
    transit_share: float | None
    _differential: ClockDifferential | None

    @property
    def clock_differential(self) -> ClockDifferential:
        """Staleness of this worker's reads.

        Raises
        ------
        NotRecordedError
            If the job did not record it.
        """
        return _recorded(self._differential)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what was not recorded is None."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**plain, "clock_differential": self._differential and self._differential.to_dict()}


@dataclass(frozen=True, repr=False)
class Report:
    """What `Job.report` returns; ``str(report)`` is a table.

    Attributes
    ----------
    consistency : str
    workers : tuple of WorkerReport
        Those of this node.
    traffic : Traffic or None
        With several nodes: bytes and rows that this node had sent and received when its last run ended.
    """

    consistency: str
    workers: tuple[WorkerReport, ...]
    _differential: ClockDifferential | None
    traffic: Traffic | None = None

    @staticmethod
    def from_counters(
        consistency: str,
        counters: Iterable[npt.NDArray[np.int64]],
        bounded: bool,
        recorded: bool,
        traffic: Traffic | None,
        first: int,
    ) -> Report:
        """From the counters of each worker of a node, whose first one has rank `first`.

        `bounded` is whether there was a value bound, `recorded` whether reads were counted.
        """
        each = list(counters)
        workers = tuple(
            WorkerReport(
                rank=first + rank,
                clocks=int(words[layout.CLOCKS]),
                compute_seconds=int(words[layout.COMPUTE_NS]) / 1e9,
                wait_seconds=int(words[layout.WAIT_NS]) / 1e9,
                rows_sent=int(words[layout.ROWS_SENT]),
                transit_share=float(words.view(np.float64)[layout.TRANSIT_SHARE]) if bounded else None,
                _differential=ClockDifferential.from_counters(words) if recorded else None,
            )
            for rank, words in enumerate(each)
        )
        total = ClockDifferential.from_counters(np.sum(each, axis=0)) if recorded else None
        return Report(consistency, workers, total, traffic)

    @property
    def clock_differential(self) -> ClockDifferential:
        """Staleness of all workers' reads.

        Raises
        ------
        NotRecordedError
            If the job did not record it.
        """
        return _recorded(self._differential)

    @property
    def wait_seconds(self) -> float:
        """Time that all workers together spent waiting."""
        return sum(worker.wait_seconds for worker in self.workers)

    @property
    def wait_share(self) -> float:
        """Share of all workers' time spent waiting, 0 to 1."""
        wait = self.wait_seconds
        total = wait + sum(worker.compute_seconds for worker in self.workers)
        return wait / total if total else 0.0

    @property
    def transit_share(self) -> float | None:
        """Largest share of the value bound in transit when a worker was let on, 0 to 1; None unless under `VAP`."""
        shares = [worker.transit_share for worker in self.workers if worker.transit_share is not None]
        return max(shares, default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "consistency": self.consistency,
            "transit_share": self.transit_share,
            "wait_share": self.wait_share,
            "traffic": self.traffic and self.traffic._asdict(),
            "clock_differential": self._differential and self._differential.to_dict(),
            "workers": [worker.to_dict() for worker in self.workers],
        }

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.consistency, *lines, *self._notes()])

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        heading, *rows = self._cells()
        head = "".join(f"<th>{cell}</th>" for cell in heading)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"<p>{html.escape(self.consistency)}</p><table><tr>{head}</tr>{body}</table>{notes}"

    def _cells(self) -> list[list[str]]:
        """Return headings, and what stands below them for each worker."""
        heading = ["worker", "clocks", "compute s", "wait s", "differential mean", "variance"]
        cells = [heading + ["in transit"] * (self.transit_share is not None)]
        for worker in self.workers:
            seen = worker._differential
            row = [str(worker.rank), str(worker.clocks), f"{worker.compute_seconds:.3f}", f"{worker.wait_seconds:.3f}"]
            row += ["-", "-"] if seen is None else [f"{seen.mean:.2f}", f"{seen.variance:.2f}"]
            cells.append(row + ([] if worker.transit_share is None else [f"{worker.transit_share:.2f}"]))
        return cells

    def _notes(self) -> list[str]:
        if self.traffic is None:
            return []
        sent, received, rows_sent, rows_received = self.traffic
        return [
            f"other nodes: sent {sent / 1e6:,.2f} MB, {rows_sent:,} rows; "
            f"received {received / 1e6:,.2f} MB, {rows_received:,} rows"
        ]


def _recorded(differential: ClockDifferential | None) -> ClockDifferential:
    if differential is None:
        raise NotRecordedError(
            "clock_differential: the job did not record the staleness of its reads; make it without "
            "record_staleness=False"
        )
    return differential
