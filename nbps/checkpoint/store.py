"""Where checkpoints lie: a folder of folders of files, local or at any `pyarrow.fs` file system.

A file appears whole or not at all: locally it is written beside its place, synced and renamed, and its folder synced;
an object store makes an object appear whole by itself. Locally everything that changes the disk is a call of `os`, one
after the other, so that a test can kill the process before each of them. All errors are `CheckpointError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from nbps.errors import CheckpointError


class Sink(Protocol):
    """What a file's bytes are written to."""

    def write(self, data: Any) -> Any:
        """Write all of bytes-like `data`."""


class Store:
    """The folder `root` at the file system `files`; paths below are relative to it, ``folder/file``.

    Attributes
    ----------
    shown : str
        The folder as messages name it: the path or URI that opens it.
    """

    def __init__(self, files: pafs.FileSystem, root: str, base: str, query: str = "") -> None:
        self.files = files
        self.root = root.rstrip("/")
        self._base = base.rstrip("/")
        self._query = query  # of a URI, from the question mark
        self.shown = self._base + query or "/"

    def at(self, path: str) -> str:
        """Return `path` as the file system names it."""
        return "/".join(part for part in (self.root, path) if part)

    def split(self) -> tuple[Store, str]:
        """Return the folder that holds this one, and the name of this one in it."""
        above, _, name = self.root.rpartition("/")
        return type(self)(self.files, above, self._base.removesuffix(f"/{name}"), self._query), name

    def show(self, path: str) -> str:
        """Return `path` as messages name it: the path or URI that opens it."""
        return f"{self._base}/{path}{self._query}" if path else self.shown

    def list(self, path: str = "") -> dict[str, int | None]:
        """Return what is in folder `path`, if it is there: names with the size of a file, None for a folder."""
        with self.errors(f"cannot list {self.show(path)}"):
            found = self.files.get_file_info(pafs.FileSelector(self.at(path), allow_not_found=True))
            known = {pafs.FileType.File, pafs.FileType.Directory}
            return {info.base_name: info.size for info in found if info.type in known}

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for reading."""
        with self.errors(f"cannot open {self.show(path)}"):
            return self.files.open_input_file(self.at(path))

    def read(self, path: str, bytes_limit: int) -> bytes:
        """Return what is in a file of at most `bytes_limit` bytes."""
        with self.errors(f"cannot read {self.show(path)}"), self.open(path) as file:
            size = file.size()
            if size > bytes_limit:
                raise CheckpointError(f"{self.show(path)} has {size:,} bytes; expected at most {bytes_limit:,}")
            return bytes(file.read(size))

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Sink]:
        """Write a file that is there when the block is left without an error."""
        with self.errors(f"cannot write {self.show(path)}"):
            stream = self.files.open_output_stream(self.at(path))
            try:
                yield stream
                stream.close()
            except BaseException:
                # A stream cannot be given up, only closed: then what it has got appears, and is removed again.
                with contextlib.suppress(OSError, pa.ArrowException):
                    stream.close()
                    self.files.delete_file(self.at(path))
                raise

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, if it is not there."""
        with self.errors(f"cannot make {self.show(path)}"):
            self.files.create_dir(self.at(path), recursive=True)

    def remove_file(self, path: str) -> None:
        """Remove a file if it is there."""
        with self.errors(f"cannot remove {self.show(path)}"), contextlib.suppress(FileNotFoundError):
            self.files.delete_file(self.at(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with the files in it; those that somebody adds meanwhile may stay."""
        with self.errors(f"cannot remove {self.show(path)}"), contextlib.suppress(FileNotFoundError):
            self.files.delete_dir(self.at(path))

    def prove_writable(self, label: str) -> None:
        """Make the folder and a file in it, and remove the file; raise `CheckpointError` if that cannot be done."""
        self.make_folder("")
        with self.create(f"probe-{label}") as sink:
            sink.write(b"probe")
        self.remove_file(f"probe-{label}")

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be written, None where nobody knows."""
        return None

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Raise what the file system raises as a `CheckpointError` that says `what`."""
        try:
            yield
        except CheckpointError:
            raise
        except (OSError, pa.ArrowException, UnicodeError, MemoryError) as error:
            raise CheckpointError(f"checkpoint: {what}: {error}") from error


def is_full(error: BaseException) -> bool:
    """Return whether the disk, or what this user may have of it, was too small."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


class _Descriptor:
    """A sink that writes to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Any) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def _sync_folder(path: str) -> None:
    descriptor = os.open(path or "/", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalStore(Store):
    """A local folder: what is there stays there when the machine loses power."""

    def at(self, path: str) -> str:
        """Return the absolute path of `path`."""
        return f"{self.root}/{path}" if path else self.root or "/"

    def list(self, path: str = "") -> dict[str, int | None]:
        """Return what is in folder `path`, as `Store.list`; a file that another node moves meanwhile is left out.

        What is neither file nor folder is left out: reading a pipe would wait for ever.
        """
        found: dict[str, int | None] = {}
        with self.errors(f"cannot list {self.show(path)}"), contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.at(path)):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir() or entry.is_file():
                        found[entry.name] = None if entry.is_dir() else entry.stat().st_size
        return found

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Sink]:
        """Write a file beside its place, sync it, move it to its place and sync the folder."""
        target = self.at(path)
        folder, _, name = target.rpartition("/")
        part = f"{folder}/.{name}.part"  # the name holds the node's rank: no other process writes it
        with self.errors(f"cannot write {self.show(path)}"):
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                try:
                    yield _Descriptor(descriptor)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(part, target)  # noqa: PTH105
                _sync_folder(folder)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    os.unlink(part)  # noqa: PTH108
                raise

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, and sync each into the one that holds it."""
        with self.errors(f"cannot make {self.show(path)}"):
            self._make(self.at(path))

    def _make(self, folder: str) -> None:
        above = folder.rpartition("/")[0]
        if above and not Path(above).is_dir():
            self._make(above)
        try:
            os.mkdir(folder)  # noqa: PTH102
        except FileExistsError:
            if not Path(folder).is_dir():
                raise
        _sync_folder(above)

    def remove_file(self, path: str) -> None:
        """Remove a file if it is there, and sync that it is gone: what is removed after it goes after it."""
        with self.errors(f"cannot remove {self.show(path)}"), contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(path))  # noqa: PTH108
            _sync_folder(self.at(path).rpartition("/")[0])

    def remove_folder(self, path: str) -> None:
        """Remove a folder with the files in it; it stays if somebody adds one meanwhile."""
        folder = Path(self.at(path))
        with self.errors(f"cannot remove {self.show(path)}"):
            try:
                for file in list(folder.iterdir()):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(file)  # noqa: PTH108
                os.rmdir(folder)  # noqa: PTH106
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def prove_writable(self, label: str) -> None:
        """Make the folder and a file without a name in it."""
        self.make_folder("")
        with self.errors(f"cannot write into {self.shown}"), tempfile.TemporaryFile(dir=self.root or "/") as file:
            file.write(b"probe")

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be written."""
        try:
            status = os.statvfs(self.root or "/")
        except OSError:
            return None
        return status.f_frsize * status.f_bavail


def open_store(root: str | Path | pafs.FileSystem) -> Store:
    """Return the folder `root`: a local path, a URI of `pyarrow.fs`, or a file system, which stands for its root.

    Raises
    ------
    CheckpointError
        If it is none of these.
    """
    query = ""
    if isinstance(root, pafs.FileSystem):
        files, path = root, ""
        while isinstance(files, pafs.SubTreeFileSystem):
            path = "/".join(part.rstrip("/") for part in (files.base_path, path) if part)
            files = files.base_fs
        shown = f"{type(files).__name__}:{path}"
    elif isinstance(root, str) and "://" in root:
        shown, mark, rest = root.partition("?")
        query = mark + rest
        try:
            files, path = pafs.FileSystem.from_uri(root)
        except (OSError, pa.ArrowException, ValueError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint: cannot use {root!r}: {error}; expected a local path or a URI of a file system that "
                f"pyarrow knows, as in s3://bucket/folder"
            ) from error
    elif isinstance(root, str | Path) and str(root) and "\0" not in str(root):
        files, path = pafs.LocalFileSystem(), str(Path(root).absolute())
        shown = path
    else:
        raise CheckpointError(f"checkpoint: root is {root!r}; expected a local path, a URI or a pyarrow.fs.FileSystem")
    kind = LocalStore if isinstance(files, pafs.LocalFileSystem) else Store
    return kind(files, path, shown, query)
