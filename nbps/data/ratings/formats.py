"""The file formats of ratings, and how a file's format is recognised.

Content decides: magic numbers first, then the separator of the first line. The name decides only where the
content allows more than one format, and where it allows none.
"""

from __future__ import annotations

import csv
import re

from nbps.data.source import Source, data_error
from nbps.errors import ConfigError

# The separators of the text formats, in the order in which they are tried on a first line: the rarer first.
SEPARATORS = {"dat": ("::",), "tsv": ("\t",), "csv": (",", ";"), "libmf": (" ",)}
FORMATS = (*SEPARATORS, "jsonl", "parquet", "arrow")

_SUFFIXES = {
    ".dat": "dat",
    ".data": "tsv",
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_BINARY = ("parquet", "arrow")
_PARQUET_MAGIC = b"PAR1"
_TEXT = re.compile(rb"[^\x00-\x08\x0e-\x1f\xfe\xff]{3,}")  # without control characters, nor bytes that UTF-8 has not
ARROW_FILE_MAGIC = b"ARROW1"
# A message of an Arrow stream begins with this marker (Arrow columnar format, "Encapsulated message format").
_ARROW_STREAM_MARKER = b"\xff\xff\xff\xff"
_JSON_OBJECT = re.compile(r"\s*\{\s*(\"|\}|$)")
_JSON_ARRAY = re.compile(r"\s*\[\s*(\{|$)")


def check_format(requested: str | None, delimiter: str | None) -> str | None:
    """Check the ``format=`` and ``delimiter=`` arguments before any file is opened; return the format that they mean.

    Raises
    ------
    ConfigError
        If `requested` is not the name of a format, or `delimiter` cannot separate columns, or not in that format.
    """
    if requested is not None and requested not in FORMATS:
        raise ConfigError(f"format: expected one of {', '.join(FORMATS)}, found {requested!r}.")
    if delimiter is None:
        return requested
    forbidden = set('\r\n\0"\x1f.+-')
    if not isinstance(delimiter, str) or not delimiter or any(c in forbidden or c.isalnum() for c in delimiter):
        raise ConfigError(
            f"delimiter: expected what stands between two columns, as '|' or a tab, and is not part of a number or "
            f"name; found {delimiter!r}."
        )
    meant = next((name for name, separators in SEPARATORS.items() if delimiter in separators), "csv")
    if requested not in (None, "csv", meant):
        raise ConfigError(
            f"delimiter: {delimiter!r} is not what separates columns in the {requested} format. Leave out the format, "
            f"or say csv."
        )
    return meant


def detect_format(source: Source, requested: str | None) -> str:
    """Name of the format of `source`, one of `FORMATS`.

    Parameters
    ----------
    source : Source
        The file.
    requested : str or None
        The format that the caller asked for; it is checked against the content.

    Raises
    ------
    DataError
        If the content cannot be in the requested format, or in any.
    """
    actual = _binary_format(source)
    if requested is not None:
        if actual != requested and (actual is not None or requested in _BINARY):
            raise data_error(
                source.path,
                f"expected the {requested} format as asked for, found {describe_content(source, actual)}. "
                "Name its real format, or none to have it detected.",
            )
        return requested
    if actual is not None:
        return actual
    by_name = _SUFFIXES.get(_suffix(source))
    line = first_line(source)
    if _JSON_OBJECT.match(line) or _JSON_ARRAY.match(line):
        return "jsonl"
    counts = {name: len(split(line, separator_of(name, line))) for name in SEPARATORS}
    # Reading two columns reports that the ratings are missing.
    candidates = [name for name, count in counts.items() if count >= 3] or [n for n, c in counts.items() if c == 2]
    if by_name in candidates:
        return by_name
    if candidates:
        return candidates[0]
    if by_name in SEPARATORS or by_name == "jsonl":
        return by_name  # reading it reports what is wrong with the first line
    raise data_error(
        source.path,
        "expected a first line with user, item and rating separated by a tab, '::', comma, semicolon or blank "
        "(or say what separates them: delimiter=, --delimiter), JSON lines, or a Parquet or Arrow file; "
        f"found {describe_content(source, None)}.",
        line=1,
    )


def first_line(source: Source) -> str:
    """Return the first line that is not empty, without its end."""
    for line in source.head.decode("utf-8-sig", errors="replace").splitlines():
        if line.strip():
            return line
    return ""


def separator_of(format_name: str, line: str) -> str:
    """Return the separator of a text format that gives `line` the most fields."""
    return max(SEPARATORS[format_name], key=lambda separator: len(split(line, separator)))


def split(line: str, separator: str) -> list[str]:
    """Return the fields of a line without its end; in some formats fields may be quoted."""
    if separator == " ":
        return line.split()
    if is_quoted(separator) and '"' in line:
        return next(csv.reader([line], delimiter=separator))
    return line.split(separator)


def is_quoted(separator: str) -> bool:
    """Whether quotes count between such separators: not in formats that know none, nor where it has several bytes."""
    return len(separator.encode()) == 1 and separator not in (*SEPARATORS["tsv"], *SEPARATORS["libmf"])


def describe_content(source: Source, binary_format: str | None) -> str:
    """Describe what a file holds, in words for an error message."""
    if binary_format is not None:
        return f"a file in the {binary_format} format"
    return f"text that begins with {first_line(source)[:60]!r}"


def _binary_format(source: Source) -> str | None:
    """Return the binary format that the first bytes announce, or None for text."""
    head = source.head
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if head.startswith((ARROW_FILE_MAGIC, _ARROW_STREAM_MARKER)):
        return "arrow"
    if head.startswith(b"PK\x03\x04"):
        raise data_error(source.path, "found a zip archive. Unpack it and name the file of ratings in it.")
    if b"\0" in head:
        before = head[: head.index(b"\0")]
        if _TEXT.fullmatch(before):
            shown = before[-60:].rpartition(b"\n")[2].decode(errors="replace")
            raise source.error(
                f"expected text, found a NUL byte after {shown!r}. Correct or remove the line.",
                line=before.count(b"\n") + 1,
            )
        raise data_error(
            source.path,
            f"expected text, Parquet or Arrow, found binary data that begins with {head[:8].hex(' ')}.",
        )
    return None


def _suffix(source: Source) -> str:
    """Last suffix of the file name in lower case, not counting that of a compression."""
    name = source.path.name.lower()
    for suffix in (".gz", ".bz2", ".zst", ".zstd"):
        name = name.removesuffix(suffix)
    return name[name.rfind(".") :] if "." in name else ""
