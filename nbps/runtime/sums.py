"""Sums over all workers: each lays its summand on the board, comes to a barrier, and adds up what all have laid there.

Even and odd barriers have a place each. A worker that lays something down for barrier n has passed barrier n - 1, where
all arrived that were still reading what lay there for barrier n - 2. What workers of other nodes add the agent lays
down before it says that they have arrived. Everybody adds in the order of ranks: the bits are the same for all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import ConfigError, LocalProtocolError
from nbps.kernels import layout
from nbps.runtime.clock import Clock

Words = npt.NDArray[np.int64]
_NOT_TO = -1  # times the number of a barrier, in place of it: that the worker has returned, and does not come there
_KINDS = {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float64}  # of summands, by kind of dtype


class Sums:
    """The summands on a board, as worker number `local` of node `node` lays its own down and adds all up.

    Parameters
    ----------
    clock : Clock
    words : int64[2 * nodes * SUM_WORDS]
        The end of the board.
    sizes : sequence of int
        Workers of each node, `layout.WORKERS_LIMIT` at most.
    """

    def __init__(self, clock: Clock, words: Words, sizes: Sequence[int], node: int, local: int) -> None:
        self._clock = clock
        # For even and for odd barriers: headers and summands of each node.
        self._places = [
            (
                [part[: size * layout.SUM_HEADER].reshape(size, -1) for part, size in zip(parts, sizes, strict=True)],
                [part[size * layout.SUM_HEADER :] for part, size in zip(parts, sizes, strict=True)],
            )
            for parts in words.reshape(2, len(sizes), layout.SUM_WORDS)
        ]
        self._sizes = sizes
        self._node = node
        self._local = local
        self._room = layout.SUM_WORDS // max(sizes) - layout.SUM_HEADER  # elements of each worker

    def add(self, value: npt.ArrayLike) -> Any:
        """Return the sum of what all workers give; see `Worker.sum`."""
        given = np.asarray(value)
        kind = _KINDS.get(given.dtype.kind)
        if kind is None or (given.dtype.kind == "u" and given.size and given.max() > np.iinfo(np.int64).max):
            raise ConfigError(f"sum of {value!r}, dtype {given.dtype}; expected a number or array of int64 or float64")
        elements = given.astype(kind).reshape(-1)
        expected = elements.size, zlib.crc32(repr(given.shape).encode())
        starts = range(0, max(1, elements.size), self._room)
        pieces = [self._exchange(elements[start : start + self._room], expected) for start in starts]
        total = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return total.reshape(given.shape) if given.ndim else total[0].item()

    def _exchange(self, piece: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
        """Return the sum of `piece` over all workers; `shape` says how many elements there are in all, and their shape.

        Raises
        ------
        LocalProtocolError
            If another worker came to this barrier with something else, or has returned.
        """
        self._clock.settle()
        barrier = self._clock.core.barriers + 1
        headers, summands = self._places[barrier % 2]
        own = self._node
        summands[own][self._local * piece.size : (self._local + 1) * piece.size] = piece.view(np.int64)
        headers[own][self._local] = barrier, *shape, piece.dtype == np.float64
        self._clock.barrier("sum")
        told = [node.tolist() for node in headers]  # elements of lists are Python's own integers: ten times as fast
        expected = [barrier, *shape]
        for node, workers in enumerate(told):
            for local, header in enumerate(workers):
                if header[: layout.SUM_IS_FLOAT] != expected:
                    raise self._mismatch(node, local, header, expected)
        is_float = any(header[layout.SUM_IS_FLOAT] for workers in told for header in workers)
        total = np.zeros(piece.size, np.float64 if is_float else np.int64)
        for workers, words in zip(told, summands, strict=True):
            for local, header in enumerate(workers):
                row = words[local * piece.size : (local + 1) * piece.size]
                total += row.view(np.float64) if header[layout.SUM_IS_FLOAT] else row
        return total

    def finish(self) -> None:
        """Say that this worker returns, where others look for its next summand."""
        self._clock.settle()
        barrier = self._clock.core.barriers + 1
        headers, _ = self._places[barrier % 2]
        headers[self._node][self._local][layout.SUM_BARRIER] = _NOT_TO * barrier

    def _mismatch(self, node: int, local: int, found: list[int], expected: list[int]) -> LocalProtocolError:
        worker = f"worker {sum(self._sizes[:node]) + local}"
        if found[layout.SUM_BARRIER] != expected[layout.SUM_BARRIER]:
            what = f"{worker} {self._why_missing(node, local, expected[layout.SUM_BARRIER])}"
        else:
            sizes = f"{found[layout.SUM_ELEMENTS]} elements, this one {expected[layout.SUM_ELEMENTS]}"
            what = f"{worker} gave {sizes}, or other shapes"
        return LocalProtocolError(
            f"sum: {what}; all workers must call it equally often, with numbers or arrays of one shape"
        )

    def _why_missing(self, node: int, local: int, barrier: int) -> str:
        told = [int(headers[node][local, layout.SUM_BARRIER]) for headers, _ in self._places]
        if any(0 < _NOT_TO * number <= barrier for number in told):
            return "has returned"
        # Of a worker elsewhere nothing may have been told: summands travel only where somebody there adds.
        return "came with barrier()" if node == self._node else "came with barrier(), or has returned"
