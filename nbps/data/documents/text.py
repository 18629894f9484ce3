"""Words of texts: the tokenizer, and counting what it gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nbps.buffers import numbers, over
from nbps.checks import whole
from nbps.data.documents.vocabulary import as_vocabulary
from nbps.errors import ConfigError

_WORD = re.compile(r"[^\W\d_]{2,}")

Counted = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], pa.Array]


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of two or more letters of any script.

    Digits, underscores and punctuation separate words. Nothing is left out and nothing is stemmed: for that, pass a
    function of your own.

    Examples
    --------
    >>> tokenize("The 2nd règle isn't new.")
    ['the', 'nd', 'règle', 'isn', 'new']
    """
    return _WORD.findall(text.lower())


def counted(
    texts: Iterable[str] | Iterable[Iterable[str]],
    tokenizer: Callable[[str], Iterable[str]],
    vocabulary: Any,
    min_documents: int,
    max_share: float,
) -> Counted:
    """Return the starts, words, counts and vocabulary of documents; arguments as of `Documents.from_texts`."""
    whole("min_documents", min_documents, 1)
    if not 0 < max_share <= 1:
        raise ConfigError(f"max_share is {max_share!r}; expected a number from 0 to 1, not 0")
    if isinstance(texts, str):
        raise ConfigError("texts is a single string; expected a sequence of texts, each a document")
    tokens: list[str] = []
    lengths: list[int] = []
    for number, text in enumerate(texts):
        before = len(tokens)
        try:
            tokens.extend(tokenizer(text) if isinstance(text, str) else text)
        except TypeError:
            kind = type(text).__name__
            raise ConfigError(f"texts: expected a text or a list of words as document {number}, found {kind}") from None
        lengths.append(len(tokens) - before)
    try:
        coded = pa.array(tokens, pa.string()).dictionary_encode()
    except (pa.ArrowException, TypeError) as error:
        raise ConfigError(f"texts: expected words that are strings, found something else: {error}") from None
    document = np.repeat(np.arange(len(lengths)), lengths)
    return collected(coded, document, len(lengths), vocabulary, min_documents, max_share)


def collected(
    coded: pa.DictionaryArray,
    document: npt.NDArray[np.int64],
    documents: int,
    vocabulary: Any = None,
    min_documents: int = 1,
    max_share: float = 1.0,
    counts: npt.NDArray[Any] | None = None,
) -> Counted:
    """Return the starts, words, counts and vocabulary, given the word of each token or entry, and its document.

    Parameters
    ----------
    coded : pyarrow.DictionaryArray
        Of strings.
    document : int64[n]
        Ascending.
    counts : int64[n], optional
        Of each entry; 1 by default.
    """
    seen, codes = coded.dictionary.cast(pa.string()), numbers(coded.indices).astype(np.int64)
    size = max(len(seen), 1)
    keys = document * size + codes
    if counts is None:
        keys, sums = np.unique(keys, return_counts=True)
    else:
        keys, where = np.unique(keys, return_inverse=True)
        sums = np.bincount(where, counts, keys.size).astype(np.int64)
    document, codes = np.divmod(keys, size)
    if vocabulary is None:
        having = np.bincount(codes, minlength=size)[: len(seen)]
        kept = np.flatnonzero((having >= min_documents) & (having <= max_share * documents))
        words = seen.take(over(kept))
        words = words.take(pc.array_sort_indices(words))
    else:
        words = as_vocabulary(vocabulary, len(vocabulary))
    if not len(words):
        raise ConfigError(f"texts: found no words in {documents} documents; expected some, after leaving out others")
    places = numbers(pc.fill_null(pc.index_in(seen, words), -1))[codes]
    known = places >= 0
    starts = np.concatenate([[0], np.cumsum(np.bincount(document[known], minlength=documents))]).astype(np.int64)
    order = np.lexsort((places[known], document[known]))
    return starts, places[known][order].astype(np.int32), sums[known][order].astype(np.int32), words
