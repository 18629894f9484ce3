"""What all tests of several nodes need."""

import pytest

from nbps.kernels.prepare import prepare_job


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile agents' kernels before a node is waited for: with an empty cache that takes longer than tests wait."""
    kinds = {("int64", access, False, False) for access in ("direct", "cached", "exclusive")}
    prepare_job(kinds | {("float32", "direct", True, False)}, bounded=False, agents=2)
