"""A data file as a stream of bytes: whether it can be read at all, and whether it is compressed.

Everything that opens a file of ratings goes through here, so that gzip works for every format.
"""

from __future__ import annotations

import gzip
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from nbps.errors import DataError

# Detection looks at this much of the content; also the sample that decides whether ids are integers.
HEAD_BYTES = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"


def data_error(path: Path, what: str, *, line: int | None = None, row: int | None = None) -> DataError:
    """Make the error about a data file: which file, which line or row (from 1), and what is wrong there."""
    place = f", line {line}" if line is not None else f", row {row}" if row is not None else ""
    return DataError(f"cannot read ratings from {str(path)!r}{place}: {what}")


@dataclass(frozen=True)
class Source:
    """A file that exists, is not empty and can be opened."""

    path: Path
    is_gzip: bool
    head: bytes  # the first HEAD_BYTES of the content, decompressed

    def error(self, what: str, *, line: int | None = None, row: int | None = None) -> DataError:
        """Make the error about this file."""
        return data_error(self.path, what, line=line, row=row)

    def open(self) -> pa.NativeFile:
        """Open the content as a stream, decompressed."""
        file = pa.OSFile(str(self.path))
        return pa.CompressedInputStream(file, "gzip") if self.is_gzip else file

    def open_python(self) -> BinaryIO:
        """Open the content for code that goes through it line by line."""
        return cast(BinaryIO, gzip.open(self.path)) if self.is_gzip else self.path.open("rb")

    def read_all(self) -> pa.Buffer:
        """Return the content in memory, for the binary formats, which seek; a plain file is mapped."""
        if not self.is_gzip:
            with pa.memory_map(str(self.path)) as file:
                return file.read_buffer()
        with self.open() as stream:
            return pa.py_buffer(stream.read())


def open_source(path: str | Path) -> Source:
    """Look at a file before anything is read from it.

    Raises
    ------
    DataError
        If the file is missing, a folder, not a regular file, not readable, empty, or a broken gzip file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise data_error(path, "expected a file, found a folder. Name one of the files in it.")
        if not stat.S_ISREG(mode):
            raise data_error(path, "expected a regular file, found a pipe or device. Save it first.")
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except FileNotFoundError:
        raise data_error(path, f"there is no such file (looked in {path.absolute().parent}).") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_gzip(path, error) from None
    except OSError as error:
        raise data_error(path, f"the file cannot be opened: {error.strerror or error}.") from None
    if not head:
        raise data_error(path, "expected ratings, found an empty file.")
    return Source(path, is_gzip, head)


def broken_gzip(path: Path, error: Exception, *, line: int | None = None) -> DataError:
    """Make the error for a gzip file that ends early or does not decompress."""
    found = "a file that ends early" if isinstance(error, EOFError) else f"damaged data ({error})"
    return data_error(path, f"expected a whole gzip file, found {found}. Copy it again.", line=line)
