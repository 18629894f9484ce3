"""Print the table of tests/README.md: ``cd tests && python -m support.planted``."""

from __future__ import annotations

import pytest

from support.planted import FAULTS, first_found

for text, planted in FAULTS.items():
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch)
        seed, found_by = first_found(planted) or (None, "nothing")
    print(f"| {text} | {found_by} | {seed} |{' narrowed' if planted.narrowed else ''}", flush=True)  # noqa: T201
