"""Every planted fault is found within 1,000 seeds; tests/README.md has the table."""

from __future__ import annotations

import pytest
from planted import FAULTS, SEEDS, first_found


def test_there_are_enough_faults():
    """At least twelve, and each breaks something of its own."""
    assert len(FAULTS) >= 12


@pytest.mark.timeout(300)
@pytest.mark.parametrize("text", FAULTS)
def test_the_fault_is_found(text, monkeypatch):
    """Some seed below 1,000 shows a violation."""
    fault = FAULTS[text]
    fault.plant(monkeypatch)
    found = first_found(fault)
    assert found is not None, f"{text}: not found in {SEEDS} seeds"


@pytest.mark.parametrize("text", [text for text, fault in FAULTS.items() if fault.narrowed])
def test_the_narrowed_schedules_are_right_without_the_fault(text):
    """Where a fault is looked for in schedules of one kind, these show nothing without it."""
    assert first_found(FAULTS[text], seeds=100) is None
