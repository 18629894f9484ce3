"""``python -m nbps``: the same as ``nbps``."""

from __future__ import annotations

from nbps.cli import app

if __name__ == "__main__":
    app(prog_name="nbps")
