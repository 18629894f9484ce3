"""The defaults of `MatrixFactorization`: errors on real ratings, and how L2 weights follow from numbers of ratings."""

import numpy as np
import pytest

from nbps.data import read_ratings
from nbps.models import MatrixFactorization

_SMALL = {"rank": 8, "epochs": 8, "workers": 2}


# On LIBMF's demonstration set, of three ratings a user, the best biases alone have 0.907.
@pytest.mark.parametrize(
    ("name", "optimizer", "limit"),
    [
        ("ml-1m", "adagrad", 0.839),
        ("ml-100k", "adagrad", 0.9195),
        ("ml-100k", "sgd", 0.92),
        ("filmtrust", "adagrad", 0.782),
        ("libmf-demo", "adagrad", 0.91),
    ],
)
def test_reference_results(shared_data, name, optimizer, limit):
    """The defaults reach the reference errors on real ratings with 2 workers, on small sets too."""
    if name == "ml-1m":
        train, test = read_ratings(shared_data / "ml-1m" / "ratings_notime.tsv.gz").split(0.1, seed=0)
    elif name == "filmtrust":
        train, test = read_ratings(shared_data / "filmtrust" / "ratings.txt").split(0.1, seed=0)
    elif name == "libmf-demo":
        train = read_ratings(shared_data / "libmf-demo" / "real_matrix.tr.txt")
        test = read_ratings(shared_data / "libmf-demo" / "real_matrix.te.txt")
    else:
        every = read_ratings(shared_data / "ml-100k" / "u.data.gz")
        held = read_ratings(shared_data / "ml-100k" / "u1.test")
        test, _ = held.recode(every.user_ids, every.item_ids)
        keys = test.users.astype(np.int64) * every.shape[1] + test.items
        train = every.take(~np.isin(every.users.astype(np.int64) * every.shape[1] + every.items, keys))
        assert (len(train), len(test)) == (80_000, 20_000)
    model = MatrixFactorization(rank=32, workers=2, optimizer=optimizer).fit(train, validation=test)
    assert model.history_[-1].validation_rmse <= limit


def test_regularization_governs_biases_too(data):
    """The more of it, the smaller the biases."""

    def size(regularization: float) -> float:
        model = MatrixFactorization(**_SMALL, regularization=regularization).fit(data[0])
        return float(np.abs(model.user_biases).mean() + np.abs(model.item_biases).mean())

    assert size(1.6) < 0.7 * size(0.16) < 0.7 * size(0.0)


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_much_regularization_never_diverges(data, optimizer):
    """It shrinks rows to nothing and never turns them round: the model is no worse than the mean."""
    train, _ = data
    model = MatrixFactorization(**_SMALL, optimizer=optimizer, regularization=1e6).fit(train)
    assert -model.score(train) < train.values.std()
    assert np.abs(model.user_factors).max() < 0.01


def test_partial_fit_knows_earlier_ratings(data):
    """A user with many ratings is not shrunk as one with few when one more comes, which says what is known already."""
    train, _ = data
    model = MatrixFactorization(**_SMALL | {"workers": 1}).fit(train)
    user, item = train.user_ids.decode(train.users[:1]), train.item_ids.decode(train.items[:1])
    before = np.linalg.norm(model.user_factors[train.users[0]])
    model.partial_fit(np.stack([user, item], axis=1), model.predict(np.stack([user, item], axis=1)), epochs=50)
    assert np.linalg.norm(model.user_factors[train.users[0]]) > 0.9 * before
