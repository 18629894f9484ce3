"""The rows of a table with what an agent keeps beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.batch import Ids, Shape, values_bytes
from nbps.agent.encodings import AS_IT_IS, BFLOAT16, FLOAT16, LARGEST, OVERWRITE, Bytes, compress
from nbps.agent.share import TableShare
from nbps.kernels import presence, shards
from nbps.tables.shared import SharedRows


class Store:
    """A table with what its agent keeps beside it."""

    def __init__(self, number: int, share: TableShare, rank: int, nodes: int) -> None:
        rows, width = share.values.shape
        self.number = number
        self.share = share
        self.values = share.values
        overwrites, is_float = share.encoding == OVERWRITE, share.values.dtype.kind == "f"
        self.shared = SharedRows(share.values, share.dirty, share.claims, not overwrites, share.source, sources=None)
        self.base = np.empty_like(share.values)
        self.dirty = share.dirty
        self.eights = share.dirty.view(np.int64)
        self.shape = Shape(number, 0, rows, width, share.values.itemsize)
        self.ids = [np.flatnonzero(share.owners == node) for node in range(nodes)]
        self.spans = [(int(ids[0]), int(ids[-1])) if ids.size else (0, -1) for ids in self.ids]
        self.pending = np.zeros(rows, np.uint64)
        self.summary = np.zeros(-(-rows // shards.ROWS_OF_A_WORD), np.uint64)
        everybody = (1 << nodes) - 1 if share.replicated else 0
        self.subscribers = np.full(rows, everybody, np.uint64)
        self.taken = np.empty(rows, np.int64)
        self.seen = np.empty(width, share.values.dtype)
        # Rows not sent as a whole; of floats, base + (values - base) need not be the values.
        self.carried = np.zeros(rows, np.bool_) if is_float and not overwrites else None
        self.sent_shape = self.shape._replace(encoding=OVERWRITE if overwrites else AS_IT_IS)
        rounded = (FLOAT16, BFLOAT16, LARGEST) if is_float else ()
        self.encodings = (AS_IT_IS, OVERWRITE) if overwrites else (AS_IT_IS, *rounded)  # that may arrive
        for node, ids in enumerate(self.ids):
            if node != rank:
                self.base[ids] = share.values[ids]
            elif share.states is not None:
                presence.make_present(share.states, ids.copy())

    def take_marked(self, owner: int) -> int:
        """Put the marked rows of `owner` to the beginning of `taken`, no longer marked; return how many."""
        owners, span = self.share.owners, self.spans[owner]
        return int(shards.take_marked(self.dirty, self.eights, owners, owner, *span, self.taken))

    def take_wanted(self, owner: int) -> int:
        """Put the rows of `owner` that workers want and nobody has asked for to the beginning of `taken`."""
        states, owners, span = self.share.states, self.share.owners, self.spans[owner]
        assert states is not None
        return int(presence.take_wanted(states, states.view(np.int64), owners, owner, *span, self.taken))

    def take_unused(self, owner: int) -> int:
        """Put the rows of `owner` that nobody has used since the last call to the beginning of `taken`."""
        return int(presence.take_unused(self.share.states, self.ids[owner], self.taken))

    def take(self, ids: Ids, out_ids: Ids, out: npt.NDArray[Any]) -> int:
        """Take what local workers did to rows `ids`: deltas, or values where a row has one writer."""
        if self.share.encoding == OVERWRITE:
            return int(shards.take_values(self.values, self.base, ids, out_ids, out))
        return int(shards.take_deltas(self.shared.kernel, self.base, ids, out_ids, out, self.seen))

    def take_carried(self, owner: int, count: int) -> int:
        """Put the rows of `owner` that were not sent as a whole to the first `count` of `taken`; return how many."""
        assert self.carried is not None
        ids = self.ids[owner]
        self.carried[self.taken[:count]] = True
        rows = ids[self.carried[ids]]
        self.carried[rows] = False
        self.taken[: rows.size] = rows
        return int(rows.size)

    def round_off(self, ids: Ids, deltas: npt.NDArray[Any]) -> tuple[Ids, Bytes]:
        """Take what can be sent of `deltas` to rows `ids`; return the rows with any, and it in this encoding."""
        assert self.carried is not None
        share = self.share
        shape = self.shape._replace(rows=ids.size, encoding=share.encoding, kept=share.kept)
        sent = compress(deltas, share.encoding, share.kept, np.empty(values_bytes(shape), np.uint8))
        self.carried[ids] |= (sent != deltas).any(axis=1)
        some = (sent != 0).any(axis=1)
        ids, sent = ids[some], sent[some]
        shards.add_to_base(self.base, ids, sent)
        packed = np.empty(values_bytes(shape._replace(rows=ids.size)), np.uint8)
        compress(sent, share.encoding, share.kept, packed)
        return ids, packed
