"""Reading a file of documents, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from nbps.data.documents.bag_of_words import is_bag_of_words, read_bag_of_words
from nbps.data.documents.documents import Documents
from nbps.data.documents.lda_c import is_lda_c, read_lda_c
from nbps.data.documents.text import counted, tokenize
from nbps.data.documents.vocabulary import as_vocabulary, read_vocabulary
from nbps.data.source import Source, open_source
from nbps.errors import ConfigError

FORMATS = ("uci", "lda-c", "text", "parquet", "arrow")
_CODED = {"uci": read_bag_of_words, "lda-c": read_lda_c}
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}


def read_documents(
    path: str | Path,
    vocabulary: str | Path | None = None,
    *,
    format: str | None = None,  # noqa: A002
    column: str | None = None,
    tokenizer: Callable[[str], Iterable[str]] = tokenize,
) -> Documents:
    """Read a file of documents.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; it may be compressed with gzip, bzip2 or Zstandard, under any name.
    vocabulary : str or pathlib.Path, optional
        For the formats whose words are numbers: a file with a word on each line. By default words are called by
        their numbers there.
    format : str, optional
        One of

        - ``"uci"``: bags of words as ``docword.*.txt`` of the UCI repository
        - ``"lda-c"``: a document a line, ``N word:count ...``
        - ``"text"``: UTF-8, a document a line
        - ``"parquet"``, ``"arrow"``: a column of texts or of lists of words

        By default it is found from the content; ``"text"`` must be said.
    column : str, optional
        Of Parquet and Arrow files: see `Documents.from_arrow`.
    tokenizer : callable
        Gives the words of a text; `tokenize` by default.

    Returns
    -------
    Documents
        In file order; some may be empty.

    Raises
    ------
    DataError
        If a file is missing, empty, damaged or not in the format, a line is bad (the message has its number, from 1),
        or a document has words beyond the vocabulary.
    ConfigError
        If `format`, `vocabulary` or `column` cannot be used.
    OutOfMemoryError
        If memory does not hold as many documents or words as a file says there are.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format: expected one of {', '.join(FORMATS)}, found {format!r}.")
    source = open_source(path, "documents")
    found = _detected(source) if format is None else format
    if vocabulary is not None and found not in _CODED:
        raise ConfigError(f"vocabulary: {found} files have the words themselves; leave it out.")
    if column is not None and found not in _MAGIC.values():
        raise ConfigError(f"column: {found} files have no columns; leave it out.")
    if found in _CODED:
        return _read_coded(source, found, vocabulary)
    if found == "text":
        return Documents(*counted(source.read_lines(), tokenizer, None, 1, 1.0))
    from nbps.data.documents.columnar import read_columnar

    return Documents(*read_columnar(source, found, column, tokenizer))


def _read_coded(source: Source, found: str, vocabulary: str | Path | None) -> Documents:
    starts, words, counts, size = _CODED[found](source)
    if vocabulary is None:
        names = as_vocabulary(None, size)
    else:
        names = read_vocabulary(vocabulary)
        # What lda-c states is only the largest word that it uses.
        if len(names) < size or (found == "uci" and len(names) != size):
            raise source.error(
                f"expected words from a vocabulary of {len(names):,} as {str(vocabulary)!r} has, found {size:,}. Name "
                f"the vocabulary that belongs to it."
            )
    if not counts.size:
        raise source.error("expected documents with words, found none.")
    return Documents(starts, words, counts, names)


def _detected(source: Source) -> str:
    """Return the name of the format of a file by its content."""
    for magic, name in _MAGIC.items():
        if source.head.startswith(magic):
            return name
    if is_bag_of_words(source.head):
        return "uci"
    if is_lda_c(source.head):
        return "lda-c"
    first = source.head.split(b"\n", 1)[0][:60].decode(errors="replace")
    raise source.error(
        "expected bags of words of UCI (three lines with a number each, then 'document word count'), lda-c ('N "
        f"word:count ...'), Parquet or Arrow, found a file that begins with {first!r}. If each line is the text of a "
        "document, say so: format='text', or --format text in a shell.",
        line=1,
    )
