"""Latent Dirichlet allocation in a job: makes its tables, gives the documents out, and runs the passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.consistency import VAP
from nbps.data import Documents
from nbps.data.memory import check_fits
from nbps.job.ahead import load_ahead
from nbps.kernels.models.lda_layout import needs_wide, padded
from nbps.models.blocks import Partition, Rotation, deal
from nbps.models.lda import worker as lda_worker
from nbps.models.lda.history import PassRecord
from nbps.models.lda.plan import TopicsPlan
from nbps.models.lda.state import Topics
from nbps.models.lda.worker import TopicsInputs
from nbps.models.phases import Phases
from nbps.models.saved import checksum
from nbps.models.trainer import Trainer, Values
from nbps.tables.definition import Table

Ints = npt.NDArray[np.int64]
_PART = 1 << 20  # entries that workers are shown at a time: 8 MiB of shared memory
_ENTRY_BYTES = 8  # of a word and a count
_TOKEN_BYTES = 12  # of a token in a worker: its document, and its topic in the table and in a list
_ROW_TOPICS = 256  # assignments in a row of their table
_WORD_TOPICS = 350  # topics whose q takes as long to compute for a word (45 ns) as sampling one of its tokens


def warm_up(plan: TopicsPlan) -> None:
    """Start what the first training of this process waits for half a second; returns at once."""
    kinds = {
        ("int32", plan.word_access, plan.word_access != "exclusive", False),
        ("int32", "exclusive", False, False),
        ("int64", "cached", True, False),
        ("float64", "exclusive", False, False),
    }
    loads = [(lda_worker.load, (False,))]
    agents = plan.nodes.count if plan.nodes.count > 1 else 0
    load_ahead(kinds, isinstance(plan.model, VAP), agents, loads)


class TopicsTrainer(Trainer[Topics, PassRecord]):
    """A job that samples topics for the tokens of `data`, beside the counts of `before`."""

    record = PassRecord

    def __init__(
        self,
        plan: TopicsPlan,
        before: Topics,
        data: Documents,
        test: Documents | None,
        watched: bool,
        phases: Phases,
    ) -> None:
        self._topics_plan, self._before, self._data = plan, before, data
        self._test = None if test is None else test.halves(plan.seed)
        workers, topics = plan.all_workers, before.count
        width = padded(topics)
        rotation = _rotation(data, workers, plan.blocks_per_worker, topics, plan.seed)
        self._rotation = rotation
        firsts = rotation.users.starts
        tokens = np.concatenate([[0], np.cumsum(data.lengths)])[firsts]
        self._tokens = np.diff(tokens)
        self._assignment_rows = rows = np.concatenate([[0], np.cumsum(-(-self._tokens // _ROW_TOPICS))])
        _check_fits(data, before, width, plan)
        # A worker's assignments are read and changed by it alone: they stay on its node.
        own = [int(first) for first in rows[plan.local_workers : workers : plan.local_workers]]
        count = max(1, int(rows[-1]))
        tables = [
            Table("words", len(data.vocabulary), width, dtype="int32", access=plan.word_access, init=self._fill_words),
            Table("totals", 1, width, dtype="int64", access="cached", init=self._fill_totals),
            Table("prior", 1, width, dtype="float64", access="exclusive", init=self._fill_prior),
            Table(
                "assignments", count, _ROW_TOPICS, dtype="int32", access="exclusive", sharding=own, replicate="run"
            ),
        ]  # fmt: skip
        self._is_wide = needs_wide(topics, int(data.lengths.max()))
        preload = functools.partial(lda_worker.preload, self._is_wide)
        super().__init__(plan, tables, plan.model, preload, watched, phases)

    # ----------------------------------------------------------------------- what tables begin with

    def _fill_words(self, values: npt.NDArray[np.int32], random: np.random.Generator) -> None:
        values[self._rotation.items.place, : self._before.count] = self._before.word_topic

    def _fill_totals(self, values: Ints, random: np.random.Generator) -> None:
        values[0, : self._before.count] = self._before.totals

    def _fill_prior(self, values: npt.NDArray[np.float64], random: np.random.Generator) -> None:
        values[0, : self._before.count] = self._before.prior

    # ----------------------------------------------------------------------- the job

    @property
    def task(self) -> str:
        """Size of the problem."""
        return (
            f"training {self._before.count:,} topics on {self._data.tokens:,} tokens of {len(self._data):,} documents "
            f"with {len(self._data.vocabulary):,} words"
        )

    @property
    def input_bytes(self) -> int:
        """Of what all workers get, and of the documents that they are shown at a time."""
        size = self._rotation.users.place.nbytes + self._rotation.items.place.nbytes
        return size + _ENTRY_BYTES * min(self._data.words.size, 2 * _PART)

    def deal(self) -> None:
        """Have every worker take its documents."""
        inputs = TopicsInputs(
            rotation=self._rotation,
            assignment_rows=self._assignment_rows,
            topics=self._before.count,
            beta=self._before.word_prior,
            is_wide=self._is_wide,
            is_fresh=not self.earlier,
            seed=self._plan.seed,
        )
        # On any node: all nodes then gather after each pass.
        self._watched = self._job.run(lda_worker.set_up, inputs, self._watched)[0]
        for part in _parts(self._data):
            self._job.run(lda_worker.count, *part)
        self._job.run(lda_worker.hold)
        for part in _parts(self._data):
            self._job.run(lda_worker.place, *part)
        if not self.earlier:
            self._job.run(lda_worker.add_all)
        if self._test is not None:
            firsts = even(self._test[0], self._plan.all_workers)
            observed, predicted = ((half.starts, half.words, half.counts) for half in self._test)
            self._job.run(lda_worker.keep_validation, firsts, observed, predicted)

    def train(self, epoch: int, setting: object) -> float:
        """Sample every token once, and learn the prior where that is due; return the perplexity."""
        prior = float(self._prior().sum())
        lengths = self._data.lengths
        # The kernel leaves out what does not depend on topics.
        outside = float(lengths @ np.log(lengths - 1 + prior))
        found = self._job.run(lda_worker.sample, epoch)[0] - outside  # the same of every worker
        if self._topics_plan.is_optimized(epoch):
            self._job.run(lda_worker.learn_prior)
        return math.exp(-found / self._data.tokens)

    def measure(self, found: float, **timing: Any) -> PassRecord:
        """Measure the validation perplexity where that is due."""
        validation = None
        if self._test is not None and self._topics_plan.is_evaluated(timing["epoch"]):
            with self.phases("evaluate"):
                validation = math.exp(-self._job.run(lda_worker.evaluate)[0] / self._test[1].tokens)
        return PassRecord(
            **timing,
            train_perplexity=found,
            validation_perplexity=validation,
            tokens_per_second=self._data.tokens / timing["seconds"],
        )

    def gather(self) -> None:
        """Have every node told of the topics of all tokens; all nodes call this."""
        if self._plan.nodes.count > 1:
            self._job.run(lda_worker.give_assignments)

    def state(self, values: Values | None = None) -> Topics:
        """Return a copy of the counts; topics of other nodes' documents are as of the last pass or as of `finish`."""
        count, places = self._before.count, self._rotation.items.place
        words = np.ascontiguousarray(self.rows(values, "words", places)[:, :count])
        rows = self.rows(values, "assignments", np.arange(self._assignment_rows[-1])).ravel()
        firsts = self._assignment_rows[:-1] * _ROW_TOPICS
        assigned = np.concatenate([rows[a : a + n] for a, n in zip(firsts, self._tokens, strict=True)])
        return Topics.of(
            words, self._prior(values), self._before.word_prior, self._data, assigned, self._document_of_token
        )

    def _prior(self, values: Values | None = None) -> npt.NDArray[np.float64]:
        return np.asarray(self.rows(values, "prior", np.zeros(1, np.int64))[0, : self._before.count])

    @functools.cached_property
    def _document_of_token(self) -> npt.NDArray[np.int32]:
        """Document of each token, worker by worker in the order in which these have them."""
        data, place, found = self._data, self._rotation.items.place, []
        document = data.document_of_entry.astype(np.int32)
        for first, last in zip(self._rotation.users.starts[:-1], self._rotation.users.starts[1:], strict=True):
            own = slice(data.starts[first], data.starts[last])
            order = np.argsort(place[data.words[own]], kind="stable")
            found.append(np.repeat(document[own][order], data.counts[own][order]))
        return np.concatenate(found)

    def digest(self) -> dict[str, Any]:
        """Return counts and checksums of the documents to train on and to test with."""
        test = None if self._test is None else _digest(self._test[1])
        return {"documents": _digest(self._data), "validation": test}


def _rotation(data: Documents, workers: int, per_worker: int, topics: int, seed: int) -> Rotation:
    """Give consecutive documents to the workers, and deal words to blocks, by the time that their tokens take."""
    documents = Partition(np.arange(len(data)), even(data, workers))
    counts = data.word_counts
    costs = counts + np.where(counts > 0, topics // _WORD_TOPICS, 0)
    return Rotation(documents, deal(costs, workers * per_worker, np.random.default_rng(seed)), per_worker)


def even(data: Documents, parts: int) -> Ints:
    """Return the first document of each of so many parts with about as many tokens, and the number of documents."""
    ends = np.cumsum(data.lengths)
    shares = ends[-1] * np.arange(1, parts) / parts if ends.size else np.zeros(parts - 1)
    return np.concatenate([[0], np.searchsorted(ends, shares, side="right"), [len(data)]])


def _parts(data: Documents) -> Iterator[tuple[int, Ints, npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Cut documents into parts to show to the workers: the number of the first, starts, words and counts."""
    first = 0
    while first < len(data):
        last = int(np.searchsorted(data.starts, data.starts[first] + _PART, side="right")) - 1
        last = min(max(last, first + 1), len(data))
        entries = slice(data.starts[first], data.starts[last])
        yield first, data.starts[first : last + 1], data.words[entries], data.counts[entries]
        first = last


def _check_fits(data: Documents, before: Topics, width: int, plan: TopicsPlan) -> None:
    copies = 2 if plan.schedule == "rotate" else 2 + 2 * plan.local_workers  # in the table, and what comes out of it
    check_fits(
        f"training {before.count:,} topics on {data.tokens:,} tokens with {len(data.vocabulary):,} words needs",
        4 * copies * width * len(data.vocabulary) + _TOKEN_BYTES * data.tokens // plan.nodes.count,
    )


def _digest(data: Documents) -> str:
    return f"{len(data):,} with checksum {checksum(data.starts, data.words, data.counts)}"
