"""Paths and cross-validation against scikit-learn's."""

import numpy as np
import pytest

from nbps.errors import ConfigError, DataError
from nbps.models import ElasticNetCV, Lasso, LassoCV, enet_path, lasso_path

sklearn = pytest.importorskip("sklearn.linear_model")
sparse = pytest.importorskip("scipy.sparse")
_COUNT = "n_alphas" if pytest.importorskip("sklearn").__version__.startswith("1.6") else "alphas"  # its older name


@pytest.fixture(scope="module")
def problem():
    """Centred data, and a target of five columns."""
    random = np.random.default_rng(3)
    X = random.standard_normal((50, 80))
    y = X[:, :5] @ [1, 2, -1, 0.5, 3] + random.standard_normal(50)
    return X - X.mean(axis=0), y - y.mean()


@pytest.mark.parametrize("options", [{}, {"positive": True}, {"l1_ratio": 0.5}], ids=str)
@pytest.mark.parametrize("form", [np.asfortranarray, sparse.csc_matrix], ids=["dense", "sparse"])
def test_paths_are_those_of_scikit_learn(problem, form, options):
    """Alphas, coefficients and shapes; gaps are small."""
    X, y = form(problem[0]), problem[1]
    options = {"l1_ratio": 1.0, "eps": 0.01, "tol": 1e-9, **options}
    alphas, coefs, gaps, passes = enet_path(X, y, alphas=12, return_n_iter=True, **options)
    peer = sklearn.enet_path(X, y, **{_COUNT: 12}, max_iter=100_000, **options)
    assert alphas == pytest.approx(peer[0])
    assert coefs == pytest.approx(peer[1], abs=1e-4)
    assert (gaps.shape, passes.shape, coefs.shape) == ((12,), (12,), (80, 12))
    assert (gaps <= 1e-9 * y @ y / y.size).all()


def test_a_path_is_as_good_as_single_solutions(problem):
    """Though each solution begins with the one before, and with what is known of columns from it."""
    X, y = problem
    alphas, coefs, _ = lasso_path(X, y, alphas=[0.03, 0.3, 0.1], tol=1e-11)
    assert alphas.tolist() == [0.3, 0.1, 0.03]
    for alpha, found in zip(alphas, coefs.T, strict=True):
        assert found == pytest.approx(Lasso(alpha, tol=1e-11, fit_intercept=False).fit(X, y).coef_, abs=1e-6)


def test_options_of_a_path(problem):
    """Intercept, standardised columns and weights as in the estimator; a first solution is taken."""
    X, y = problem[0] + 3, problem[1] + 5
    weights = np.random.default_rng(0).random(y.size)
    _, coefs, _ = lasso_path(X, y, alphas=[0.1], fit_intercept=True, standardize=True, sample_weight=weights, tol=1e-11)
    model = Lasso(0.1, standardize=True, tol=1e-11).fit(X, y, sample_weight=weights)
    assert coefs[:, 0] == pytest.approx(model.coef_, abs=1e-7)
    start = coefs[:, 0]
    *_, passes = lasso_path(X, y, alphas=[0.1], fit_intercept=True, standardize=True, sample_weight=weights,
                            coef_init=start, return_n_iter=True)  # fmt: skip
    assert passes.tolist() == [0]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_cross_validation_is_that_of_scikit_learn(problem, form, weighted):
    """Errors on each fold, the alpha that is chosen, and the model."""
    X, y = form(problem[0] * (np.random.default_rng(1).random((50, 80)) < 0.5)), problem[1] + 2
    weights = np.random.default_rng(0).random(y.size) if weighted else None
    options = {"eps": 0.02, "tol": 1e-9}
    model = LassoCV(alphas=8, **options).fit(X, y, sample_weight=weights)
    peer = sklearn.LassoCV(**{_COUNT: 8}, max_iter=100_000, **options).fit(X, y, sample_weight=weights)
    assert model.alphas_ == pytest.approx(peer.alphas_)
    assert model.mse_path_ == pytest.approx(peer.mse_path_, rel=1e-4)
    assert model.alpha_ == pytest.approx(peer.alpha_)
    assert model.coef_ == pytest.approx(peer.coef_, abs=1e-5)
    assert model.predict(X) == pytest.approx(peer.predict(X), abs=1e-4)


def test_a_mixture_is_chosen(problem, tmp_path):
    """Of several; shapes are scikit-learn's, folds may be a splitter or pairs, and the model is saved with them."""
    from sklearn.model_selection import KFold

    X, y = problem
    options = {"l1_ratio": [0.3, 0.9], "eps": 0.05, "tol": 1e-8}
    folds = KFold(3, shuffle=True, random_state=0)
    model = ElasticNetCV(cv=folds, alphas=6, **options).fit(X, y)
    peer = sklearn.ElasticNetCV(cv=folds, max_iter=100_000, **{_COUNT: 6}, **options).fit(X, y)
    assert model.mse_path_ == pytest.approx(peer.mse_path_, rel=1e-4)
    assert model.alphas_ == pytest.approx(peer.alphas_)
    assert (model.l1_ratio_, model.alpha_) == (peer.l1_ratio_, pytest.approx(peer.alpha_))
    pairs = ElasticNetCV(cv=list(folds.split(X)), alphas=6, **options).fit(X, y)
    assert (pairs.mse_path_ == model.mse_path_).all()
    model.save(tmp_path / "model")
    loaded = ElasticNetCV.load(tmp_path / "model")
    with pytest.raises(DataError, match=r"expected a model of Lasso, found one of ElasticNetCV; load it with ElasticN"):
        Lasso.load(tmp_path / "model")
    assert (loaded.mse_path_ == model.mse_path_).all()
    assert (loaded.alpha_, loaded.l1_ratio_) == (model.alpha_, model.l1_ratio_)
    assert (loaded.predict(X) == model.predict(X)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": 0}, "alphas is 0"),
        ({"alphas": [0.1, 0]}, "alpha is 0.0; expected a finite number > 0"),
        ({"alphas": [0.1, np.nan]}, "alpha is nan"),
        ({"alphas": []}, r"alphas is \[\]"),
        ({"alphas": "all"}, "alphas is 'all'"),
        ({"eps": 0}, "eps is 0"),
        ({"eps": 1.0}, "eps is 1.0; expected a number between 0 and 1"),
        ({"coef_init": np.ones(3)}, r"coef_init: expected shape \(80,\), found \(3,\)"),
    ],
)
def test_paths_that_cannot_be_computed(problem, options, message):
    """Each option is named, and what is expected."""
    with pytest.raises(ConfigError, match=message):
        lasso_path(*problem, **options)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "cv is 1; expected a whole number from 2 to 50"),
        (51, "cv is 51"),
        ("five", "cv is 'five'"),
        ([([0, 1], [50])], r"cv: fold 0 has array\(\[50\]\); expected row numbers from 0 to 49"),
        ([3], "cv: fold 0 is 3"),
    ],
)
def test_folds_that_cannot_be_used(problem, cv, message):
    """Too many, too few, beyond the data, something else."""
    with pytest.raises(ConfigError, match=message):
        LassoCV(cv=cv, alphas=3).fit(*problem)


def test_a_target_that_no_column_is_correlated_with(problem):
    """There is no alpha under which anything is left; with a constant one there is nothing to explain."""
    X = np.array([[1.0, 2], [-1, -2], [1, 2], [-1, -2]])
    with pytest.raises(ConfigError, match=r"no column is correlated .* --alpha"):
        lasso_path(X, np.array([1.0, 1, -1, -1]))
    with pytest.raises(DataError, match="expected a target that varies"):
        LassoCV().fit(problem[0], np.ones(50))
