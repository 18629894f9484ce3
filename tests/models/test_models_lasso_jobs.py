"""Linear models on workers: scans split between them, and cyclic descent under every consistency model."""

import numpy as np
import pytest

import nbps
from nbps.errors import CheckpointError, ConvergenceWarning, DataError
from nbps.models import ElasticNet, Lasso

sparse = pytest.importorskip("scipy.sparse")
MODELS = [nbps.BSP(), nbps.SSP(0), nbps.SSP(5), nbps.ESSP(2), nbps.ASP(), nbps.VAP(0.5)]


@pytest.fixture(scope="module")
def problem():
    """Columns that are hardly correlated, and a target of five of them."""
    random = np.random.default_rng(0)
    X = random.standard_normal((90, 200)) + 2
    y = X[:, :5] @ [1, 2, -1, 0.5, 3] + random.standard_normal(90)
    return X, y, random.random(90)


@pytest.fixture(scope="module")
def solution(problem):
    """Return the solution of one process."""
    return Lasso(0.1, tol=1e-10).fit(*problem[:2])


@pytest.mark.parametrize("form", [np.asfortranarray, sparse.csc_array], ids=["dense", "sparse"])
def test_scans_by_workers_change_nothing(problem, form):
    """The same bits with one, two and three workers; weights, an elastic net and a warm start included."""
    X, y, weights = form(problem[0] * (np.arange(200) % 7 > 0)), *problem[1:]
    options = {"alpha": 0.1, "l1_ratio": 0.8, "tol": 1e-8, "warm_start": True}
    alone = ElasticNet(**options).fit(X, y, weights)
    models = [ElasticNet(workers=workers, **options).fit(X, y, weights) for workers in (2, 3)]
    for model in models:
        assert (model.coef_ == alone.coef_).all()
        assert [record.gap for record in model.history_] == [record.gap for record in alone.history_]
        assert model.report_.workers
    assert not hasattr(models[1].set_params(workers=1).fit(X, y, weights), "report_")
    again = models[0].set_params(alpha=0.05).fit(X, y, weights)
    assert (again.coef_ == alone.set_params(alpha=0.05).fit(X, y, weights).coef_).all()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_late_steps_lead_to_the_same_solution(problem, solution, model):
    """Where columns are hardly correlated; the duality gap says how near it is."""
    X, y, _ = problem
    found = Lasso(0.1, tol=1e-8, schedule="cyclic", workers=2, clocks=4, consistency=model).fit(X, y)
    assert found.coef_ == pytest.approx(solution.coef_, abs=1e-3)
    assert found.intercept_ == pytest.approx(solution.intercept_, abs=1e-2)
    assert found.dual_gap_ <= 1e-8 * y.var()
    least = solution.history_[-1].objective
    assert all(record.objective - least <= record.gap + 1e-9 for record in found.history_)
    assert (
        found.n_iter_ == len(found.history_) == found.report_.clocks // 4 if hasattr(found.report_, "clocks") else True
    )


@pytest.mark.parametrize("form", [np.asfortranarray, sparse.csc_array], ids=["dense", "sparse"])
def test_sparse_columns_weights_and_penalties(problem, form):
    """Centred and standardised without being made dense, with weights of rows, on workers as in one process."""
    X, y, weights = problem
    X = form(X.astype(np.float32) * (np.random.default_rng(1).random(X.shape) < 0.3))
    options = {"alpha": 0.1, "l1_ratio": 0.7, "standardize": True, "positive": True, "tol": 1e-9}
    expected = ElasticNet(**options).fit(X, y, weights)
    found = ElasticNet(schedule="cyclic", workers=2, **options).fit(X, y, weights)
    assert found.coef_ == pytest.approx(expected.coef_, abs=1e-3)
    assert found.history_[-1].objective == pytest.approx(expected.history_[-1].objective, rel=1e-6)


def test_bsp_repeats_to_the_bit(problem):
    """With a seed; another one visits columns in another order."""
    X, y, _ = problem
    options = {"alpha": 0.1, "tol": 1e-6, "schedule": "cyclic", "workers": 2, "consistency": nbps.BSP()}
    first, second = (Lasso(**options).fit(X, y) for _ in range(2))
    assert (first.coef_ == second.coef_).all()
    assert (first.coef_ != Lasso(random_state=1, **options).fit(X, y).coef_).any()


def test_one_worker_lowers_the_objective_in_every_pass(problem):
    """Nothing is late then."""
    X, y, _ = problem
    model = Lasso(0.01, tol=1e-5, schedule="cyclic", workers=1).fit(X, y)
    objectives = [record.objective for record in model.history_]
    assert objectives == sorted(objectives, reverse=True)
    assert len(objectives) > 3


def test_a_callback_sees_the_model_and_ends_training(problem):
    """After each pass."""
    X, y, _ = problem
    seen = []

    def watch(model, record):
        seen.append((model.coef_.copy(), model.dual_gap_))
        return record.epoch == 3

    model = Lasso(0.1, tol=0, schedule="cyclic", workers=2, callbacks=[watch]).fit(X, y)
    assert [gap for _, gap in seen] == [record.gap for record in model.history_]
    assert (seen[-1][0] == model.coef_).all()
    assert (seen[0][0] != seen[1][0]).any()


def test_training_goes_on_from_a_checkpoint(problem, tmp_path):
    """To the bit; that of other data is refused."""
    X, y, _ = problem
    options = {"alpha": 0.1, "tol": 1e-7, "schedule": "cyclic", "workers": 2, "consistency": nbps.BSP()}
    whole = Lasso(**options).fit(X, y)
    folder = str(tmp_path / "saved")
    Lasso(checkpoint=folder, callbacks=[lambda model, record: record.epoch == 3], **options).fit(X, y)
    with pytest.raises(CheckpointError, match="checksum"):
        Lasso(checkpoint=folder, **options).fit(X + 1, y)
    for _ in range(2):  # what is solved is not trained any more
        resumed = Lasso(checkpoint=folder, **options).fit(X, y)
        assert (resumed.coef_ == whole.coef_).all()
        assert [record.gap for record in resumed.history_] == [record.gap for record in whole.history_]


def test_a_checkpoint_of_other_weights_or_places_is_refused(problem, tmp_path):
    """Where values and target are the same."""
    X, y, weights = problem
    options = {"alpha": 0.1, "schedule": "cyclic", "workers": 1, "fit_intercept": False, "callbacks": [lambda *_: True]}
    Lasso(checkpoint=tmp_path / "dense", **options).fit(X, y)
    with pytest.raises(CheckpointError, match="sample_weight"):
        Lasso(checkpoint=tmp_path / "dense", **options).fit(X, y, weights)
    values, starts = np.ones(200), np.arange(201)
    first, second = (sparse.csc_array((values, (starts[:-1] + k) % 90, starts), shape=X.shape) for k in (0, 1))
    Lasso(checkpoint=tmp_path / "sparse", **options).fit(first, y)
    with pytest.raises(CheckpointError, match="checksum"):
        Lasso(checkpoint=tmp_path / "sparse", **options).fit(second, y)


def test_divergence_is_told(problem):
    """Three workers that each take the whole step along the same column overshoot by more each time."""
    X, y, _ = problem
    alike = np.repeat(X[:, :1], 30, axis=1)
    with pytest.raises(DataError, match=r"training diverged in pass \d+: the objective is .*clocks, now 1"):
        Lasso(0.01, tol=1e-9, schedule="cyclic", workers=3, clocks=1, consistency=nbps.BSP()).fit(alike, y)


def test_too_few_passes_are_told(problem):
    """As a warning, and in the gap."""
    X, y, _ = problem
    with pytest.warns(ConvergenceWarning, match="after 2 passes"):
        model = Lasso(0.01, tol=1e-9, max_iter=2, schedule="cyclic", workers=1).fit(X, y)
    assert model.dual_gap_ > 1e-9 * y.var()
