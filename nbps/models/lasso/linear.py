"""What all linear models answer once they are fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.data.features.features import Features
from nbps.errors import ConfigError, DataError
from nbps.models.estimator import Estimator
from nbps.models.file import ModelFormat
from nbps.models.lasso.history import Round
from nbps.models.lasso.inputs import as_features, as_target, as_weights
from nbps.models.lasso.state import LinearState

Floats = npt.NDArray[np.float64]


class LinearModel(Estimator[LinearState, Round]):
    """Predictions ``X @ coef_ + intercept_``.

    Attributes
    ----------
    coef_ : float64[p]
    intercept_ : float
    dual_gap_ : float
        How far the objective is above its least value at most.
    n_iter_ : int
        Passes over the columns of a working set, or over all.
    n_features_in_ : int
    feature_names_in_ : object[p]
        Where it was fitted to a frame.
    """

    _FORMAT = ModelFormat("nbps linear model")
    _STATE, _RECORD = LinearState, Round

    early_stopping = None  # the duality gap says when to stop

    @property
    def coef_(self) -> Floats:
        """Coefficients of the columns."""
        return self._fitted().coefficients

    @property
    def intercept_(self) -> float:
        """Prediction where all columns are 0."""
        return self._fitted().intercept

    @property
    def dual_gap_(self) -> float:
        """How far the objective is above its least value at most."""
        return self._fitted().gap

    @property
    def n_iter_(self) -> int:
        """Passes that training took."""
        return self._fitted().passes

    @property
    def n_features_in_(self) -> int:
        """Number of columns."""
        return self.coef_.size

    @property
    def feature_names_in_(self) -> npt.NDArray[Any]:
        """Names of the columns."""
        names = self._fitted().names
        if names is None:
            raise AttributeError(f"this {type(self).__name__} was fitted to columns without names")
        return np.array(names, object)

    def predict(self, X: Any) -> Floats:
        """Predict the target.

        Parameters
        ----------
        X : array_like, frame or sparse matrix, shape (n, p)

        Returns
        -------
        float64[n]

        Raises
        ------
        ConfigError
            If it has other columns than the model was fitted to.
        DataError
            If a number that is needed is not finite.
        """
        state, features = self._fitted(), as_features(X)
        if features.shape[1] != state.coefficients.size:
            raise ConfigError(
                f"X has {features.shape[1]} columns; this {type(self).__name__} was fitted to {state.coefficients.size}"
            )
        if None not in (features.names, state.names) and features.names != state.names:
            assert features.names is not None
            assert state.names is not None
            pairs = zip(features.names, state.names, strict=True)
            column, (found, expected) = next((k, pair) for k, pair in enumerate(pairs) if pair[0] != pair[1])
            raise ConfigError(
                f"X: column {column} is {found!r}; this {type(self).__name__} was fitted to {expected!r} there. Bring "
                f"the columns into the order of feature_names_in_"
            )
        return features.predict(state.coefficients, state.intercept)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of the target's variance that predictions explain, R²; 1 is perfect, 0 is its mean."""
        predicted = self.predict(X)
        target, weights = as_target(y, predicted.size), as_weights(sample_weight, predicted.size)
        left = np.average((target - predicted) ** 2, weights=weights)
        whole = np.average((target - np.average(target, weights=weights)) ** 2, weights=weights)
        if whole == 0:
            return float(left == 0)
        return float(1 - left / whole)

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Read a model that `save` of this class wrote.

        Raises
        ------
        DataError
            If there is none, it is of another kind, or damaged.
        """
        return super().load(path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required, tags.input_tags.string = True, False
        return tags


def read_data(X: Any, y: Any, sample_weight: Any, fit_intercept: bool) -> tuple[Features, Floats, Floats | None]:
    """Return data, target and weights as `Solver` takes them.

    Raises
    ------
    ConfigError, DataError
        If they cannot be trained on.
    """
    features = as_features(X)
    target, weights = as_target(y, features.shape[0]), as_weights(sample_weight, features.shape[0])
    counted = target if weights is None else target[weights > 0]
    if np.abs(counted).max() > 1e150:
        raise DataError(f"y: the squares of {counted[np.abs(counted).argmax()]:g} overflow float64; divide it")
    if np.ptp(counted) == 0 and (fit_intercept or counted[0] == 0):
        raise DataError(
            f"y: all {counted.size} values are {counted[0]:g}; expected a target that varies, or there is nothing to "
            f"explain"
        )
    return features, target, weights
