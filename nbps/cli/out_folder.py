"""Whether a model can be saved in a folder, found out before the time for training is spent."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nbps.errors import ConfigError


def check_writable(folder: Path) -> None:
    """Check that `folder` can be written, or made; leaves nothing behind.

    Raises
    ------
    ConfigError
        If it is a file, or it or the folder above it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {str(folder)!r}: expected a folder, found a file. Name another folder.")
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        # Permission bits do not tell: they say nothing to the superuser and of read-only file systems.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"--out {str(folder)!r}: cannot write in {str(nearest)!r}: {error.strerror or error}. Name another folder."
        ) from None
