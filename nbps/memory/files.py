"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_files(contents: Mapping[Path, Any]) -> None:
    """Write `contents`, each bytes-like or a function that is given the open file; the last file stands for all.

    All are first written beside their places. Then the last one is removed if it exists, the others are renamed, and it
    is renamed after them: a reader that finds it finds the others as they belong to it. Until then what was there is
    untouched, also when the disk is full.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in contents}
    *_, last = contents
    try:
        for path, part in parts.items():
            with part.open("wb") as file:
                content = contents[path]
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if len(parts) > 1:
            last.unlink(missing_ok=True)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
