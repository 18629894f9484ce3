"""Versions of installed packages."""

from __future__ import annotations

import importlib.metadata


def version_of(package: str) -> str:
    """Return the version of an installed package, or ``"not installed"``.

    nbps itself can run from a checkout, which is not an installation.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
