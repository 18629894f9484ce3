"""Reading the svmlight format, also called libsvm: lines of a target and of the columns that are not 0."""

from __future__ import annotations

import re
import zlib

import numpy as np
import numpy.typing as npt

from nbps.data.features.arrays import by_columns
from nbps.data.features.features import Features
from nbps.data.lines import SHOWN_CHARACTERS, first_bad_line
from nbps.data.source import Source
from nbps.errors import DataError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"\s*(?:{_NUMBER}(?:\s+\d+:{_NUMBER})*)?\s*(?:#.*)?")
_BEGIN = re.compile(rf"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*{_NUMBER}[ \t]+\d+:{_NUMBER}".encode())


def is_svmlight(head: bytes) -> bool:
    """Whether content that begins so is of this format."""
    return _BEGIN.match(head) is not None


def read_svmlight(source: Source) -> tuple[Features, npt.NDArray[np.float64]]:
    """Read targets and columns; these count from 1, or from 0 where there is a column 0.

    Raises
    ------
    DataError
        If a line is not of this format; the message has its number.
    """
    try:
        with source.open_python() as stream:
            lines = stream.read().decode("ascii").splitlines()
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise source.damage(error) or _explained(source) from None
    if not all(map(_LINE.fullmatch, lines)):
        raise _explained(source)
    lines = [kept for line in lines if (kept := line.partition("#")[0].strip())]
    counts = np.array([line.count(":") for line in lines], np.int64)
    if not counts.any():
        raise source.error("expected columns that are not 0, found targets alone.")
    numbers = np.array(" ".join(lines).replace(":", " ").split(), np.float64)
    is_target = np.zeros(numbers.size, bool)
    is_target[np.concatenate([[0], np.cumsum(2 * counts + 1)[:-1]])] = True
    pairs = numbers[~is_target].reshape(-1, 2)
    columns = pairs[:, 0].astype(np.int64)
    columns -= columns.min() > 0
    rows = np.repeat(np.arange(len(lines)), counts)
    return by_columns(pairs[:, 1], rows, columns, (len(lines), int(columns.max()) + 1)), numbers[is_target]


def _explained(source: Source) -> DataError:
    found = first_bad_line(source, _what_is_wrong)
    return found or source.error("expected lines 'target column:value ...'.")


def _what_is_wrong(number: int, line: str) -> str | None:
    if _LINE.fullmatch(line):
        return None
    return f"expected 'target column:value ...', found {line[:SHOWN_CHARACTERS]!r}"
