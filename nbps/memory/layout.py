"""Where the values of a dense table lie in shared memory: all that a worker needs to read and add to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.memory.segments import attach


@dataclass(frozen=True)
class Layout:
    """Where in a segment a table's values lie; travels to the workers, which need no Arrow.

    Attributes
    ----------
    segment : str
        Name of the segment.
    offset : int
        Of the first value, in bytes; a multiple of 64.
    rows, width : int
        Shape of the values, C-contiguous.
    dtype : str
        ``float32``, ``float64``, ``int32`` or ``int64``.
    """

    segment: str
    offset: int
    rows: int
    width: int
    dtype: str

    def view(self) -> npt.NDArray[Any]:
        """Return the live values, shape (rows, width); the memory is shared with every other worker."""
        return self.values(attach(self.segment))

    def values(self, memory: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return the values in the mapped segment `memory`."""
        size = self.rows * self.width * np.dtype(self.dtype).itemsize
        return memory[self.offset : self.offset + size].view(self.dtype).reshape(self.rows, self.width)
