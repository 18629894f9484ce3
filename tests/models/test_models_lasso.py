"""`Lasso` and `ElasticNet`: the same solutions as scikit-learn's, on all kinds of data; saved, warm, interrupted."""

import gzip
import warnings

import numpy as np
import pytest

from nbps.errors import ConfigError, ConvergenceWarning, DataError, NotFittedError
from nbps.models import ElasticNet, Lasso
from nbps.models.lasso.history import Round

sklearn = pytest.importorskip("sklearn.linear_model")
sparse = pytest.importorskip("scipy.sparse")


@pytest.fixture(scope="module")
def problem():
    """More columns than rows, far from 0, and a target of five of them."""
    random = np.random.default_rng(0)
    X = random.standard_normal((60, 150)) + 5 * random.standard_normal(150)
    y = X[:, :5] @ [1, 2, -1, 0.5, 3] + random.standard_normal(60) + 4
    return X, y, random.random(60)


def thinned(X):
    """Return a sparse matrix that holds a fifth of the elements."""
    return sparse.csr_array(X * (np.random.default_rng(1).random(X.shape) < 0.2))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize(
    "options",
    [{}, {"positive": True}, {"fit_intercept": False}, {"l1_ratio": 0.4}, {"l1_ratio": 0.4, "positive": True}],
    ids=str,
)
def test_solutions_are_those_of_scikit_learn(problem, options, form, weighted):
    """Coefficients, intercept, predictions and score."""
    X, y, weights = problem
    X = thinned(X) if form == "sparse" else X
    options = {"l1_ratio": 1.0, "alpha": 0.1, "tol": 1e-11, **options}
    weights = weights if weighted else None
    model = ElasticNet(**options).fit(X, y, sample_weight=weights)
    peer = sklearn.ElasticNet(max_iter=100_000, **options).fit(X, y, sample_weight=weights)
    assert model.coef_ == pytest.approx(peer.coef_, abs=1e-6)
    assert model.intercept_ == pytest.approx(peer.intercept_, abs=1e-5)
    assert model.predict(X) == pytest.approx(peer.predict(X), abs=1e-5)
    assert model.score(X, y, weights) == pytest.approx(peer.score(X, y, weights), abs=1e-6)
    assert (model.n_features_in_, model.dual_gap_ < 1e-8, model.n_iter_ > 0) == (150, True, True)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_float32_and_other_forms_give_the_same_solution(problem, form):
    """To float32's precision; C order, integers, lists, other sparse forms, entries that repeat."""
    X, y, _ = problem
    X = np.round(X * 8)
    X = thinned(X) if form == "sparse" else X
    expected = Lasso(alpha=0.5, tol=1e-10).fit(X, y).coef_
    if form == "dense":
        forms = [X.astype(np.float32), np.asfortranarray(X, np.float32), X.astype(np.int16), X.tolist()]
    else:
        coo = X.tocoo()
        halves = np.tile(coo.data / 2, 2), (np.tile(coo.row, 2), np.tile(coo.col, 2))
        forms = [X.astype(np.float32), X.tocoo(), X.astype(np.int32), sparse.coo_matrix(halves, X.shape)]
    for other in forms:
        assert Lasso(alpha=0.5, tol=1e-10).fit(other, y).coef_ == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_standardised_columns_are_as_if_they_were_divided(problem, form):
    """With weights, too; the data is not changed."""
    X, y, weights = problem
    X = thinned(X).toarray() if form == "sparse" else X
    X[:, 9] = 0
    mean = np.average(X, axis=0, weights=weights)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    peer = sklearn.Lasso(alpha=0.2, tol=1e-11, max_iter=100_000)
    peer.fit((X - mean) / np.where(deviation > 0, deviation, 1), y, sample_weight=weights)
    given = sparse.csc_array(X) if form == "sparse" else np.asfortranarray(X)
    before = given.copy()
    model = Lasso(alpha=0.2, standardize=True, tol=1e-11).fit(given, y, sample_weight=weights)
    assert model.coef_ * deviation == pytest.approx(peer.coef_, abs=1e-6)
    assert model.coef_[9] == 0
    assert (given != before).sum() == 0


def test_a_weight_counts_as_that_many_rows(problem):
    """And one of 0 as none."""
    X, y, _ = problem
    weights = np.random.default_rng(2).integers(0, 3, y.size)
    weighted = Lasso(alpha=0.1, tol=1e-10).fit(X, y, sample_weight=weights)
    repeated = Lasso(alpha=0.1, tol=1e-10).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert weighted.coef_ == pytest.approx(repeated.coef_, abs=1e-6)
    assert weighted.intercept_ == pytest.approx(repeated.intercept_)


def test_the_gap_bounds_the_objective(problem):
    """It is at most `tol` times the mean square of the target, in each round no less than what was left."""
    X, y, _ = problem
    exact = Lasso(alpha=0.1, tol=1e-13).fit(X, y)
    model = Lasso(alpha=0.1, tol=1e-3).fit(X, y)
    assert model.dual_gap_ <= 1e-3 * y.var()
    least = exact.history_[-1].objective
    assert all(record.objective - least <= record.gap + 1e-12 for record in model.history_)
    assert [record.epoch for record in model.history_] == list(range(1, len(model.history_) + 1))
    assert model.history_[-1].nonzeros == np.count_nonzero(model.coef_)


def test_columns_that_do_not_vary_have_no_coefficient(problem):
    """Of all zeros, and constant ones where there is an intercept."""
    X, y, _ = problem
    X = X.copy()
    X[:, 0], X[:, 1] = 0, 1e6 / 3
    assert (Lasso(alpha=0.01).fit(X, y).coef_[:2] == 0).all()
    assert (Lasso(alpha=0.01).fit(sparse.csc_array(X), y).coef_[:2] == 0).all()
    assert Lasso(alpha=0.1, fit_intercept=False).fit(np.full((60, 1), 7), y).coef_[0] != 0


def test_a_large_alpha_leaves_nothing(problem):
    """All coefficients are 0, and the intercept is the mean."""
    X, y, _ = problem
    model = Lasso(alpha=1e6).fit(X, y)
    assert not model.coef_.any()
    assert model.intercept_ == pytest.approx(y.mean())


def test_too_few_iterations_are_told(problem):
    """As a warning, that says the gap; there is a model all the same."""
    X, y, _ = problem
    with pytest.warns(ConvergenceWarning, match=r"the duality gap is .* after 6 passes"):
        model = Lasso(alpha=1e-3, max_iter=6, tol=1e-12).fit(X, y)
    assert model.dual_gap_ > 0


def test_a_warm_start_begins_where_the_last_fit_ended(problem):
    """Fewer passes to the same solution; and another problem is not disturbed."""
    X, y, _ = problem
    model = Lasso(alpha=0.1, tol=1e-10, warm_start=True).fit(X, y)
    first = model.n_iter_
    again = model.set_params(alpha=0.0999).fit(X, y)
    assert again.n_iter_ < first
    assert again.coef_ == pytest.approx(Lasso(alpha=0.0999, tol=1e-10).fit(X, y).coef_, abs=1e-6)
    assert model.fit(X[:, :70], y).coef_.size == 70


def test_callbacks_see_the_model_and_end_training(problem, capsys):
    """Each round; one that returns True ends it."""
    X, y, _ = problem
    seen = []
    model = Lasso(alpha=0.01, verbose=True, callbacks=[lambda model, record: seen.append((model.coef_, record))])
    model.fit(X, y)
    assert [record for _, record in seen] == model.history_
    assert (seen[-1][0] == model.coef_).all()
    assert np.count_nonzero(seen[0][0]) == 0
    assert capsys.readouterr().out.count("round ") == len(seen) > 2
    stopped = Lasso(alpha=0.01, callbacks=[lambda model, record: record.epoch == 2]).fit(X, y)
    assert len(stopped.history_) == 2


def test_frames_have_names(problem):
    """Of pandas and Arrow; prediction on columns in another order is refused."""
    pandas, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    X, y, _ = problem
    names = [f"gene {k}" for k in range(X.shape[1])]
    frame = pandas.DataFrame(X, columns=names)
    for given in (frame, pa.Table.from_pandas(frame)):
        model = Lasso(alpha=0.1).fit(given, y)
        assert model.feature_names_in_.tolist() == names
        assert model.coef_ == pytest.approx(Lasso(alpha=0.1).fit(X, y).coef_)
        assert model.predict(given) == pytest.approx(model.predict(X))
    with pytest.raises(ConfigError, match="column 0 is 'gene 1'; this Lasso was fitted to 'gene 0' there"):
        model.predict(frame[names[1:] + names[:1]])
    with pytest.raises(AttributeError, match="columns without names"):
        _ = Lasso(alpha=0.1).fit(X, y).feature_names_in_
    frame["gene 3"] = "high"
    with pytest.raises(DataError, match=r"column 'gene 3' holds .*; expected numbers"):
        Lasso().fit(frame, y)


def test_a_saved_model_is_the_same(tmp_path, problem):
    """Predictions, history, names and parameters; another class's files are read as what they are."""
    pandas = pytest.importorskip("pandas")
    X, y, _ = problem
    frame = pandas.DataFrame(X, columns=[f"c{k}" for k in range(X.shape[1])])
    model = Lasso(alpha=0.1, random_state=np.random.default_rng(0)).fit(frame, y)
    model.save(tmp_path / "model")
    loaded = Lasso.load(tmp_path / "model")
    assert (loaded.predict(X) == model.predict(X)).all()
    assert loaded.history_ == model.history_
    assert isinstance(loaded.history_[0], Round)
    assert (loaded.dual_gap_, loaded.n_iter_, loaded.alpha) == (model.dual_gap_, model.n_iter_, 0.1)
    assert (loaded.feature_names_in_ == model.feature_names_in_).all()
    (tmp_path / "model" / "coefficients.arrow").write_bytes(b"")
    with pytest.raises(DataError, match="checksum"):
        Lasso.load(tmp_path / "model")


def test_scikit_learn_takes_it_for_a_regressor(problem):
    """It is cloned, searched and scored; scikit-learn sees the parameters of its own Lasso."""
    base, selection = pytest.importorskip("sklearn.base"), pytest.importorskip("sklearn.model_selection")
    X, y, _ = problem
    search = selection.GridSearchCV(Lasso(), {"alpha": [0.03, 0.3]}, cv=3).fit(X, y)
    assert search.best_params_["alpha"] in (0.03, 0.3)
    assert base.is_regressor(base.clone(ElasticNet(l1_ratio=0.3)))
    known = {"precompute", "copy_X", "selection"}  # what only scikit-learn's way of solving has
    assert set(sklearn.Lasso().get_params()) - known <= set(Lasso().get_params())


def test_riboflavin(shared_data):
    """71 rows of 4,088 genes, standardised: the objective and the non-zeros that others have found."""
    with gzip.open(shared_data / "riboflavin" / "riboflavin.csv.gz", "rt") as file:
        rows = [line.strip().replace('"', "").split(",") for line in file]
    table = np.array([row[-4089:] for row in rows[1:]], float)
    y, X = table[:, 0], table[:, 1:]
    model = Lasso(alpha=0.1, standardize=True, tol=1e-8).fit(X, y)
    left = y - model.predict(X)
    objective = left @ left / (2 * y.size) + 0.1 * np.abs(model.coef_ * X.std(axis=0)).sum()
    assert objective == pytest.approx(0.180762, abs=1e-6)
    assert np.count_nonzero(model.coef_) == 23


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, r"alpha is 0; expected a finite number > 0"),
        ({"alpha": -1.0}, r"alpha is -1.0"),
        ({"alpha": np.nan}, r"alpha is nan"),
        ({"alpha": np.inf}, r"alpha is inf"),
        ({"tol": -1}, r"tol is -1"),
        ({"max_iter": 0}, r"max_iter is 0; expected a whole number >= 1"),
        ({"positive": "yes"}, r"positive is 'yes'; expected True or False"),
        ({"schedule": "random"}, r"schedule is 'random'; expected one of working_sets, cyclic"),
        ({"checkpoint": "here"}, r"checkpoint is 'here', but schedule='working_sets' has no clocks"),
        ({"workers": 0}, r"workers is 0"),
    ],
)
def test_parameters_that_cannot_be_used(problem, options, message):
    """Each is named, and what is expected."""
    with pytest.raises(ConfigError, match=message):
        Lasso(**options).fit(*problem[:2])


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1, np.nan])
def test_a_mixture_without_l1_is_refused(problem, ratio):
    """Ridge regression selects nothing."""
    with pytest.raises(ConfigError, match=f"l1_ratio is {ratio}"):
        ElasticNet(l1_ratio=ratio).fit(*problem[:2])


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sparse.csr_array], ids=["C", "F", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named(problem, form, value):
    """By row and column, in training and in prediction; in the target by row."""
    X, y, _ = problem
    wrong = X.copy()
    wrong[7, 2] = value
    with pytest.raises(DataError, match=rf"X: row 7, column 2 is {value}"):
        Lasso().fit(form(wrong), y)
    with pytest.raises(DataError, match=rf"X: row 7, column 2 is {value}"):
        Lasso(alpha=0.01).fit(form(X), y).predict(form(wrong))
    y = y.copy()
    y[9] = value
    with pytest.raises(DataError, match=rf"y: row 9 is {value}"):
        Lasso().fit(form(X), y)


def test_data_that_cannot_be_trained_on(problem):
    """What is wrong with it is said, and the model stays unfitted."""
    X, y, weights = problem
    model = Lasso()
    with pytest.raises(DataError, match=r"y: all 60 values are 2; expected a target that varies"):
        model.fit(X, np.full(60, 2.0))
    with pytest.raises(DataError, match=r"y: all 1 values"):
        model.fit(X, y, sample_weight=np.eye(60)[3])
    with pytest.raises(ConfigError, match=r"y: expected shape \(60,\).*found \(60, 1\); y.ravel\(\) makes it so"):
        model.fit(X, y[:, None])
    with pytest.raises(ConfigError, match=r"y: expected shape \(60,\).*found \(59,\)"):
        model.fit(X, y[:-1])
    with pytest.raises(ConfigError, match=r"found shape \(60,\); one column is X.reshape"):
        model.fit(X[:, 0], y)
    with pytest.raises(ConfigError, match=r"found shape \(0, 150\)"):
        model.fit(X[:0], y[:0])
    with pytest.raises(ConfigError, match="expected numbers, found dtype complex128"):
        model.fit(X * 1j, y)
    with pytest.raises(ConfigError, match="expected numbers, found dtype <U1"):
        model.fit([["a", "b"]] * 60, y)
    with pytest.raises(ConfigError, match="not the name of a file"):
        model.fit("x.csv", y)
    with pytest.raises(ConfigError, match="sample_weight: row 4 is -1"):
        model.fit(X, y, sample_weight=np.where(np.arange(60) == 4, -1, weights))
    with pytest.raises(ConfigError, match="sample_weight: row 0 is 0"):
        model.fit(X, y, sample_weight=0)
    with pytest.raises(DataError, match="X: the squares of column 6 overflow"):
        model.fit(np.where(np.arange(150) == 6, 1e200 * X, X), y)
    with pytest.raises(DataError, match=r"y: the squares of .* overflow"):
        model.fit(X, 1e200 * y)
    with pytest.raises(NotFittedError, match="this Lasso is not fitted"):
        model.predict(X)
    with pytest.raises(ConfigError, match="X has 149 columns; this Lasso was fitted to 150"):
        model.fit(X, y).predict(X[:, 1:])


def test_nothing_warns_where_nothing_is_wrong(problem):
    """Small numbers, large ones, one row's weight, one column."""
    X, y, _ = problem
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1e-100, 1e100):
            model = Lasso(alpha=0.1 * scale).fit(X, y * scale)
            assert model.coef_ / scale == pytest.approx(Lasso(alpha=0.1).fit(X, y).coef_, rel=1e-6)
        assert Lasso(alpha=1e-3, tol=1e-12).fit(X[:, :1], y).coef_[0] != 0
