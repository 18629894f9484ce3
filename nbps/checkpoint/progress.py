"""What a job keeps with its tables: where it stood, and how it took checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbps.checkpoint.format import Fields


@dataclass(frozen=True)
class Progress:
    """The `state` of a job's checkpoint.

    Attributes
    ----------
    run : int
        Number of the run that was being carried out, or would have been next.
    every : int
        Clocks between two checkpoints of its plan; 0 if it had none.
    keep : int or None
        How many of them stay; None for all.
    user : object
        What the user gave to keep; JSON.
    """

    run: int
    every: int = 0
    keep: int | None = None
    user: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest holds of it."""
        return {"run": self.run, "every": self.every, "keep": self.keep, "user": self.user}

    @classmethod
    def from_json(cls, state: object, where: str) -> Progress:
        """Return what a manifest holds; older ones have no plan, and one that no job wrote has nothing.

        Raises
        ------
        CheckpointError
            If a value is not what it should be.
        """
        given = state if isinstance(state, Mapping) else {}
        fields = Fields({"run": 0, "every": 0, "keep": None, "user": None, **given}, where)
        keep = None if fields.get("keep") is None else fields.whole("keep", 1)
        return cls(fields.whole("run"), fields.whole("every"), keep, fields.get("user"))
