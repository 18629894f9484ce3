"""The papers' experiments: a tiny run of all, and what the applications compute, against what is known of it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from nbps.data import Documents

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    """Let the modules in bench/ be found, as they are by what runs there."""
    monkeypatch.syspath_prepend(str(BENCH))


# --------------------------------------------------------------------------- everything, once


@pytest.mark.slow
def test_experiments_of_the_papers_draw_every_figure_and_answer_every_question(tmp_path):
    """All applications run under each model on real processes, factorization on simulated ones too."""
    pytest.importorskip("matplotlib")
    program = [sys.executable, str(BENCH / "papers"), "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"factorization", "lda", "lasso"}
    for folder in tmp_path.iterdir():
        written = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        backends = {"real", "simulated"} if folder.name == "factorization" else {"real"}
        numbers = {name for names in written["papers"]["figures"] for name in names.split(", ")}
        assert {path.stem for path in folder.glob("*.png")} == numbers
        assert numbers >= {"1_objective", "2_shares", "3_quantity_quality", "4_staleness", "6_target"}
        verdicts = written["papers"]["verdicts"]
        assert verdicts.keys() == backends
        assert all(verdict["cases"] for found in verdicts.values() for verdict in found)
        assert all(run["differential"]["counts"] for run in written["runs"]["runs"])
        assert {run["backend"] for run in written["runs"]["runs"]} == backends
        assert {run["model"] for run in written["runs"]["runs"]} >= {"BSP", "SSP", "ESSP", "ASP", "single"}
        if folder.name == "factorization":
            agreement_is_complete(written)


def agreement_is_complete(written):
    """Every real run with copies was simulated again, and compared."""
    compared = {(run["condition"], run["model"]) for run in written["runs"]["runs"] if run["backend"] == "real"}
    grids = written["papers"]["figures"]["7_agreement"]
    again = {(condition, one["model"]) for condition, grid in grids.items() for one in grid.values()}
    assert again == {key for key in compared if key[1] not in ("Hogwild", "single")}


@pytest.mark.parametrize(
    ("applications", "only", "line"),
    [
        ("lda,svm", None, "--applications: unknown svm; known: factorization, lda, lasso"),
        ("lda", "simulated", "--only simulated: the simulator runs factorization, not lda"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib, about what it imports
def test_what_cannot_run_is_said_at_once(applications, only, line):
    """An application that there is not; one that the simulator does not know."""
    pytest.importorskip("matplotlib")
    from papers.command import choose

    with pytest.raises(SystemExit, match=line):
        choose(SimpleNamespace(arguments=SimpleNamespace(applications=applications, only=only)))


# --------------------------------------------------------------------------- objectives that rise


def test_a_curve_reaches_its_target_from_the_side_that_it_comes_from():
    """The same curve upside down: the same time to the target, the same judgement of its end."""
    from papers.records import Curve, Differential, RunRecord, Setting, Straggler, Trace

    axis, values = np.arange(4.0), np.array([4.0, 2.0, 1.0, 5.0])
    falling, rising = Curve(axis, axis, values), Curve(axis, axis, -values, rising=True)
    assert falling.first_at(1.5, axis) == rising.first_at(-1.5, axis) == 1.5
    assert falling.first_at(0.5, axis) is rising.first_at(-0.5, axis) is None
    setting = Setting("BSP", None, 1, 1.0, Straggler())
    for curve, worst in ((falling, np.inf), (rising, -np.inf)):
        run = RunRecord("real", setting, Trace(*np.zeros((5, 1, 1))), np.zeros(1), curve, Differential.from_counts({}))
        assert run.diverged
        curve.objective[-1] = np.nan
        assert run.final_objective == worst


def test_verdicts_on_a_rising_objective_take_the_larger_for_the_better():
    """What diverged is worst in either direction."""
    from papers.numbers import spread
    from papers.verdicts import all_verdicts

    def answers(rising, eager, lazy):
        one = {"seconds_to_target": spread([1.0]), "shares": {"waiting": spread([0.1])}, "mean": spread([-1.0])}
        one |= {"clocks_per_second": spread([1.0]), "variance": spread([1.0])}
        grid = {
            "even": {
                f"{model}({s})": one | {"model": model, "bound": s, "objective_at_clock": spread(values)}
                for model, s, values in (("SSP", 0, lazy), ("SSP", 4, lazy), ("ESSP", 4, eager))
            }
        }
        known = {"condition": "even", "bound": 4, "step": 1.0}
        cells = [known | {"model": m, "final_objective": spread(v)} for m, v in (("SSP", lazy), ("ESSP", eager))]
        found = {verdict.question: verdict for verdict in all_verdicts(grid, grid, grid, grid, cells, rising)}
        per_clock = found["Is ESSP's objective per clock better than SSP's?"]
        final = found["Is ESSP's final objective better than SSP's over steps and staleness?"]
        return {case.answer for verdict in (per_clock, final) for case in verdict.cases}

    assert answers(False, [1.0, 1.1], [2.0, 2.1]) == {"yes"}
    assert answers(True, [1.0, 1.1], [2.0, 2.1]) == {"no"}
    assert answers(True, [-1.0, -1.1], [-np.inf, -np.inf]) == {"yes"}
    assert answers(True, [-np.inf, -np.inf], [-1.0, -1.1]) == {"no"}


# --------------------------------------------------------------------------- applications, one worker


def start(application, step=1.0, seed=0):
    """Return a share of one worker, and the values of its tables."""
    tables = {table.name: table for table in application.tables("exclusive")}
    values = {name: np.empty((table.rows, table.width), table.dtype) for name, table in tables.items()}
    for name, table in tables.items():
        table.fill(values[name], 0)
    kernels = {name: SimpleNamespace(kernel=SimpleNamespace(values=values[name])) for name in values}
    worker = SimpleNamespace(rank=0, size=1, table=kernels.__getitem__)
    return application.share(worker, step, 2, seed), values


def test_the_sampler_of_lda_draws_from_the_distribution_that_its_objective_gives(monkeypatch):
    """Of two topics for four tokens: how often each of 16 states comes, and their joint probabilities."""
    from papers import lda

    monkeypatch.setattr(lda, "ALPHA_SUM", 2.0)  # the small priors of the experiments make all but two states rare
    monkeypatch.setattr(lda, "BETA", 0.5)
    words = np.array([0, 1, 1], np.int32)
    documents = Documents(np.array([0, 2, 3]), words, np.array([1, 1, 2], np.int32), pa.array(["a", "b"]))
    application = lda.Lda.of("tiny", documents, 1, 2)
    states = [np.array(state, np.int32)[:, None] for state in itertools.product((0, 1), repeat=4)]
    exact = np.exp([4 * application.objective({"topics": state}) for state in states])
    share, values = start(application)
    counts, sweeps = np.zeros(16), 40_000
    for sweep in range(sweeps):
        share.advance(2 * sweep)
        share.advance(2 * sweep + 1)
        counts[int("".join(map(str, values["topics"][:, 0])), 2)] += 1
    assert np.abs(counts / sweeps - exact / exact.sum()).max() < 0.01
    application.check(values)


def test_lda_notices_a_count_that_was_lost():
    """In the counts of words as in the totals."""
    from papers.lda import Lda

    documents = Documents(np.array([0, 1]), np.zeros(1, np.int32), np.array([5], np.int32), pa.array(["a"]))
    application = Lda.of("tiny", documents, 1, 2)
    for table in ("words", "totals"):
        _, values = start(application)
        application.check(values)
        values[table][0, 0] += 1
        with pytest.raises(AssertionError, match="tokens' topics"):
            application.check(values)


def test_shares_of_lda_have_every_token_once():
    """Documents are whole with one worker each, words and documents those of the corpus."""
    from papers.lda import Lda

    from nbps.data import generate_documents

    documents = generate_documents(30, 10, 20, 2)
    application = Lda.of("generated", documents, 3, 4)
    found = np.zeros((30, 20), int)
    np.add.at(found, (application.documents, application.words), 1)
    expected = np.zeros((30, 20), int)
    np.add.at(expected, (documents.document_of_entry, documents.words), documents.counts)
    np.testing.assert_array_equal(found, expected)
    owners = [set(application.documents[a:b]) for a, b in itertools.pairwise(application.bounds)]
    assert sum(map(len, owners)) == 30 == len(set.union(*owners))


def test_lasso_of_one_worker_comes_to_the_minimum():
    """At the minimum no column pulls more than alpha, and those with a coefficient exactly so much."""
    from papers import lasso

    application = lasso.Lasso.of("generated", lasso.generate(40, 60, 10, 5), 1, 0)
    share, values = start(application)
    first = application.objective(values)
    for clock in range(2000):
        share.advance(clock)
    application.check(values)
    assert application.objective(values) < first
    data, coefficients = application.data, values["coefficients"][:, 0]
    columns = np.zeros((60, 40))
    np.add.at(columns, (np.repeat(np.arange(60), 10), data.rows), data.values)
    pulls = columns @ application.residual(coefficients) / 40
    chosen = coefficients != 0
    assert 0 < chosen.sum() < 60
    np.testing.assert_allclose(pulls[chosen], application.alpha * np.sign(coefficients[chosen]), atol=1e-9)
    assert np.abs(pulls).max() <= application.alpha + 1e-9


def test_lasso_notices_a_move_that_the_residual_lacks():
    """The residual of other coefficients."""
    from papers import lasso

    application = lasso.Lasso.of("generated", lasso.generate(40, 60, 10, 5), 1, 0)
    share, values = start(application)
    share.advance(0)
    application.check(values)
    values["residual"][0] += 0.1
    with pytest.raises(AssertionError, match="misses moves"):
        application.check(values)


def test_a_regression_is_read_from_a_csv(tmp_path):
    """Target first; columns have mean 0 and variance 1, constant ones are left out."""
    from papers import lasso

    path = tmp_path / "data.csv"
    path.write_text("y,a,b,c\n1,2,5,0\n3,4,5,1\n")
    data = lasso.read(path)
    assert data.y.tolist() == [-1, 1]
    assert data.values.tolist() == [-1, 1, -1, 1]
    assert data.starts.tolist() == [0, 2, 4]


# --------------------------------------------------------------------------- simulated machines


@pytest.mark.slow
def test_rows_as_arrays_do_what_the_simulator_s_rows_do():
    """The memory of the papers' simulated machines and that of `nbps.sim` give the same runs, to the bit."""
    done = subprocess.run([sys.executable, "-c", SAME_RUNS, str(BENCH)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


SAME_RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import nbps
from nbps.sim import Scenario, Simulation, Speed
from papers.rows import ArrayMemory

def program(worker):
    draw = np.random.default_rng(worker.rank)
    for clock in range(8):
        row = int(draw.integers(12))
        seen = yield from worker.get(row)
        yield from worker.compute(0.01 * draw.random())
        worker.inc(row, (draw.standard_normal(3) - 0.1 * seen).astype(np.float32))
        yield from worker.clock()

class Arrays(Simulation):
    memory_class = ArrayMemory

def run(simulation_class, model):
    scenario = Scenario(nodes=3, workers=2, clocks=8, consistency=model, rows=4, cached=True)
    simulation = simulation_class(scenario, program, np.zeros((12, 3), np.float32))
    simulation.run()
    return simulation

for model in (nbps.BSP(), nbps.SSP(1), nbps.ESSP(1), nbps.ASP(), nbps.VAP(4.0)):
    ours, theirs = run(Arrays, model), run(Simulation, model)
    assert ours.now == theirs.now and ours.events == theirs.events
    assert ours.connections.bytes == theirs.connections.bytes
    np.testing.assert_array_equal(ours.final(), theirs.final())
    assert theirs.final().any()
    for one, other in zip(ours.workers, theirs.workers):
        np.testing.assert_array_equal(one.copy.values, other.copy.values)
"""
