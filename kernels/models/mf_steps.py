"""The step of an item that one rating makes: what its row and its state become (`nbps.kernels.models.mf`)."""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from .mf_layout import BIAS, FACTORS

BIAS_RATE = np.float32(0.35)  # 0.2 to 0.6 are alike; from 1.5 on the first epoch overshoots
_ONE = np.float32(1)


@kernel(fastmath=True, inline=True)
def item_step(bias, accumulator, decay, i, error, step, adapt, user_norm):
    """Return ``keep`` and ``gain`` of the update of an item's row, and what is added to its bias and accumulator."""
    rate = step / np.sqrt(accumulator)
    gain = rate * error
    to_bias = BIAS_RATE * (gain - rate * decay[i, BIAS] * bias)
    return _ONE - rate * decay[i, FACTORS], gain, to_bias, adapt * error * error * user_norm
