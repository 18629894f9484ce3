"""A data file as a stream of bytes: whether it can be read at all, and how it is compressed.

Everything that opens a data file goes through here, so that each compression works for every format.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from nbps.data.memory import check_fits
from nbps.errors import DataError

# Detection looks at this much of the content; also the sample that decides whether ids are integers.
HEAD_BYTES = 64 * 1024
# How files of each compression, by Arrow's names, begin; bzip2's three letters alone could be text.
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_MAGIC_BYTES = 10
_ROW_BYTES = 16  # of a rating in memory, and of the column that is being coded


def data_error(
    path: Path, what: str, *, line: int | None = None, row: int | None = None, subject: str = "ratings"
) -> DataError:
    """Make the error about a data file: which file, which line or row (from 1), and what is wrong there."""
    place = f", line {line}" if line is not None else f", row {row}" if row is not None else ""
    return DataError(f"cannot read {subject} from {str(path)!r}{place}: {what}")


@dataclass(frozen=True)
class Source:
    """A file that exists, is not empty and can be opened."""

    path: Path
    compression: str | None  # "gzip", "bz2", "zstd", or None for a plain file
    head: bytes  # the first HEAD_BYTES of the content, decompressed
    subject: str = "ratings"  # what is read from it, as errors call it

    def error(self, what: str, *, line: int | None = None, row: int | None = None) -> DataError:
        """Make the error about this file."""
        return data_error(self.path, what, line=line, row=row, subject=self.subject)

    def open(self) -> pa.NativeFile:
        """Open the content as a stream, decompressed."""
        file = pa.OSFile(str(self.path))
        return file if self.compression is None else pa.CompressedInputStream(file, self.compression)

    def open_python(self) -> BinaryIO:
        """Open the content for code that goes through it line by line."""
        return _open(self.path, self.compression)

    def damage(self, error: Exception, *, line: int | None = None) -> DataError | None:
        """Make the error for a compressed file that ends early or does not decompress; None if `error` is another."""
        return _damage(self.path, self.compression, error, self.subject, line)

    def check_fits(self, rows: int, known: bool = True) -> None:
        """Raise `OutOfMemoryError` if so many ratings do not fit the memory; `known` unless they were estimated."""
        about = "" if known else "about "
        check_fits(f"cannot read ratings from {str(self.path)!r}: its {about}{rows:,} ratings need", rows * _ROW_BYTES)

    def estimated_lines(self) -> int:
        """Return how many lines a text file has, rather too few: of twice the length of the longest that begin it.

        In a sorted file later lines are longer.
        """
        longest = 2 * (1 + max(map(len, self.head.split(b"\n"))))
        size = self.path.stat().st_size
        if self.compression is not None:
            size = size * len(self.head) // len(zlib.compress(self.head, 1))  # most compress better
        return size // longest

    def read_content(self) -> bytes:
        """Return the content in memory, decompressed, for code that takes it apart.

        Raises
        ------
        DataError
            If it cannot be read to its end.
        """
        with self.open_python() as stream:
            try:
                return stream.read()
            except (EOFError, OSError, zlib.error) as error:
                raise self.damage(error) or self.error(f"it cannot be read: {error}.") from None

    def read_lines(self) -> list[str]:
        r"""Return the lines of UTF-8 text: they end at ``\n``, ``\r\n`` or ``\r``, not at other white space.

        Raises
        ------
        DataError
            If it cannot be read, or is not UTF-8; names the line.
        """
        content = self.read_content()
        try:
            lines = io.StringIO(content.decode("utf-8-sig"), newline=None)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise self.error("expected UTF-8 text, found other bytes. Convert the file.", line=line) from None
        return [line.removesuffix("\n") for line in lines]

    def read_all(self) -> pa.Buffer:
        """Return the content in memory, for the binary formats, which seek; a plain file is mapped."""
        if self.compression is None:
            with pa.memory_map(str(self.path)) as file:
                return file.read_buffer()
        with self.open() as stream:
            return pa.py_buffer(stream.read())


def open_source(path: str | Path, subject: str = "ratings") -> Source:
    """Look at a file before anything is read from it.

    Raises
    ------
    DataError
        If the file is missing, a folder, not a regular file, not readable, empty, or damaged in its compression.
    """
    path, compression = Path(path), None
    fail = functools.partial(data_error, path, subject=subject)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise fail("expected a file, found a folder. Name one of the files in it.")
        if not stat.S_ISREG(mode):
            raise fail("expected a regular file, found a pipe or device. Save it first.")
        with path.open("rb") as file:
            start = file.read(_MAGIC_BYTES)
        compression = next((name for name, magic in _MAGIC.items() if magic.match(start)), None)
        with _open(path, compression) as stream:
            head = stream.read(HEAD_BYTES)
    except FileNotFoundError:
        raise fail(f"there is no such file (looked in {path.absolute().parent}).") from None
    except (EOFError, OSError, zlib.error) as error:
        damage = _damage(path, compression, error, subject)
        what = error.strerror if isinstance(error, OSError) else None
        raise damage or fail(f"the file cannot be opened: {what or error}.") from None
    if not head:
        raise fail(f"expected {subject}, found an empty file.")
    return Source(path, compression, head, subject)


def _open(path: Path, compression: str | None) -> BinaryIO:
    if compression is None:
        return path.open("rb")
    if compression == "zstd":  # Python has none before 3.14
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), compression)))
    return cast(BinaryIO, (gzip if compression == "gzip" else bz2).open(path))


def _damage(
    path: Path, compression: str | None, error: Exception, subject: str, line: int | None = None
) -> DataError | None:
    # What the system says has a number; what a decompressor says has none.
    if compression is None or (isinstance(error, OSError) and error.errno is not None):
        return None
    early = isinstance(error, EOFError) or "Truncated" in str(error)
    found = "a file that ends early" if early else f"damaged data ({error})"
    return data_error(
        path, f"expected a whole {compression} file, found {found}. Copy it again.", line=line, subject=subject
    )
