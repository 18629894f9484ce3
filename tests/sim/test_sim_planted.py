"""Every planted fault is found within 1,000 seeds; tests/README.md has the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.planted import FAULTS, SEEDS, first_found

pytestmark = pytest.mark.slow


def test_the_faults_are_listed():
    """There are at least twelve, and tests/README.md names each in its table."""
    assert len(FAULTS) >= 12
    table = (Path(__file__).parents[1] / "README.md").read_text()
    assert [text for text in FAULTS if f"| {text} | " not in table] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("text", FAULTS)
def test_the_fault_is_found(text, monkeypatch):
    """Some seed below 1,000 shows a violation."""
    fault = FAULTS[text]
    fault.plant(monkeypatch)
    found = first_found(fault)
    assert found is not None, f"{text}: not found in {SEEDS} seeds"


# Several faults are looked for in the same schedules: these are named by the last of them.
_KINDS = {repr(fault.narrowed): text for text, fault in FAULTS.items() if fault.narrowed}


@pytest.mark.parametrize("text", _KINDS.values())
def test_the_narrowed_schedules_are_right_without_the_fault(text):
    """Where a fault is looked for in schedules of one kind, these show nothing without it."""
    assert first_found(FAULTS[text], seeds=100) is None
