"""Kernels of the Lasso against naive NumPy twins, compiled and as plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels.models import lasso
from nbps.kernels.models.lasso_columns import (
    UNWEIGHTED,
    Dense,
    Sparse,
    distance,
    make_design,
    measure,
    product_sum,
    square_sum,
)
from nbps.kernels.models.lasso_scan import choose, scan, screen

KINDS = [("float64", False), ("float64", True), ("float32", False)]


class Case:
    """Random columns, as kernels take them and as a plain matrix; some are constant, sparse ones mostly 0."""

    def __init__(self, kind, seed, n=23, p=41, centred=True, scaled=False, weighted=False):
        dtype, is_sparse = kind
        random = np.random.default_rng(seed)
        X = random.standard_normal((n, p)) + 3 * random.standard_normal(p)
        if is_sparse:
            X *= random.random((n, p)) < 0.3
        X[:, 3], X[:, 5] = 0, 7.7
        X = X.astype(dtype)
        weights = random.integers(0, 4, n).astype(float) if weighted else UNWEIGHTED
        self.design = make_design(_sparse(X) if is_sparse else Dense(np.ascontiguousarray(X.T)), weights, n)
        self.w = weights if weighted else np.ones(n)
        y = X[:, :4] @ random.standard_normal(4) + random.standard_normal(n)
        self.y = y - np.average(y, weights=self.w) * centred
        self.start = np.append(self.w * self.y, 0.0)
        self.correlations = np.empty(p)
        assert measure(self.design, 0, p, centred, scaled, self.start, self.correlations) == -1
        Z = X.astype(float)
        if centred:
            Z = Z - np.average(Z, axis=0, weights=self.w)
        Z[:, np.ptp(X, axis=0) == 0] *= not centred
        squares = self.w @ Z**2
        self.Z = Z * np.sqrt(self.w.sum() / np.where(squares > 0, squares, np.inf)) if scaled else Z
        self.random, self.n, self.p = random, n, p

    def residual(self, coefficients):
        """Weighted residual of coefficients, as kernels make it."""
        out = np.empty(self.n + 1)
        lasso.rebuild(self.design, np.arange(self.p, dtype=np.int32), coefficients, self.start, out)
        return out

    def shown(self, residual):
        """Weighted residual as a plain vector."""
        return residual[:-1] + residual[-1] * self.w

    def objective(self, b, l1, l2):
        """Objective in units of sums of squares."""
        return 0.5 * self.w @ (self.y - self.Z @ b) ** 2 + l1 * np.abs(b).sum() + 0.5 * l2 * b @ b

    def strongest(self):
        """Smallest L1 penalty under which all coefficients are 0."""
        return np.abs(self.correlations).max()


def _sparse(X):
    rows = [np.flatnonzero(column).astype(np.int32) for column in X.T]
    values = [X[kept, j] for j, kept in enumerate(rows)]
    starts = np.cumsum([0, *map(len, rows)])
    return Sparse(np.concatenate(values), np.concatenate(rows), starts)


MODES = {"kind": st.sampled_from(KINDS), "centred": st.booleans(), "scaled": st.booleans(), "weighted": st.booleans()}


@given(seed=st.integers(0, 10**6), **MODES)
def test_columns_are_centred_scaled_and_weighted(seed, **mode):
    """Squares, products with the target and residuals of coefficients are those of the matrix made by NumPy."""
    case = Case(seed=seed, **mode)
    tolerance = 1e-5 if mode["kind"][0] == "float32" else 1e-9
    assert case.design.squares == pytest.approx(case.w @ case.Z**2, rel=tolerance, abs=tolerance)
    assert case.correlations == pytest.approx(case.Z.T @ (case.w * case.y), abs=1e3 * tolerance)
    assert (case.design.squares[3] == 0, case.design.squares[5] == 0) == (True, mode["centred"])
    b = case.random.standard_normal(case.p)
    residual, expected = case.residual(b), case.y - case.Z @ b
    assert case.shown(residual) == pytest.approx(case.w * expected, abs=1e3 * tolerance)
    assert square_sum(case.design, residual) == pytest.approx(case.w @ expected**2)
    assert product_sum(case.design, case.y, residual) == pytest.approx((case.w * case.y) @ expected)
    away = np.sqrt(case.w @ (expected - case.y) ** 2)
    assert distance(case.design, residual, case.start) == pytest.approx(away)


@given(seed=st.integers(0, 10**6), positive=st.booleans(), l2=st.sampled_from([0.0, 2.5]), **MODES)
def test_descent_minimises_over_each_coefficient(seed, positive, l2, **mode):
    """A pass does what a naive one does; the objective falls by no less than it says; plain Python agrees."""
    case = Case(seed=seed, **mode)
    columns = np.flatnonzero(case.design.squares).astype(np.int32)
    l1 = 0.2 * case.strongest()
    b, residual = np.zeros(case.p), case.start.copy()
    plain = b.copy(), residual.copy()
    before = case.objective(b, l1, l2)
    fall = lasso.descend(case.design, columns, columns.size - 1, l1, l2, positive, b, residual)
    lasso.descend.py_func(case.design, columns, columns.size - 1, l1, l2, positive, *plain)
    expected = np.zeros(case.p)
    for j in columns[:-1]:
        z = case.Z[:, j]
        value = (case.w * z) @ (case.y - case.Z @ expected + z * expected[j])
        shrunk = max(abs(value) - l1, 0) * np.sign(value) / (case.w @ z**2 + l2)
        expected[j] = max(shrunk, 0) if positive else shrunk
    assert b == pytest.approx(expected, abs=1e-4)
    assert b == pytest.approx(plain[0], abs=1e-9)
    assert before - case.objective(b, l1, l2) >= fall * (1 - 1e-4) - 1e-9
    assert case.shown(residual) == pytest.approx(case.shown(case.residual(b)), abs=1e-7)


def solved(case, l1, l2, positive, gap=1e-9):
    """Coefficients of the whole problem, their residual and the passes they took."""
    columns = np.flatnonzero(case.design.squares).astype(np.int32)
    b, residual = np.zeros(case.p), case.start.copy()
    scratch = lasso.make_scratch(columns.size, case.n)
    passes = lasso.solve(
        case.design, lasso.read_only(case.y), columns, l1, l2, positive, gap, 100_000, b, residual, scratch
    )
    return b, residual, passes


@given(seed=st.integers(0, 10**6), positive=st.booleans(), l2=st.sampled_from([0.0, 2.5]), **MODES)
def test_a_solution_meets_the_conditions_of_optimality(seed, positive, l2, **mode):
    """Slopes of columns with a coefficient are the penalty, others at most that; the gap that is told is no smaller."""
    case = Case(seed=seed, **mode)
    l1 = 0.1 * case.strongest()
    b, residual, _ = solved(case, l1, l2, positive)
    live = case.design.squares > 0
    slopes = (case.Z.T @ (case.w * (case.y - case.Z @ b)) - l2 * b)[live]
    slack = 1e-3 * l1
    assert (slopes <= l1 + slack).all()
    assert positive or (slopes >= -l1 - slack).all()
    on = b[live] != 0
    assert slopes[on] == pytest.approx(l1 * np.sign(b[live][on]), abs=slack)
    assert not positive or (b >= 0).all()
    columns = np.arange(case.p, dtype=np.int32)
    largest = float(slopes.max() if positive else np.abs(slopes).max())
    primal, dual, _ = lasso.values(
        case.design, lasso.read_only(case.y), columns, b, residual, max(largest, 0.0), l1, l2
    )
    assert primal == pytest.approx(case.objective(b, l1, l2))
    assert -1e-9 * primal <= primal - dual <= 1e-4 * primal


def test_acceleration_saves_passes():
    """Where columns are alike: half as many again plain passes end above the objective that it reaches."""
    case = Case(("float64", False), seed=5, n=60, p=50)
    mixed = np.cumsum(case.Z, axis=1)
    case.design = make_design(Dense(np.ascontiguousarray(mixed.T)), UNWEIGHTED, case.n)
    assert measure(case.design, 0, case.p, True, False, case.start, case.correlations) == -1
    case.Z = mixed - mixed.mean(axis=0)
    l1 = 1e-4 * case.strongest()
    b, _, passes = solved(case, l1, 0.0, False, gap=1e-2)
    columns = np.flatnonzero(case.design.squares).astype(np.int32)
    slow, left = np.zeros(case.p), case.start.copy()
    for _ in range(3 * passes // 2):
        lasso.descend(case.design, columns, columns.size, l1, 0.0, False, slow, left)
    assert case.objective(slow, l1, 0.0) > case.objective(b, l1, 0.0) + 1e-7


@given(seed=st.integers(0, 10**6), positive=st.booleans(), l2=st.sampled_from([0.0, 2.5]), **MODES)
def test_bounds_spare_columns_and_hide_none(seed, positive, l2, **mode):
    """The strongest pull is exact wherever it matters, though fewer columns are multiplied than there are."""
    case = Case(seed=seed, **mode)
    l1 = 0.5 * case.strongest()
    candidates = np.arange(case.p, dtype=np.int32)
    correlations, seen = case.correlations.copy(), np.zeros(case.p)
    b, residual, travelled, computed = np.zeros(case.p), case.start.copy(), 0.0, 0
    for _ in range(4):
        before = residual.copy()
        chosen = candidates[case.random.random(case.p) < 0.2]
        lasso.descend(case.design, chosen, chosen.size, l1, l2, positive, b, residual)
        travelled += distance(case.design, residual, before)
        args = travelled, candidates, 0, case.p, b, l1, l2, positive, l1, correlations, seen
        largest, count = scan(case.design, residual, *args)
        computed += count
        slopes = case.Z.T @ case.shown(residual) - l2 * b
        slopes = slopes if positive else np.abs(slopes)
        assert largest == pytest.approx(max(slopes.max(), l1), rel=1e-6)
    assert computed < 4 * case.p


@given(seed=st.integers(0, 10**6), positive=st.booleans(), l2=st.sampled_from([0.0, 2.5]), **MODES)
def test_screening_is_safe(seed, positive, l2, **mode):
    """No column with a coefficient in the solution is discarded, and near the solution most others are."""
    case = Case(seed=seed, **mode)
    l1 = 0.4 * case.strongest()
    solution, _, _ = solved(case, l1, l2, positive)
    columns = np.arange(case.p, dtype=np.int32)
    for passes in (0, 2, 1000):
        b, residual, seen = np.zeros(case.p), case.start.copy(), np.zeros(case.p)
        live = np.flatnonzero(case.design.squares).astype(np.int32)
        for _ in range(passes):
            lasso.descend(case.design, live, live.size, l1, l2, positive, b, residual)
        correlations = case.Z.T @ case.shown(residual)
        slopes = correlations - l2 * b
        largest = float(max(slopes.max() if positive else np.abs(slopes).max(), 0))
        primal, dual, shrink = lasso.values(case.design, lasso.read_only(case.y), columns, b, residual, largest, l1, l2)
        left = columns.copy()
        radius = np.sqrt(2 * max(primal - dual, 0))
        args = b, l1, l2, positive, shrink, radius, correlations, seen
        count = screen(case.design, 0.0, left, case.p, *args)
        assert set(np.flatnonzero(solution)) <= set(left[:count])
    assert count <= np.count_nonzero(solution) + case.p // 4


@given(seed=st.integers(0, 10**6), limit=st.integers(5, 41), positive=st.booleans())
def test_the_working_set_is_what_is_nearest(seed, limit, positive):
    """All columns with a coefficient, then those that NumPy would sort first."""
    case = Case(("float64", False), seed, scaled=seed % 2 == 0)
    b = np.zeros(case.p)
    b[[1, 7, 9]] = 1, -2, 3
    candidates = case.random.permutation(case.p)[:40].astype(np.int32)
    candidates = np.concatenate([candidates, np.setdiff1d([1, 7, 9], candidates)]).astype(np.int32)
    limit = min(limit, candidates.size)
    l1, working = 0.5 * case.strongest(), np.empty(limit, np.int32)
    args = b, l1, 0.0, positive, 0.9, limit, case.correlations, np.zeros(case.p), np.empty(limit), working
    assert choose(case.design, 0.0, candidates, candidates.size, *args) == limit
    pulls = case.correlations if positive else np.abs(case.correlations)
    with np.errstate(divide="ignore"):
        distances = np.where(b != 0, -np.inf, (l1 - 0.9 * pulls) / np.sqrt(case.design.squares))
    assert np.unique(working).size == limit
    assert np.isin(working, candidates).all()
    assert np.array_equal(np.sort(distances[working]), np.sort(distances[candidates])[:limit])  # empty columns tie


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_names_its_column(kind, value):
    """Also where compilers may take numbers for finite."""
    dtype, is_sparse = kind
    X = np.ones((4, 6), dtype) + np.arange(4, dtype=dtype)[:, None]
    X[2, 4] = value
    design = make_design(_sparse(X) if is_sparse else Dense(np.ascontiguousarray(X.T)), UNWEIGHTED, 4)
    for centred in (False, True):
        assert measure(design, 0, 6, centred, False, np.ones(5), np.empty(6)) == 4
