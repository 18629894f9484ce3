"""The probe row (Ho et al., section 2): what a read at clock c under staleness s must hold, in every mode and model."""

from __future__ import annotations

import math

import pytest

import nbps
from support import tasks

STALENESS = [0, 1, 3, math.inf]
MODELS = [nbps.BSP(), nbps.ASP(), nbps.VAP(20), *[nbps.SSP(s) for s in STALENESS], *[nbps.ESSP(s) for s in STALENESS]]
CLOCKS = 15
SLEEP_S = 0.004


def tables(workers: int, names: list[str]) -> list[nbps.Table]:
    """One probe table of each access mode in `names`; the row has a column for each worker."""
    rows = {"direct": 1, "cached": 1, "exclusive": workers}
    return [nbps.Table(name, rows[name], workers, dtype="int64", access=name) for name in names]


def modes(model):
    """Access modes that the probe can use under `model`: BSP refuses live rows that all write."""
    return ["cached"] if model == nbps.BSP() else ["direct", "cached", "exclusive"]


def probe(model, workers, names, **options):
    with nbps.Job(tables(workers, names), workers=workers, consistency=model) as job:
        reads = job.run(tasks.probe, CLOCKS, names, SLEEP_S, **options)
        for name in names:
            assert job.table(name).to_numpy().sum(axis=0).tolist() == [CLOCKS] * workers
    return [broken for rank, seen in enumerate(reads) for broken in tasks.violations(seen, rank, model.staleness)]


@pytest.mark.parametrize(("model", "workers"), [*[(model, 4) for model in MODELS], (nbps.SSP(1), 1), (nbps.ESSP(3), 2)])
def test_every_read_holds_what_its_staleness_promises(model, workers):
    """No update older than s clocks is missing, own updates are all there, nothing seen goes away: in all modes."""
    assert probe(model, workers, modes(model)) == []


@pytest.mark.parametrize(
    ("model", "name"),
    [(nbps.SSP(1), "direct"), (nbps.SSP(1), "cached"), (nbps.ESSP(1), "exclusive"), (nbps.BSP(), "exclusive")],
)
def test_each_access_mode_alone_holds_it_too(model, name):
    """A job with tables of one access mode only takes other paths, under the same promise."""
    assert probe(model, 2, [name]) == []


@pytest.mark.parametrize("model", [nbps.BSP(), nbps.SSP(1), nbps.ESSP(2), nbps.VAP(5)], ids=str)
def test_a_clock_that_does_not_wait_leaves_the_wait_to_the_next_read(model):
    """With clock(wait=False) every read holds the same promise."""
    assert probe(model, 3, modes(model), wait=False) == []


@pytest.mark.parametrize("names", [["direct"], ["cached"]], ids=lambda names: names[0])
def test_the_probe_notices_a_staleness_that_is_off_by_one(names):
    """A worker that planted waits for one clock less breaks the promise, and the probe says so."""
    assert any("misses updates" in broken for broken in probe(nbps.SSP(1), 3, names, shift=1))


def test_bsp_shows_exactly_what_was_committed_before():
    """In a cached table under BSP every read at clock c holds c updates of every other worker: no more, no fewer."""
    with nbps.Job(tables(3, ["cached"]), workers=3, consistency=nbps.BSP()) as job:
        for rank, seen in enumerate(job.run(tasks.probe, CLOCKS, ["cached"], SLEEP_S)):
            for _, clock, before, after in seen:
                others = [int(n) for k, n in enumerate(before) if k != rank]
                assert others == [clock, clock]
                assert after.tolist() == [int(n) + (k == rank) for k, n in enumerate(before)]


def test_bsp_holds_from_the_first_clock_of_every_run():
    """A worker that begins late sees nothing of the clock that others have already sent."""
    with nbps.Job([nbps.Table("t", 1, 1, dtype="int64", access="cached")], workers=3, consistency=nbps.BSP()) as job:
        for run in range(4):
            assert job.run(tasks.first_rows, 2) == [[6 * run]] * 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bsp_is_bit_identical(dtype):
    """Two jobs with one number of workers read the same bits in every clock, and end with the same table."""
    results = []
    for _ in range(2):
        table = nbps.Table("items", 11, 5, dtype=dtype, access="cached", init=nbps.init.normal())
        with nbps.Job([table], workers=3, consistency=nbps.BSP(), seed=4) as job:
            reads = job.run(tasks.float_training, 20)
            again = job.run(tasks.float_training, 20)
            results.append((reads, again, job.table("items").to_numpy().tobytes()))
            # In every clock of a run all workers have read the same bits.
            assert reads[0] == reads[1] == reads[2]
            assert again[0] == again[1] == again[2] != reads[0]
    assert results[0] == results[1]


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("staleness", [0, 2])
def test_no_worker_leads_by_more_than_staleness_plus_one(staleness, wait):
    """Also workers that never read keep max - min <= s + 1, and no lead is left where clock() waits for s."""
    with nbps.Job([], workers=3, consistency=nbps.SSP(staleness)) as job:
        leads = job.run(tasks.drift, 30, 0.003, wait)
    assert max(leads) <= staleness + (not wait)


def fresh(worker, clocks):
    table, seen = worker.table("t"), []
    for clock in range(clocks):
        seen.append((clock, table.get(0, staleness=0)))
        table.inc(0, [k == worker.rank for k in range(worker.size)])
        worker.clock()
    return seen


@pytest.mark.parametrize("access", ["direct", "cached"])
def test_one_read_can_be_fresher_than_its_table(access):
    """get(ids, staleness=0) holds every update of earlier clocks under SSP(5)."""
    table = nbps.Table("t", 1, 2, dtype="int64", access=access)
    with nbps.Job([table], workers=2, consistency=nbps.SSP(5)) as job:
        for seen in job.run(fresh, 20):
            assert all((row >= clock).all() for clock, row in seen)


@pytest.mark.parametrize("model", [nbps.SSP(4), nbps.VAP(50)], ids=str)
def test_a_table_may_be_fresher_than_its_job(model):
    """A table with staleness 0 holds it where the model is looser."""
    strict = nbps.Table("cached", 1, 3, dtype="int64", access="cached", staleness=0)
    with nbps.Job([strict], workers=3, consistency=model) as job:
        reads = job.run(tasks.probe, CLOCKS, ["cached"], SLEEP_S)
    assert [broken for rank, seen in enumerate(reads) for broken in tasks.violations(seen, rank, 0)] == []


def lazy_reads(worker, clocks):
    return [(worker.clock(), worker.table("lazy").get(0)[0])[1] for _ in range(clocks)]


def test_a_lazy_copy_is_refreshed_only_when_it_is_too_old():
    """Under SSP(3) a copy keeps its old rows until they would be more than three clocks old."""

    def train(worker):
        seen = []
        for _ in range(9):
            seen.append(int(worker.table("t").get(0)[0]))
            if worker.rank == 0:
                worker.table("t").inc(0, 1)
            worker.clock()
            worker.barrier()
        return seen

    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
    with nbps.Job([table], workers=2, consistency=nbps.SSP(3)) as job:
        own, other = job.run(train)
    assert own == list(range(9))
    assert len(set(other)) <= 3
    assert all(row >= clock - 3 for clock, row in enumerate(other))


def test_nobody_passes_a_barrier_before_all_have_come():
    """What every worker added before a barrier is in a direct table after it."""

    def meet(worker):
        for meeting in range(1, 20):
            worker.table("t").inc(0, 1)
            worker.barrier()
            seen = int(worker.table("t").get(0)[0])
            worker.barrier()
            assert seen == meeting * worker.size

    with nbps.Job([nbps.Table("t", 1, 1, dtype="int64")], workers=4, consistency=nbps.ASP()) as job:
        job.run(meet)
