"""`MatrixFactorization` as a user meets it: results, habits of scikit-learn, files, errors."""

import numpy as np
import pytest

import nbps
from nbps.data import Ratings, arrays
from nbps.errors import ConfigError, DataError
from nbps.models import MatrixFactorization
from nbps.models.mf import training

_SMALL = {"rank": 8, "epochs": 8, "workers": 2}


def _rmse_of_biases(train: Ratings, test: Ratings) -> float:
    """Test error of the best that needs no factors: alternating damped biases."""
    user, item = np.zeros(train.shape[0]), np.zeros(train.shape[1])
    mean = train.values.mean(dtype=float)
    for _ in range(10):
        for own, codes, other, others in (
            (item, train.items, user, train.users),
            (user, train.users, item, train.items),
        ):
            rest = train.values - mean - other[others]
            counts = np.bincount(codes, minlength=own.size)
            own[:] = np.bincount(codes, rest, minlength=own.size) / (counts + 3)
    errors = test.values - mean - user[test.users] - item[test.items]
    return float(np.sqrt(np.mean(errors**2)))


@pytest.mark.parametrize(
    ("schedule", "consistency"),
    [
        ("rotate", nbps.BSP()),
        ("rotate", nbps.SSP(1)),
        ("rotate", nbps.ESSP(2)),
        ("cached", nbps.BSP()),
        ("cached", nbps.SSP(1)),
        ("cached", nbps.ESSP(2)),
        ("cached", nbps.VAP(1.0)),
        ("direct", nbps.SSP(0)),
        ("direct", nbps.ESSP(2)),
    ],
    ids=str,
)
def test_factors_beat_biases(data, schedule, consistency):
    """Every schedule under every bounded model predicts held-out ratings better than biases alone."""
    train, test = data
    model = MatrixFactorization(**_SMALL | {"epochs": 15}, schedule=schedule, consistency=consistency)
    model.fit(train, validation=test)
    assert model.history_[-1].validation_rmse < _rmse_of_biases(train, test)
    assert model.history_[-1].validation_rmse == pytest.approx(-model.score(test), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_rotation_gives_the_same_bits(data, optimizer):
    """Two fits with rotating blocks are bit-identical, at any staleness, whatever the timing."""
    first, second = (
        MatrixFactorization(**_SMALL | {"workers": 3}, optimizer=optimizer, consistency=nbps.SSP(3)).fit(data[0])
        for _ in range(2)
    )
    assert np.array_equal(first.user_factors, second.user_factors)
    assert np.array_equal(first.item_factors, second.item_factors)
    other = MatrixFactorization(**_SMALL | {"workers": 3}, optimizer=optimizer, random_state=1).fit(data[0])
    assert not np.array_equal(first.item_factors, other.item_factors)


def test_parts_in_which_ratings_pass_by_do_not_matter(data, fitted, monkeypatch):
    """Factors, biases and errors have the same bits, however few ratings the driver and the workers take at a time."""
    monkeypatch.setattr(training, "_PART", 1_000)
    monkeypatch.setattr(training, "_ROWS_PART", 7)
    model = MatrixFactorization(**_SMALL).fit(data[0], validation=data[1])
    assert np.array_equal(model.user_factors, fitted.user_factors)
    assert np.array_equal(model.item_biases, fitted.item_biases)
    assert [one.validation_rmse for one in model.history_] == [one.validation_rmse for one in fitted.history_]
    monkeypatch.setattr(arrays, "_PART", 1_000)
    model.fit(data[0], validation=data[1])  # of which mean and deviation may differ in the last of 53 bits
    np.testing.assert_allclose(model.user_factors, fitted.user_factors, rtol=1e-5, atol=1e-6)
    assert model.mean_ == fitted.mean_


def test_the_seconds_of_a_fit_are_told(data):
    """By phase; those of training are what the records of the epochs say."""
    model = MatrixFactorization(**_SMALL | {"epochs": 2}).fit(data[0], validation=data[1])
    assert list(model.seconds_) == ["schedule", "start", "train", "evaluate"]
    assert model.seconds_["train"] == pytest.approx(model.train_seconds_)
    assert "evaluate" not in model.fit(data[0]).seconds_


@pytest.mark.parametrize("schedule", ["rotate", "cached", "direct"])
def test_more_workers_than_users(schedule):
    """Those that have none take part without ratings; the model is no worse for it."""
    users, items = np.divmod(np.arange(21), 7)
    train = Ratings.from_columns(users, items, users + items % 2)
    model = MatrixFactorization(rank=2, epochs=30, workers=5, schedule=schedule).fit(train, validation=train)
    assert [worker["clocks"] for worker in model.report_.to_dict()["workers"]] == [30 * 15] * 5
    assert model.history_[-1].validation_rmse < 0.5 * train.values.std()


def test_staleness_beyond_any_use_costs_nothing(data):
    """A huge bound trains as a moderate one does: a tighter bound keeps the looser one too."""
    model = MatrixFactorization(**_SMALL, consistency=nbps.ESSP(10**9)).fit(data[0])
    assert model.report_.consistency == "ESSP(staleness=15)"


def test_measured_staleness_is_within_the_bound(data):
    """The report of a fit has every worker's clocks and differentials between -s and 0."""
    model = MatrixFactorization(**_SMALL, consistency=nbps.ESSP(1)).fit(data[0])
    report = model.report_.to_dict()
    assert [worker["clocks"] for worker in report["workers"]] == [8 * 6, 8 * 6]
    assert set(report["clock_differential"]["counts"]) <= {"0", "-1"}


def test_attributes_are_in_units_of_ratings(data, fitted):
    """``mean + biases + factors`` from the public attributes is what predict returns."""
    train, _ = data
    users, items = train.users[:500], train.items[:500]
    product = np.einsum("nk,nk->n", fitted.user_factors[users], fitted.item_factors[items])
    expected = fitted.mean_ + fitted.user_biases[users] + fitted.item_biases[items] + product
    np.testing.assert_allclose(fitted.predict(train.take(np.arange(500))), expected, rtol=1e-5)
    pairs = np.stack([fitted.user_ids_.decode(users), fitted.item_ids_.decode(items)], axis=1)
    np.testing.assert_allclose(fitted.predict(pairs), expected, rtol=1e-5)
    assert fitted.user_factors.shape == (train.shape[0], 8)


def test_unknown_ids_fall_back_to_what_is_known(fitted):
    """An unknown user and item give the mean; one known side adds its bias."""
    user, item = fitted.user_ids_.decode([0])[0], fitted.item_ids_.decode([0])[0]
    found = fitted.predict([[-5, -5], [user, -5], [-5, item]])
    bias_u, bias_i = fitted.user_biases[0], fitted.item_biases[0]
    np.testing.assert_allclose(found - fitted.mean_, [0, bias_u, bias_i], atol=1e-5)


def test_recommend_ranks_what_predict_says(data, fitted):
    """Recommendations are the highest predictions among items not seen, best first."""
    train, _ = data
    user = train.user_ids.decode([7])[0]
    items, scores = fitted.recommend(user, n=20)
    every = train.item_ids.decode(np.arange(train.shape[1]))
    predicted = fitted.predict(np.stack([np.full(every.size, user), every], axis=1))
    seen = train.items[train.users == 7]
    unseen = np.delete(np.arange(every.size), seen)
    best = unseen[np.argsort(-predicted[unseen], kind="stable")[:20]]
    assert items.tolist() == every[best].tolist()
    np.testing.assert_allclose(scores, predicted[best], rtol=1e-5)
    assert set(fitted.recommend(user, n=300, filter_seen=False)[0]) == set(every)
    several = fitted.recommend([user, train.user_ids.decode([8])[0]], n=20)
    assert len(several) == 2
    assert several[0][0].tolist() == items.tolist()


def test_recommendations_for_many_users_are_those_for_each(fitted, data):
    """Many users' ratings are sorted once, a few users' looked for; also where they are in no order."""
    users = data[0].user_ids.decode(np.arange(40))
    together = fitted.recommend(users, n=5)
    for user, (items, scores) in zip(users, together, strict=True):
        alone = fitted.recommend(user, n=5)
        assert items.tolist() == alone[0].tolist()
        assert scores.tolist() == alone[1].tolist()
    assert len(fitted.recommend(users, n=300, filter_seen=False)[0][0]) == 300


def test_similar_items_are_by_cosine(fitted):
    """Similar items have the highest cosine and do not include the item itself."""
    item = fitted.item_ids_.decode([3])[0]
    items, cosines = fitted.similar_items(item, n=5)
    unit = fitted.item_factors / np.linalg.norm(fitted.item_factors, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[3]))[1:6]
    assert items.tolist() == fitted.item_ids_.decode(expected).tolist()
    assert (np.diff(cosines) <= 0).all()


def test_early_stopping_keeps_the_best_epoch(data):
    """With a step too large the error rises in the end; the factors kept are those of the best epoch."""
    train, test = data
    model = MatrixFactorization(rank=32, epochs=60, workers=2, regularization=0.0, early_stopping=3)
    model.fit(train, validation=test)
    errors = [record.validation_rmse for record in model.history_]
    assert model.best_epoch_ == int(np.argmin(errors)) + 1
    assert len(errors) == model.best_epoch_ + 3
    assert -model.score(test) == pytest.approx(min(errors), rel=1e-5)


def test_early_stopping_without_validation_is_refused(data):
    """It would be ignored; what may go on without one is `partial_fit`, whose epochs are told."""
    train, test = data
    model = MatrixFactorization(**_SMALL, early_stopping=3)
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(ConfigError, match=r"early_stopping is 3, but .* expected fit\(\.\.\., validation=\.\.\.\)"):
            fit(train)
    model.fit(train, validation=test)
    epochs = len(model.history_)
    assert len(model.partial_fit(train).history_) == epochs + 1


def test_callbacks_see_the_model_and_may_stop(data, tmp_path):
    """A callback gets the model as of its epoch and each record; returning True ends the training."""
    train, test = data
    seen = []

    def stop_at_three(model, record):
        seen.append((record.epoch, -model.score(test), record.validation_rmse))
        model.save(tmp_path / "checkpoint")
        return record.epoch == 3

    model = MatrixFactorization(**_SMALL, callbacks=[stop_at_three]).fit(train, validation=test)
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3]
    assert all(score == pytest.approx(error, rel=1e-5) for _, score, error in seen)
    assert len(model.history_) == 3
    assert model.train_seconds_ == pytest.approx(sum(record.seconds for record in model.history_))


def test_a_callback_that_needs_no_model_sees_none(data):
    """The model it gets is as before the fit; with another one beside it both get that of the epoch."""
    seen = []

    def watch(model, record):
        seen.append(hasattr(model, "history_") and len(model.history_))

    def look(model, record):
        seen.append(len(model.history_))

    watch.needs_model = False
    model = MatrixFactorization(**_SMALL | {"epochs": 2}, callbacks=[watch]).fit(data[0])
    assert seen == [False, False]
    seen.clear()
    model.set_params(callbacks=[watch, look]).fit(data[0])
    assert seen == [1, 1, 2, 2]


def test_partial_fit_goes_on_and_adds_ids(data):
    """More ratings improve the model; ids that are new get rows, old ids keep theirs."""
    train, test = data
    half = train.take(train.users < 300)
    model = MatrixFactorization(**_SMALL).fit(
        Ratings.from_columns(half.user_ids.decode(half.users), half.item_ids.decode(half.items), half.values)
    )
    assert len(model.user_ids_) < train.shape[0]
    before = -model.score(test)
    model.partial_fit(train, epochs=8)
    assert len(model.user_ids_) == train.shape[0]
    assert -model.score(test) < before
    assert [record.epoch for record in model.history_] == list(range(1, 17))
    user = train.user_ids.decode([500])[0]
    seen = set(train.item_ids.decode(train.items[train.users == 500]))
    assert not seen & set(model.recommend(user, n=50)[0])
    with pytest.raises(DataError, match="partial_fit: expected at least one rating"):
        model.partial_fit(train.take(train.users < 0))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"epochs": -1}, "epochs is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"regularization": float("nan")}, "regularization is nan"),
        ({"optimizer": "adam"}, "expected one of adagrad, sgd"),
        ({"schedule": "auto"}, "expected one of rotate, cached, direct"),
        ({"consistency": "essp"}, "expected BSP"),
        ({"consistency": nbps.ASP()}, "a block has one writer only under a staleness bound"),
        ({"consistency": nbps.VAP(1)}, r"schedule='rotate' with VAP\(v0=1.0\): a block has one writer only"),
        ({"consistency": nbps.BSP(), "schedule": "direct"}, "show updates of the running clock; expected SSP"),
        ({"consistency": nbps.VAP(1), "schedule": "direct"}, "seen at once, .* expected schedule='cached', or ASP"),
        ({"early_stopping": 0}, "early_stopping is 0"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": "zero"}, "random_state is 'zero'; .* None, or a RandomState or Generator"),
        ({"callbacks": print}, r"callbacks=\[f\]"),
        ({"learning_rate": 1e9}, "training diverged"),
    ],
)
def test_bad_parameters_are_named(data, parameters, message):
    """Each parameter that cannot be used is named, with what is expected; nothing is fitted."""
    model = MatrixFactorization(**_SMALL | parameters)
    with pytest.raises((ConfigError, DataError), match=message):
        model.fit(data[0])
    assert not hasattr(model, "history_")


def test_random_state_is_that_of_scikit_learn(data, tmp_path):
    """A number, a `RandomState` or `Generator` that goes on, or None for another one each time."""

    def factors(random_state):
        model = MatrixFactorization(**_SMALL | {"workers": 1, "epochs": 1}, random_state=random_state)
        return model.fit(data[0]).item_factors

    for source in (np.random.RandomState, np.random.default_rng):
        random = source(3)
        first, second = factors(random), factors(random)
        assert np.array_equal(first, factors(source(3)))
        assert not np.array_equal(first, second)
        model = MatrixFactorization(**_SMALL | {"workers": 1, "epochs": 1}, random_state=source(3))
        assert np.array_equal(model.warm_up().fit(data[0]).item_factors, first)
    assert not np.array_equal(factors(None), factors(None))
    assert np.array_equal(factors(np.int64(5)), factors(5))
    model = MatrixFactorization(**_SMALL, random_state=np.random.default_rng(1)).fit(data[0])
    model.save(tmp_path)
    assert MatrixFactorization.load(tmp_path).random_state is None


def test_parameters_are_those_of_scikit_learn():
    """get_params, set_params and repr follow the constructor."""
    model = MatrixFactorization(rank=7)
    assert MatrixFactorization(**model.get_params()).get_params() == model.get_params()
    assert model.set_params(rank=9, epochs=3).rank == 9
    assert repr(model) == "MatrixFactorization(rank=9, epochs=3)"
    with pytest.raises(ConfigError, match="unknown parameter 'factors'"):
        model.set_params(factors=3, rank=1)
    assert model.rank == 9


@pytest.mark.parametrize(("rank", "workers"), [(1, 1), (5, 4), (33, 3)])
def test_odd_shapes(rank, workers):
    """Any rank and more workers than users or cores work."""
    ratings = Ratings.from_columns([1, 1, 2, 2], [1, 2, 1, 2], [5, 1, 1, 5])
    model = MatrixFactorization(rank=rank, workers=workers, epochs=2).fit(ratings)
    assert np.isfinite(model.predict(ratings)).all()


@pytest.mark.slow
def test_scikit_learn_can_search(data):
    """Cloning, cross-validation and grid search of scikit-learn work."""
    base = pytest.importorskip("sklearn.base")
    selection = pytest.importorskip("sklearn.model_selection")
    train, _ = data
    pairs = np.stack([train.users, train.items], axis=1)[:6_000]
    model = MatrixFactorization(rank=4, epochs=3, workers=1)
    assert base.is_regressor(model)
    assert base.clone(model).get_params() == model.get_params()
    search = selection.GridSearchCV(model, {"rank": [2, 4]}, cv=2).fit(pairs, train.values[:6_000])
    assert search.best_params_["rank"] in (2, 4)
    assert -2 < search.best_score_ < 0


def test_what_may_stand_for_several_users(data, fitted):
    """Any one-dimensional sequence of ids gives a list of pairs."""
    ids = data[0].user_ids.decode([0, 1, 2])
    for users in (ids, ids.tolist(), tuple(ids.tolist()), range(int(ids[0]), int(ids[0]) + 1)):
        assert fitted.recommend(users, n=2)[0][0].tolist() == fitted.recommend(ids[0], n=2)[0].tolist()
