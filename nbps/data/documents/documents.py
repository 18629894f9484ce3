"""Documents in memory: how often each has which words of a vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nbps.buffers import numbers, over
from nbps.data.documents.text import counted, tokenize
from nbps.data.documents.vocabulary import as_vocabulary, checked_vocabulary
from nbps.errors import ConfigError, DataError

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents as bags of words: which words of a vocabulary each has, and how often.

    Entries of document d are those from ``starts[d]`` to ``starts[d + 1]``; a word may have more than one of them.
    An occurrence of a word is called a *token*. The arrays are shared with the caller; treat them as read-only.

    Parameters
    ----------
    starts : numpy.ndarray
        int64, shape ``[documents + 1]``, C-contiguous, ascending from 0.
    words : numpy.ndarray
        int32, shape ``[entries]``, C-contiguous: codes of words, that is indices of `vocabulary`.
    counts : numpy.ndarray
        int32, shape ``[entries]``, C-contiguous: how often, at least 1.
    vocabulary : pyarrow.Array
        string, shape ``[words]``, without duplicates and nulls. May have words that no document here has.

    Raises
    ------
    ConfigError
        If an array has another dtype or shape, a code is outside the vocabulary or a count less than 1.
        `Documents.from_matrix`, `from_texts` and `from_arrow` convert.

    Examples
    --------
    >>> documents = Documents.from_texts(["the cat sat on the mat", "a cat and a dog"])
    >>> documents
    Documents(2 documents, 9 tokens, 7 words)
    >>> documents.vocabulary.to_pylist()
    ['and', 'cat', 'dog', 'mat', 'on', 'sat', 'the']
    >>> documents.lengths.tolist()
    [6, 3]
    """

    starts: Int64s
    words: Int32s
    counts: Int32s
    vocabulary: pa.Array

    def __post_init__(self) -> None:
        checked_vocabulary(self.vocabulary, "Documents.vocabulary")
        for name, dtype in (("starts", np.int64), ("words", np.int32), ("counts", np.int32)):
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
                raise ConfigError(
                    f"Documents.{name}: expected contiguous {np.dtype(dtype)} of one dimension, found {array.dtype} of "
                    f"shape {list(array.shape)}. Use Documents.from_matrix to convert."
                )
        entries = self.words.size
        if self.counts.size != entries:
            raise ConfigError(f"Documents.counts: expected {entries} as there are words, found {self.counts.size}.")
        starts = self.starts
        if not starts.size or starts[0] != 0 or starts[-1] != entries or (np.diff(starts) < 0).any():
            raise ConfigError(f"Documents.starts: expected ascending numbers from 0 to {entries}, found others.")
        if entries and not 0 <= self.words.min() <= self.words.max() < len(self.vocabulary):
            raise ConfigError(
                f"Documents.words: expected codes from 0 to {len(self.vocabulary) - 1}, found {self.words.min()} to "
                f"{self.words.max()}."
            )
        if entries and self.counts.min() < 1:
            raise ConfigError(f"Documents.counts: expected at least 1, found {self.counts.min()}.")

    # ----------------------------------------------------------------------- made from other things

    @classmethod
    def from_matrix(cls, matrix: Any, vocabulary: Any = None) -> Documents:
        """Make documents of a documents x words matrix of counts.

        Parameters
        ----------
        matrix : scipy sparse matrix or array, or array_like of shape (documents, words)
            Whole numbers >= 0, of any dtype. As ``CountVectorizer`` of scikit-learn makes it.
        vocabulary : sequence of str, optional
            The word of each column, as ``CountVectorizer.get_feature_names_out()`` returns them; by default the
            columns' numbers.

        Returns
        -------
        Documents

        Raises
        ------
        DataError
            If a count is negative, not whole, or too large; names row and column.
        ConfigError
            If `matrix` has another shape, or `vocabulary` does not fit it.
        """
        from nbps.data.documents.matrix import entries_of

        starts, words, counts, width = entries_of(matrix)
        return cls(starts, words, counts, as_vocabulary(vocabulary, width))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str] | Iterable[Iterable[str]],
        tokenizer: Callable[[str], Iterable[str]] = tokenize,
        vocabulary: Any = None,
        min_documents: int = 1,
        max_share: float = 1.0,
    ) -> Documents:
        """Make documents of texts, or of lists of words.

        Parameters
        ----------
        texts : iterable of str, or of iterables of str
            Each a document; what is not a string is its words already.
        tokenizer : callable
            Gives the words of a text. By default `tokenize`: lower case, words of two letters and more.
        vocabulary : sequence of str, optional
            The words to count, in this order; others are left out. By default all there are, ascending.
        min_documents : int
            Without `vocabulary`: leave words out that fewer documents have.
        max_share : float
            Without `vocabulary`: leave words out that more than this share of the documents have.

        Returns
        -------
        Documents
            One for each text, some maybe empty.

        Raises
        ------
        ConfigError
            If `texts` are something else, or no word is left.
        """
        return cls(*counted(texts, tokenizer, vocabulary, min_documents, max_share))

    @classmethod
    def from_arrow(
        cls, table: Any, column: str | None = None, tokenizer: Callable[[str], Iterable[str]] = tokenize
    ) -> Documents:
        """Make documents of a column of an Arrow table, or of any frame that hands its columns out as an Arrow stream.

        Parameters
        ----------
        table : pyarrow.Table, polars.DataFrame, pandas.DataFrame, ...
            Not kept.
        column : str, optional
            Of texts, or of lists of words. By default the only such column, or the one with a usual name: ``text``,
            ``words``, ``tokens``, ``document``. Beside lists of words a column ``counts`` may have their counts.
        tokenizer : callable
            Gives the words of a text; see `from_texts`.

        Returns
        -------
        Documents

        Raises
        ------
        DataError
            If there is no such column, or a value is missing; names the row.
        """
        from nbps.data.documents.columnar import documents_of

        return cls(*documents_of(table, column, tokenizer, _fail))

    # ----------------------------------------------------------------------- sizes

    def __len__(self) -> int:
        return self.starts.size - 1

    def __repr__(self) -> str:
        return f"Documents({len(self)} documents, {self.tokens} tokens, {len(self.vocabulary)} words)"

    @functools.cached_property
    def tokens(self) -> int:
        """Number of tokens of all documents."""
        return int(self.counts.sum(dtype=np.int64))

    @functools.cached_property
    def lengths(self) -> Int64s:
        """How many tokens each document has: int64."""
        sums = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        return np.asarray(np.diff(sums[self.starts]))

    @functools.cached_property
    def word_counts(self) -> Int64s:
        """How many tokens each word has: int64, by code."""
        found = np.bincount(self.words, weights=self.counts, minlength=len(self.vocabulary))
        return np.asarray(found.astype(np.int64))

    @property
    def document_of_entry(self) -> Int64s:
        """Number of the document of each entry: int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    # ----------------------------------------------------------------------- parts

    def take(self, which: npt.NDArray[Any]) -> Documents:
        """Return some of the documents, with the full vocabulary.

        Parameters
        ----------
        which : numpy.ndarray
            bool, shape ``[documents]``; or integers: their numbers, in the order wanted.
        """
        chosen = np.flatnonzero(which) if which.dtype == bool else which
        sizes = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        entries = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], sizes)
        return replace(self, starts=starts, words=self.words[entries], counts=self.counts[entries])

    def split(self, test_fraction: float, seed: int = 0) -> tuple[Documents, Documents]:
        """Split at random into train and test documents, each in order and with the full vocabulary.

        A document is test where ``np.random.default_rng(seed).random(documents) < test_fraction``.

        Raises
        ------
        ConfigError
            If `test_fraction` is not between 0 and 1, or one of the parts would be empty.
        """
        if not 0.0 < test_fraction < 1.0:
            raise ConfigError(
                f"test_fraction: expected a number between 0 and 1 (both excluded), found {test_fraction}."
            )
        is_test = np.random.default_rng(seed).random(len(self)) < test_fraction
        count = int(is_test.sum())
        if count in (0, len(self)):
            raise ConfigError(
                f"test_fraction {test_fraction} of {len(self)} documents leaves {len(self) - count} to train and "
                f"{count} to test; expected at least one of each. Use another fraction or more documents."
            )
        return self.take(~is_test), self.take(is_test)

    def halves(self, seed: int = 0) -> tuple[Documents, Documents]:
        """Split the tokens of each document at random into halves: one to observe, one to predict from it.

        Returns
        -------
        observed, predicted : Documents
            Of n tokens of a document n // 2 are observed. With the same seed the same ones are.
        """
        which = np.repeat(np.arange(self.words.size), self.counts)
        document = np.repeat(np.arange(len(self)), self.lengths)
        order = np.lexsort((np.random.default_rng(seed).random(which.size), document))
        rank = np.arange(which.size) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        seen = rank < np.repeat(self.lengths // 2, self.lengths)
        observed = np.bincount(which[order[seen]], minlength=self.words.size)
        return self._with_counts(observed), self._with_counts(self.counts - observed)

    def recode(self, vocabulary: pa.Array) -> tuple[Documents, int]:
        """Return the same documents in the codes of another vocabulary, as a model trained on others needs them.

        Returns
        -------
        documents : Documents
            As many, without words that `vocabulary` lacks.
        dropped : int
            How many tokens were of such words.
        """
        if vocabulary is self.vocabulary or vocabulary.equals(self.vocabulary):
            return self, 0
        place = numbers(pc.fill_null(pc.index_in(self.vocabulary, vocabulary), -1))
        known = place[self.words] >= 0
        kept = self._with_counts(np.where(known, self.counts, 0))
        return replace(kept, words=place[kept.words], vocabulary=vocabulary), self.tokens - kept.tokens

    def _with_counts(self, counts: npt.NDArray[Any]) -> Documents:
        """Return these documents with other counts; entries of count 0 are left out."""
        kept = counts > 0
        sums = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, starts=sums[self.starts], words=self.words[kept], counts=counts[kept].astype(np.int32))

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with the columns words (lists of strings) and counts (lists of int32)."""
        offsets = over(self.starts)
        codes = pa.DictionaryArray.from_arrays(over(self.words), self.vocabulary)
        lists = [pa.LargeListArray.from_arrays(offsets, values) for values in (codes, over(self.counts))]
        return pa.table(lists, names=["words", "counts"])


def _fail(what: str, row: int | None = None) -> DataError:
    place = "" if row is None else f", row {row}"
    return DataError(f"cannot take documents from the table{place}: {what}")
