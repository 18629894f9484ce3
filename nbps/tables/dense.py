"""What tables seen by a worker and by the driver share: a copy of all rows, as NumPy asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def whole_copy(name: str, values: npt.NDArray[Any], dtype: npt.DTypeLike | None, copy: bool | None) -> npt.NDArray[Any]:
    """Return `values`, a copy of all rows of table `name`, for ``__array__(dtype, copy)``.

    Raises
    ------
    ValueError
        If `copy` is False: rows that others change meanwhile are never given out.
    """
    if copy is False:
        raise ValueError(f"table {name!r}: numpy.asarray(table, copy=False); its rows are copied, leave copy=False out")
    return np.asarray(values, dtype)
