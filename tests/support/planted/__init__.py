"""Deliberate faults of the protocol, in files by what they break, in the order of tests/README.md's table."""

from __future__ import annotations

from support.planted import worker  # isort: skip
from support.planted import links  # isort: skip
from support.planted import runs  # isort: skip
from support.planted import watch  # isort: skip
from support.planted import saving  # isort: skip
from support.planted import halting  # isort: skip
from support.planted import replicas  # isort: skip
from support.planted import shards  # isort: skip
from support.planted import memory  # isort: skip
from support.planted.faults import FAULTS, SEEDS, first_found

__all__ = [
    "FAULTS", "SEEDS", "first_found", "halting", "links", "memory", "replicas", "runs", "saving", "shards", "watch",
    "worker",
]  # fmt: skip
