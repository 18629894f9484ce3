"""Where the real data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_PROJECT = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; skips the test where it is absent."""
    folder = Path(os.environ.get("NBPS_DATA", _BESIDE_THE_PROJECT))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set NBPS_DATA to their folder")
    return folder
