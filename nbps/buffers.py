"""Arrow arrays of numbers over the memory of NumPy's, and back; nothing is copied.

`pyarrow.array` and ``to_numpy`` do so too, but import pandas wherever it is installed: 0.2 s in every program. So do
types, in some versions, that are asked for their ``to_pandas_dtype``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def over(values: npt.NDArray[Any]) -> pa.Array:
    """Return an Arrow array over the memory of contiguous numbers; all their dimensions become one."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(values)])


def numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers of an array without nulls, read-only, over its memory."""
    kind = "f" if pa.types.is_floating(array.type) else "u" if pa.types.is_unsigned_integer(array.type) else "i"
    everything = np.frombuffer(array.buffers()[1], f"{kind}{array.type.bit_width // 8}")
    return everything[array.offset : array.offset + len(array)]
