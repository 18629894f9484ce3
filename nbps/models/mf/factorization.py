"""`MatrixFactorization`: the estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.consistency import Consistency
from nbps.data import IdMap, Ratings
from nbps.errors import DataError
from nbps.models.estimator import Estimator
from nbps.models.file import ModelFormat, parameters_to_json
from nbps.models.mf.history import EpochRecord
from nbps.models.mf.inputs import as_ratings, as_validation, check_magnitude, check_trainable, pair_codes
from nbps.models.mf.plan import TrainingPlan
from nbps.models.mf.state import Factors, grown, initial_factors
from nbps.models.mf.training import FactorizationTrainer, warm_up
from nbps.models.phases import Phases

Callback = Callable[["MatrixFactorization", EpochRecord], object]


class MatrixFactorization(Estimator[Factors, EpochRecord]):
    """Ratings explained by biases and low-rank factors: ``mean + bias_u + bias_i + p_u . q_i``.

    Trained by stochastic gradient descent with L2 on worker processes that share the factors in memory. With the
    default schedule a fit gives the same bits for the same `random_state` and number of workers.

    Parameters
    ----------
    rank : int
        Number of factors.
    epochs : int
        Passes over the ratings. The step falls linearly over them, to a tenth.
    learning_rate : float, optional
        0.1 for ``adagrad``, 0.04 for ``sgd``; of ratings scaled to unit variance.
    regularization : float
        L2 weight, per rating, of a row with n of them: ``regularization * ((n + 1) ** -0.25 + (10 / n) ** 2)`` of its
        factors, ``regularization * 25 / n`` of its bias, up to where a step would turn a row round.
    optimizer : {"adagrad", "sgd"}
        Steps that adapt to each row, or the same step for all.
    schedule : {"rotate", "cached", "direct"}
        How workers share item rows. ``rotate``: each item block has one writer at a time, and the staleness bound
        keeps it so (fastest, deterministic). ``cached``: private copies that exchange deltas at clocks.
        ``direct``: all add to the shared rows without loss.
    consistency : BSP, SSP, ESSP, ASP, VAP, optional
        ``ESSP(2)`` by default. ``rotate`` needs a finite staleness, ``direct`` cannot be strict (`BSP`) or bounded by
        value (`VAP`).
    workers : int, optional
        Processes; all usable cores by default.
    random_state : int, None, RandomState or Generator
        Seed of initial factors and of the order of ratings. None takes another one for each fit, and a `RandomState` or
        `Generator` of NumPy is asked for one; with several nodes all must have the same.
    early_stopping : int, optional
        Stop when the error of `validation` has not improved for so many epochs, and keep the best epoch's factors. No
        part is held back for it by default: on ten sets that gained nothing and cost up to 2 %.
    callbacks : sequence of callable
        Called as ``callback(model, record)`` after each epoch; one that returns True stops the training. Where all have
        an attribute ``needs_model`` that is False, `model` is left as it was before, which saves a copy in each epoch.
    verbose : bool
        Print a line for each epoch.
    checkpoint : str or Path, optional
        A folder, or the URI of one, to save training in after each epoch. A `fit` with the same parameters, data and
        number of workers that finds a training there goes on from its last epoch; with ``rotate`` the model is the
        same, to the bit, as if training had not been cut off. All nodes must reach the same one.

    Attributes
    ----------
    user_factors, item_factors : float32[n, rank]
        In the order of `user_ids_` and `item_ids_`, in units in which predictions are ratings.
    user_biases, item_biases : float32[n]
    mean_ : float
    user_ids_, item_ids_ : nbps.data.IdMap
    history_ : list of EpochRecord
    best_epoch_ : int
        Of the factors kept: the last, or with `early_stopping` the best.
    train_seconds_ : float
        Sum of the epochs' training times.
    seconds_ : dict of str to float
        Where the time of the last training went: schedule, start, train, evaluate; empty in a model that was loaded.
    report_ : nbps.Report
        Clocks, waiting and measured staleness of the workers.

    Notes
    -----
    Gemulla et al., KDD 2011 (rotating blocks); Ho et al., NIPS 2013 (SSP); Duchi et al., JMLR 2011 (AdaGrad).

    Examples
    --------
    >>> from nbps.data import generate_ratings
    >>> from nbps.models import MatrixFactorization
    >>> train, test = generate_ratings(users=300, items=200, ratings=8_000, seed=0).split(0.1, seed=0)
    >>> model = MatrixFactorization(rank=8, epochs=5, workers=1).fit(train, validation=test)
    >>> items, scores = model.recommend(train.user_ids.ids[0].as_py(), n=3)
    >>> items.shape, scores.shape
    ((3,), (3,))
    """

    _FORMAT = ModelFormat("nbps matrix factorization", 2, readable=(1, 2))  # in 1 seen.arrow was sorted by user
    _STATE, _RECORD = Factors, EpochRecord

    def __init__(
        self,
        rank: int = 32,
        epochs: int = 20,
        learning_rate: float | None = None,
        regularization: float = 0.16,
        optimizer: str = "adagrad",
        schedule: str = "rotate",
        consistency: Consistency | None = None,
        workers: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        early_stopping: int | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.rank = rank
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.optimizer = optimizer
        self.schedule = schedule
        self.consistency = consistency
        self.workers = workers
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.callbacks = callbacks
        self.verbose = verbose
        self.checkpoint = checkpoint

    # ----------------------------------------------------------------------- training

    def fit(self, ratings: Any, y: npt.ArrayLike | None = None, validation: Any = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        ratings : Ratings, data frame, scipy sparse matrix, or array_like of shape (n, 2)
            Ratings; a pandas or Polars frame or an Arrow table, see `Ratings.from_arrow`; a users x items matrix whose
            stored entries are ratings; or pairs of ids, as an array or frame of two columns, with `y`.
        y : array_like, shape (n,)
            Ratings of the pairs.
        validation : Ratings, data frame, scipy sparse matrix, or (pairs, y), optional
            Measured after each epoch. Ratings of unknown users or items are left out; those that are also in `ratings`
            are not.

        Returns
        -------
        self

        Raises
        ------
        ConfigError
            If a parameter cannot be used, or `y` with these ratings, or there is `early_stopping` without `validation`;
            the model is unchanged.
        DataError
            If there are too few users or items, ratings that float32 cannot tell apart, training diverges, or
            `validation` has only unknown users or items.
        OutOfMemoryError
            If the memory does not hold what training needs.
        """
        plan = TrainingPlan.of(self.get_params())
        plan.check_validation(validation)
        warm_up(plan)
        phases = Phases()
        with phases("schedule"):
            data = as_ratings(ratings, y)
            check_trainable(data)
            trainer = self._trainer(plan, initial_factors(data, plan), data, validation, phases)
            if plan.checkpoint is not None:
                trainer.save_to(plan.checkpoint, parameters_to_json(self.get_params()))
        self._run(trainer, plan.steps)
        return self

    def warm_up(self) -> Self:
        """Start in the background what the first `fit` of this process waits for half a second; returns at once.

        Call it before reading the ratings. `fit` alone does as much while it prepares them.
        """
        warm_up(TrainingPlan.of({**self.get_params(), "random_state": 0}))  # a generator is asked once a fit
        return self

    def partial_fit(self, ratings: Any, y: npt.ArrayLike | None = None, epochs: int = 1) -> Self:
        """Train on more ratings from where the model stands; users and items that are new are added.

        The step is the one `fit` ends with. `ratings` and `y` as in `fit`; on a model that is not fitted this is `fit`.
        """
        whole("partial_fit: epochs", epochs, 1)
        if not self.__sklearn_is_fitted__():
            return self.fit(ratings, y)
        plan = TrainingPlan.of({**self.get_params(), "checkpoint": None})  # only `fit` can go on
        phases = Phases()
        with phases("schedule"):
            data = as_ratings(ratings, y)
            if not len(data):
                raise DataError("partial_fit: expected at least one rating, found none")
            check_magnitude(data)
            trainer = self._trainer(plan, *grown(self._state, data, plan), None, phases)
        self._run(trainer, [plan.last_step] * epochs, self.history_)
        return self

    def _trainer(
        self, plan: TrainingPlan, factors: Factors, data: Ratings, validation: Any, phases: Phases
    ) -> FactorizationTrainer:
        test = None if validation is None else as_validation(validation, factors.user_ids, factors.item_ids)
        return FactorizationTrainer(plan, factors, data, test, self._is_watched, phases)

    # ----------------------------------------------------------------------- what training gave

    @property
    def user_factors(self) -> npt.NDArray[np.float32]:
        """Factors of the users, float32[users, rank]."""
        return self._fitted().user_factors

    @property
    def item_factors(self) -> npt.NDArray[np.float32]:
        """Factors of the items, float32[items, rank]."""
        return self._fitted().item_factors

    @property
    def user_biases(self) -> npt.NDArray[np.float32]:
        """Biases of the users, float32[users]."""
        return self._fitted().user_biases

    @property
    def item_biases(self) -> npt.NDArray[np.float32]:
        """Biases of the items, float32[items]."""
        return self._fitted().item_biases

    @property
    def mean_(self) -> float:
        """Mean of the ratings of the first fit."""
        return self._fitted().mean

    @property
    def user_ids_(self) -> IdMap:
        """Ids of the users, in the order of their factors."""
        return self._fitted().user_ids

    @property
    def item_ids_(self) -> IdMap:
        """Ids of the items, in the order of their factors."""
        return self._fitted().item_ids

    def predict(self, ratings: Any) -> npt.NDArray[np.float32]:
        """Predict ratings.

        Parameters
        ----------
        ratings : Ratings, data frame or array_like of shape (n, 2)
            Pairs of user and item ids. One that is unknown has bias 0 and no factors: the other's bias and the mean
            remain.

        Returns
        -------
        float32[n]
        """
        factors = self._fitted()
        return factors.predict(*pair_codes(ratings, factors.user_ids, factors.item_ids))

    def score(self, ratings: Any, y: npt.ArrayLike | None = None) -> float:
        """Return minus the RMSE on `ratings` (as in `fit`): greater is better, as scikit-learn wants it."""
        data = as_ratings(ratings, y)
        errors = data.values.astype(np.float64) - self.predict(data)
        return -math.sqrt(float(np.mean(errors * errors)))

    def recommend(self, user: Any, n: int = 10, filter_seen: bool = True) -> Any:
        """Return the items with the highest predicted ratings.

        Parameters
        ----------
        user : id, or sequence of ids
        n : int
            How many; fewer come if there are not so many left.
        filter_seen : bool
            Leave out items that the user rated in training.

        Returns
        -------
        (items, scores) : pair of ndarray, shape (n,)
            Ids and predicted ratings, best first; for a sequence of users a list of such pairs.

        Raises
        ------
        ConfigError
            If a user is unknown; nothing is known to recommend from.
        """
        factors = self._fitted()
        whole("recommend: n", n, 1)
        several = not isinstance(user, (str, bytes)) and np.ndim(user) == 1
        codes = factors.user_ids.encode(np.asarray(user) if several else [user])
        seen = factors.seen_by(codes) if filter_seen else [codes[:0]] * codes.size
        pairs = []
        for code, without in zip(codes, seen, strict=True):
            best, scores = factors.best_items(int(code), n, without)
            pairs.append((factors.item_ids.decode(best), scores))
        return pairs if several else pairs[0]

    def similar_items(self, item: Any, n: int = 10) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Return the items whose factors point most nearly the same way as those of `item`, without itself.

        Returns
        -------
        items, similarities : ndarray, shape (n,)
            Ids and cosines, best first.

        Raises
        ------
        ConfigError
            If the item is unknown.
        """
        factors = self._fitted()
        whole("similar_items: n", n, 1)
        (code,) = factors.item_ids.encode([item])
        best, cosines = factors.nearest_items(int(code), n)
        return factors.item_ids.decode(best), cosines
