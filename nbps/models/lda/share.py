"""A worker's share of the documents: their tokens word by word, and the topics of each document.

Every worker is shown all documents twice, a part at a time, and picks out its own, which are consecutive: once to count
their tokens, once to place them. So no process ever holds more than the documents, its share, and a part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbps.kernels.models.lda_layout import LANES
from nbps.models.blocks import Rotation

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


class Share:
    """The tokens of one worker, sorted by the place of their words, then as they came.

    Parameters
    ----------
    rotation : Rotation
        Its users are documents, its items words.
    worker : int
    topics : int
        How many there are.
    is_wide : bool
        Whether entries of lists take 64 bits.

    Attributes
    ----------
    starts : int64[vocabulary + 2]
        From the last `place` on the tokens of the word at place p are ``starts[p]`` to ``starts[p + 1]``.
    documents : int32[tokens]
        The worker's number of each token's document; from the first `place` on.
    assignments : int32[tokens]
        Topic of each token, in the memory that `hold` was given.
    list_starts, list_sizes, lists
        The topics of each document, see `nbps.kernels.models.topic_lists`.
    """

    def __init__(self, rotation: Rotation, worker: int, topics: int, is_wide: bool) -> None:
        self._first, self._last = (int(start) for start in rotation.users.starts[worker : worker + 2])
        self._place = rotation.items.place
        self._topics, self._kind = topics, np.dtype(np.uint64 if is_wide else np.uint32)
        self._lengths = np.zeros(self._last - self._first, np.int64)
        self.starts: Int64s = np.zeros(self._place.size + 2, np.int64)
        self.documents: Int32s = np.empty(0, np.int32)
        self.assignments: Int32s = np.empty(0, np.int32)
        self.list_starts: Int64s = np.empty(0, np.int64)
        self.list_sizes: Int32s = np.empty(0, np.int32)
        self.lists: npt.NDArray[np.unsignedinteger] = np.empty(0, self._kind)

    def count(self, first: int, starts: Int64s, words: Int32s, counts: Int32s) -> None:
        """Count the worker's tokens among these documents: a part of all of them, from the one numbered `first` on."""
        from nbps.kernels.models import tokens

        begin, *own = self._own(first, starts, words, counts)
        tokens.count_tokens(*own, self._place, begin, self._lengths, self.starts)

    def hold(self, memory: Int32s) -> None:
        """Make room for the tokens, after all parts were counted; their topics go into `memory`."""
        np.cumsum(self.starts, out=self.starts)
        self.documents, self.assignments = np.empty(self.starts[-1], np.int32), memory[: self.starts[-1]]
        entries = np.minimum(self._lengths + 1, self._topics)  # one more while a token changes its topic
        rooms = -(-entries // LANES) * LANES
        self.list_starts = np.concatenate([[0], np.cumsum(rooms)])[:-1]
        self.list_sizes, self.lists = np.zeros(rooms.size, np.int32), np.zeros(int(rooms.sum()), self._kind)
        self._dense, self._touched = np.zeros(self._topics, np.int32), np.empty(self._topics, np.int32)

    def place(
        self,
        first: int,
        starts: Int64s,
        words: Int32s,
        counts: Int32s,
        is_fresh: bool,
        random: npt.NDArray[np.uint64],
    ) -> None:
        """Take the worker's tokens among these; the same parts in the same order. Topics are random if `is_fresh`."""
        from nbps.kernels.models import tokens

        begin, *own = self._own(first, starts, words, counts)
        tokens.place_tokens(
            *own, self._place, begin, self.starts, self.documents, self.assignments, is_fresh, random,
            *self.topic_lists, self._dense, self._touched,
        )  # fmt: skip

    @property
    def topic_lists(self) -> tuple[Int64s, Int32s, npt.NDArray[np.unsignedinteger]]:
        """The topics of each document."""
        return self.list_starts, self.list_sizes, self.lists

    def starts_of(self, words: slice) -> Int64s:
        """Return where the tokens of each of some words begin, and where the last one's end."""
        return self.starts[words.start : words.stop + 1]

    def _own(self, first: int, starts: Int64s, words: Int32s, counts: Int32s) -> tuple[int, Int64s, Int32s, Int32s]:
        """Return of these documents those of the worker, after the number of the first of them."""
        return own_part(self._first, self._last, first, starts, words, counts)


def own_part(
    begin: int, end: int, first: int, starts: Int64s, words: Int32s, counts: Int32s
) -> tuple[int, Int64s, Int32s, Int32s]:
    """Return which of the documents from `begin` to `end` are among these, from the one numbered `first` on.

    Returns
    -------
    (number of the first of them from `begin` on, their starts, words and counts)
    """
    low = min(max(begin, first), first + starts.size - 1)
    high = max(low, min(end, first + starts.size - 1))
    own = starts[low - first : high - first + 1]
    entries = slice(own[0] - starts[0], own[-1] - starts[0])
    return max(low - begin, 0), own, words[entries], counts[entries]
