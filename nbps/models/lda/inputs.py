"""What a topic model is trained on and asked about: documents in whatever form they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nbps.data import Documents
from nbps.errors import ConfigError, DataError


def as_documents(given: Any, vocabulary: pa.Array | None = None) -> Documents:
    """Return what `LatentDirichletAllocation.fit` accepts as `Documents`.

    `vocabulary` is that of the columns of a matrix; by default they are called by their numbers.

    Raises
    ------
    ConfigError
        If it is something else.
    DataError
        If it holds what cannot be counted, or a matrix has another number of columns than there are words.
    """
    if isinstance(given, Documents):
        return given
    if isinstance(given, (str, Path)):
        raise ConfigError(
            f"documents is {str(given)!r}; expected documents, not the name of a file. Read it first: "
            f"nbps.data.read_documents({str(given)!r})"
        )
    if hasattr(given, "tocsr") or isinstance(given, np.ndarray):
        return _from_matrix(given, vocabulary)
    if hasattr(given, "__arrow_c_stream__"):
        return Documents.from_arrow(given)
    try:
        listed = list(given)
    except TypeError:
        raise ConfigError(
            f"documents: expected nbps.data.Documents, a matrix of counts, a frame or table with a column of texts, "
            f"texts, or lists of words; found {type(given).__name__}"
        ) from None
    if listed and all(isinstance(each, str) or (np.size(each) and isinstance(each[0], str)) for each in listed):
        return Documents.from_texts(listed)
    return _from_matrix(np.asarray(listed), vocabulary)


def _from_matrix(matrix: Any, vocabulary: pa.Array | None) -> Documents:
    if vocabulary is not None and len(matrix.shape) == 2 and matrix.shape[1] != len(vocabulary):
        raise DataError(
            f"documents: found a matrix with {matrix.shape[1]} columns; expected {len(vocabulary)}, one for each word "
            f"of the model"
        )
    return Documents.from_matrix(matrix, vocabulary)


def in_words_of(given: Any, vocabulary: pa.Array) -> Documents:
    """Return documents in the codes of a model's vocabulary; words that it lacks are left out."""
    return as_documents(given, vocabulary).recode(vocabulary)[0]


def as_validation(given: Any, vocabulary: pa.Array) -> Documents:
    """Return the validation set of `LatentDirichletAllocation.fit` in the codes of the model.

    Raises
    ------
    DataError
        If it has no document with two tokens of known words.
    """
    documents = in_words_of(given, vocabulary)
    if not len(documents) or documents.lengths.max() < 2:
        raise DataError(
            "validation: expected documents with two tokens or more of words of the training documents, found none"
        )
    return documents


def check_trainable(documents: Documents, topics: int) -> None:
    """Raise `DataError` if there is nothing to learn topics from, or an empty document."""
    if not len(documents):
        raise DataError("documents: expected at least one document, found none")
    empty = documents.lengths == 0
    if empty.any():
        row, count = int(np.argmax(empty)), int(empty.sum())
        more = f", and {count - 1:,} more" if count > 1 else ""
        raise DataError(
            f"documents: the one in row {row} has no words{more}; expected at least one in each. Leave out such "
            f"rows; of nbps.data.Documents: documents.take(documents.lengths > 0)"
        )
    if topics > documents.tokens:
        raise DataError(
            f"n_components is {topics}; expected at most one topic for each of {documents.tokens} tokens. Ask for "
            "fewer (n_components=, --topics)"
        )


def both(known: pa.Array, documents: Documents) -> tuple[pa.Array, Documents]:
    """Return the words known and those that are new in `documents` after them; and these in the codes of all."""
    is_new = pc.is_null(pc.index_in(documents.vocabulary, known))
    fresh = documents.vocabulary.filter(is_new)
    vocabulary = pa.concat_arrays([known, fresh]) if len(fresh) else known
    return vocabulary, documents.recode(vocabulary)[0]
