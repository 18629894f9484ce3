"""Where a command's output goes: readable text or JSON, to which stream, under ``--json`` and ``--quiet``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console


@dataclass(frozen=True)
class Output:
    """The choice of the user between text and JSON."""

    json: bool
    quiet: bool = False

    def progress(self) -> Console:
        """Return the console for what happens along the way: standard error, or nothing."""
        return Console(stderr=True, quiet=self.quiet, highlight=False)

    def result(self) -> Console:
        """Return the console for readable results: standard output, or standard error beside JSON."""
        return Console(stderr=self.json, quiet=self.quiet, highlight=False)

    def print_rows(self, rows: Sequence[tuple[str, str]], *, right: bool = False) -> None:
        """Print two columns as a readable result, the second aligned to the right if `right`.

        Not a table of rich's: that would cut long ids and paths to the width of the terminal, and take brackets
        in them for markup.
        """
        console = self.result()
        first = max((len(name) for name, _ in rows), default=0)
        second = max((len(text) for _, text in rows), default=0) if right else 0
        for name, text in rows:
            console.print(f"{name:<{first}}  {text:>{second}}", markup=False, soft_wrap=True)

    def write_json(self, value: Any) -> None:
        """Print `value` as one line of JSON on standard output, if JSON is wanted."""
        if self.json:
            typer.echo(json.dumps(_plain(value), allow_nan=False))


def _plain(value: Any) -> Any:
    """Convert a value to what JSON has; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.1 of float32 is 0.1, not 0.10000000149011612
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
