"""Numbers that a factorization does not ask its user for; how the L2 weights of a row follow from its ratings.

They were chosen together on held-out parts of the training ratings of ml-1m, ml-100k, FilmTrust, LIBMF's demonstration
set and generated sets of other shapes; test parts had no say. ``bench/defaults.py`` compares them with others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.kernels.models.mf_layout import BIAS, DECAY_WIDTH, FACTORS


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The numbers, for ratings of unit variance.

    Attributes
    ----------
    decay_exponent : float
        How fast the L2 weight of the factors, per rating, falls with the number of ratings of a row.
    few_ratings : float
        A row with fewer ratings than this has hardly any factors.
    bias_prior : float
        L2 weight of a bias in units of `regularization`, for all ratings of its row together.
    factors_size : float
        Norm of a row's first factors: small, so that biases are learnt first.
    accumulator : float
        First value of AdaGrad's accumulators; 1 and 2 start faster and end worse.
    final_step : float
        Share of the learning rate that is left in the last epoch.
    """

    decay_exponent: float = 0.25
    few_ratings: float = 10.0
    bias_prior: float = 25.0
    factors_size: float = 0.04
    accumulator: float = 3.0
    final_step: float = 0.1

    def decay(self, counts: npt.NDArray[Any], regularization: float, largest: float) -> npt.NDArray[np.float32]:
        """Return the L2 weights per rating of rows with so many ratings, float32[n, 2]: of biases, and of factors.

        None exceeds `largest`. A row without ratings is not trained, and gets the weights of one with a rating.
        """
        n = np.maximum(counts, 1).astype(np.float64)
        weights = np.empty((n.size, DECAY_WIDTH))
        weights[:, BIAS] = self.bias_prior / n
        weights[:, FACTORS] = (n + 1.0) ** -self.decay_exponent + (self.few_ratings / n) ** 2
        return np.minimum(regularization * weights, largest).astype(np.float32)
