"""What `MatrixFactorization` is trained on and asked about: every form that ratings may have, and what is refused."""

import copy

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nbps
from nbps.data import Ratings
from nbps.errors import ConfigError, DataError, NotFittedError
from nbps.models import MatrixFactorization
from nbps.models.mf import inputs

_SMALL = {"rank": 8, "epochs": 8, "workers": 2}


def test_bad_data_is_refused(data, fitted):
    """One user, one item, pairs without ratings, unknown users: each says so."""
    train, _ = data
    with pytest.raises(DataError, match=r"found 1 user\(s\)"):
        MatrixFactorization(workers=1).fit(train.take(train.users == 0))
    with pytest.raises(DataError, match=r"1 item\(s\)"):
        MatrixFactorization(workers=1).fit(train.take(train.items == 0))
    with pytest.raises(ConfigError, match="together with y"):
        MatrixFactorization(workers=1).fit([[1, 2], [3, 4]])
    with pytest.raises(ConfigError, match="shape"):
        MatrixFactorization(workers=1).fit([1, 2, 3], [1, 2, 3])
    with pytest.raises(nbps.Error, match="-77"):
        fitted.recommend(-77)
    with pytest.raises(nbps.Error, match="-77"):
        fitted.similar_items(-77)
    with pytest.raises(ConfigError, match="n is 0"):
        fitted.recommend(fitted.user_ids_.decode([0])[0], n=0)
    with pytest.raises(NotFittedError, match="call fit"):
        MatrixFactorization().predict([[1, 2]])


def test_test_ratings_in_the_place_of_y_are_refused(data, fitted):
    """They would be ignored: `y` goes with pairs only, and holds numbers only; validation= is what was meant."""
    train, test = data
    frame, held_out = train.to_arrow(), test.to_arrow()
    model = MatrixFactorization(**_SMALL)
    for call in (model.fit, model.partial_fit, fitted.score):
        for ratings, y in ((train, test), (train, train.values)):
            with pytest.raises(ConfigError, match=r"y is not used with Ratings, .* did you mean validation=\?"):
                call(ratings, y)
        for y in (held_out, test):
            with pytest.raises(ConfigError, match=rf"found {type(y).__name__}; did you mean validation=\?"):
                call(frame, y)


def test_a_validation_set_of_unknown_ids_is_refused(data):
    """Nothing would be measured, and `early_stopping` would watch nothing; one rating that is known is enough."""
    train, test = data
    unknown = Ratings.from_columns([10**9, 10**9 + 1], [1, 2], [3, 4])
    model = MatrixFactorization(**_SMALL, early_stopping=2)
    for validation, count in ((unknown, 2), (test.take(np.zeros(len(test), bool)), 0)):
        with pytest.raises(DataError, match=f"validation: expected ratings .* found none among {count}"):
            model.fit(train, validation=validation)
    assert model.fit(train, validation=test.take([0])).history_[0].validation_rmse is not None


def test_the_name_of_a_file_is_refused(fitted, tmp_path):
    """The error says what reads it."""
    for name in ("ratings.csv", tmp_path / "ratings.csv"):
        for call in (fitted.fit, fitted.score):
            with pytest.raises(ConfigError, match=r"name of a file.*nbps\.data\.read_ratings\('.*ratings\.csv'\)"):
                call(name)


def test_pairs_and_sparse_matrices_are_ratings_too(data):
    """Pairs with y, and anything with scipy's ``tocoo``, train the same model as `Ratings`."""

    class Coo:
        """What is used of a scipy sparse matrix."""

        def __init__(self, ratings: Ratings) -> None:
            self.row, self.col, self.data = ratings.users, ratings.items, ratings.values
            self.shape = ratings.shape

        def tocoo(self):
            return self

    train, _ = data
    coded = Ratings.from_columns(train.users, train.items, train.values)
    pairs = np.stack([train.users, train.items], axis=1)
    models = [
        MatrixFactorization(**_SMALL).fit(coded),
        MatrixFactorization(**_SMALL).fit(pairs, train.values),
        MatrixFactorization(**_SMALL).fit(Coo(train)),
    ]
    assert np.array_equal(models[0].item_factors, models[1].item_factors)
    assert models[2].item_factors.shape == (train.shape[1], 8)


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars"])
def test_frames_are_ratings_too(data, library):
    """Three columns train and validate as `Ratings` do, two with y as well; both are predicted and scored."""
    module = pytest.importorskip(library)
    make = {"pyarrow": "table"}.get(library, "DataFrame")
    train, test = data
    frame, held_out = (getattr(module, make)(part.to_arrow().to_pydict()) for part in data)
    pairs = getattr(module, make)(train.to_arrow().drop_columns(["rating"]).to_pydict())
    options = _SMALL | {"workers": 1, "epochs": 3}
    expected = MatrixFactorization(**options).fit(Ratings.from_arrow(train.to_arrow()), validation=test)
    for model in (
        MatrixFactorization(**options).fit(frame, validation=held_out),
        MatrixFactorization(**options).fit(pairs, train.values, validation=test),
    ):
        assert np.array_equal(model.item_factors, expected.item_factors)
        assert model.history_[-1].validation_rmse == expected.history_[-1].validation_rmse
        assert np.array_equal(model.predict(pairs), expected.predict(train))
        assert np.array_equal(model.predict(frame), expected.predict(train))
        assert model.score(held_out) == expected.score(test)


def test_frames_that_lack_a_column_are_refused(fitted):
    """Pairs without ratings, and frames without the columns that are wanted."""
    table = pa.table({"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8]})
    with pytest.raises(DataError, match=r"expected the user column.*Ratings\.from_arrow\(frame, columns=\(user, item"):
        MatrixFactorization(**_SMALL).fit(table)
    with pytest.raises(DataError, match=r"expected the user column.*Ratings\.from_pandas\(frame, columns=\(user, item"):
        MatrixFactorization(**_SMALL).fit(pytest.importorskip("pandas").DataFrame(table.to_pydict()))
    with pytest.raises(DataError, match="no rating column"):
        MatrixFactorization(**_SMALL).fit(table.select(["a", "b"]))
    with pytest.raises(DataError, match="expected columns of users and items, found the columns 'a', 'b', 'c', 'd'"):
        fitted.predict(table)


floats = st.floats(-(2.0**60), 2.0**60, width=32)


@example([0.0, 0.0, 1045556101120.0, 1e-40])  # which is 0 in the steps of the third
@given(st.lists(floats | st.sampled_from([1.0, 1.5, 5.0, 1e-40, 1 + 2.0**-23]), min_size=1, max_size=8))
def test_ratings_on_a_grid_are_told_apart(values):
    """What is accepted without looking for medians is what these accept."""
    ratings = np.array(values, np.float32)
    distances = np.abs(ratings - np.median(ratings))
    far = distances.max() * np.finfo(np.float32).eps
    if inputs._on_grid(ratings):
        assert distances.max() == 0 or far <= np.median(distances[distances > 0])


def test_stars_are_on_a_grid():
    """Also half ones, and with an odd one far from them; not where it is too far, or ratings are any numbers."""
    assert inputs._on_grid(np.array([0.5, 5.0, 3.5, 1000.0], np.float32))
    assert not inputs._on_grid(np.array([0.5, 5.0, 1e9], np.float32))
    assert not inputs._on_grid(np.array([0.1, 5.0], np.float32))


def test_ratings_that_float32_cannot_train_are_refused(data, fitted):
    """One that makes all others equal, or overflows, is named; the same scale for all is no matter."""
    train, _ = data
    row = 77
    user, item = train.user_ids.decode(train.users[row]), train.item_ids.decode(train.items[row])
    for value, words in (
        (1e30, "expected at most 1e\\+18 in size"),
        (1e9, "cannot tell the others apart, half of which"),
    ):
        values = train.values.copy()
        values[row] = value
        damaged = Ratings(train.users, train.items, values, train.user_ids, train.item_ids)
        message = rf"the rating of item {item[0]} by user {user[0]} \(row 78\) is {value:g}".replace("+", r"\+")
        with pytest.raises(DataError, match=f"{message}.*{words}"):
            MatrixFactorization(**_SMALL).fit(damaged)
        if value > 1e18:
            with pytest.raises(DataError, match=message):
                MatrixFactorization(**_SMALL).fit(train, validation=damaged)
            with pytest.raises(DataError, match=message):
                copy.copy(fitted).partial_fit(damaged)
    large = Ratings(train.users, train.items, train.values * np.float32(1e15), train.user_ids, train.item_ids)
    options = _SMALL | {"epochs": 2}
    scaled = MatrixFactorization(**options).fit(large).score(large) / 1e15
    assert scaled == pytest.approx(MatrixFactorization(**options).fit(train).score(train), rel=1e-3)
