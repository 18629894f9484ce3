"""Data and a model that the tests of models share."""

import pytest

from nbps.data import generate_ratings
from nbps.models import MatrixFactorization


@pytest.fixture(scope="session")
def data():
    """Train and test part of a small generated set."""
    return generate_ratings(users=600, items=300, ratings=30_000, seed=1).split(0.1, seed=0)


@pytest.fixture(scope="session")
def fitted(data):
    """Return a model trained on it."""
    return MatrixFactorization(rank=8, epochs=8, workers=2).fit(data[0], validation=data[1])
