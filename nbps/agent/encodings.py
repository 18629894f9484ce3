"""How values of rows are encoded on their way: as they are, or additions in fewer bytes.

Additions may be rounded, or be only the largest elements of each row.

What is not sent stays in values - base of a replica, so it goes with the row's next addition, and
all of it, uncompressed, at the end of a run and at a checkpoint. Dense deltas are float32 or float64[n, width].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Dense = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# Of values: the table's dtype, none at all, those in fewer bytes, and the table's dtype again, but to overwrite rows
# instead of being added to them.
AS_IT_IS, ONLY_IDS, FLOAT16, BFLOAT16, LARGEST, OVERWRITE = range(6)

# Beyond these is infinity; what is more is sent the next time.
_LARGEST_FLOAT16 = 65504.0
_LARGEST_BFLOAT16 = (2 - 2**-7) * 2.0**127


def compress(deltas: Dense, encoding: int, kept: int, out: Bytes) -> Dense:
    """Write `deltas` to `out` in `encoding`; return what a receiver will read, shape (n, width)."""
    n, width = deltas.shape
    if encoding == FLOAT16:
        halves = out.view(np.float16).reshape(n, width)
        halves[...] = np.clip(deltas, -_LARGEST_FLOAT16, _LARGEST_FLOAT16)
    elif encoding == BFLOAT16:
        bits = np.clip(deltas, -_LARGEST_BFLOAT16, _LARGEST_BFLOAT16).astype(np.float32).view(np.uint32)
        # To the nearest, ties to even; a NaN stays one, since its highest bits are not all lost.
        rounded = np.where(np.isnan(deltas), bits | 0x400000, bits + 0x7FFF + ((bits >> 16) & 1))
        out.view(np.uint16).reshape(n, width)[...] = rounded >> 16
    else:
        columns, values = _largest_parts(out, n, kept, deltas.dtype)
        chosen = np.argpartition(-np.abs(deltas), kept - 1, axis=1)[:, :kept]
        columns[...] = chosen
        values[...] = np.take_along_axis(deltas, chosen, axis=1)
    return expand(out, encoding, n, width, kept, deltas.dtype)


def expand(data: Bytes, encoding: int, n: int, width: int, kept: int, dtype: np.dtype[Any]) -> Dense:
    """Return the dense deltas, shape (n, width), that `data` holds in `encoding`; its columns are < `width`."""
    if encoding == FLOAT16:
        return data.view(np.float16).reshape(n, width).astype(dtype)
    if encoding == BFLOAT16:
        bits = data.view(np.uint16).reshape(n, width).astype(np.uint32) << 16
        return bits.view(np.float32).astype(dtype, copy=False)
    columns, values = _largest_parts(data, n, kept, dtype)
    dense = np.zeros((n, width), dtype)
    np.put_along_axis(dense, columns.astype(np.intp), values, axis=1)
    return dense


def columns_of(data: Bytes, encoding: int, n: int, kept: int) -> npt.NDArray[np.uint32] | None:
    """Return the columns that a batch names, shape (n, kept), to be checked; None where it names none."""
    if encoding != LARGEST:
        return None
    return data[: 4 * n * kept].view(np.uint32).reshape(n, kept)


def largest_columns_bytes(rows: int, kept: int) -> int:
    """Return where the values begin after the columns of rows with `kept` elements each."""
    return -(-4 * rows * kept // 8) * 8


def _largest_parts(data: Bytes, n: int, kept: int, dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.uint32], Dense]:
    columns = data[: 4 * n * kept].view(np.uint32).reshape(n, kept)
    values = data[largest_columns_bytes(n, kept) :].view(dtype).reshape(n, kept)
    return columns, values
