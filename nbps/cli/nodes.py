"""A command that is carried out by several nodes: it starts itself once for each, with its own options."""

from __future__ import annotations

import enum
from typing import Any, NoReturn

import typer

_PLAYED = ("nodes", "transport")  # options of the process that starts the nodes


def play(context: typer.Context, nodes: int, workers: int | None, transport: str) -> NoReturn:
    """Carry out the command of `context` on `nodes` nodes on this machine, as ``nbps run`` does.

    Raises
    ------
    typer.Exit
        With the exit code of the node that failed first, or 0.
    """
    from nbps.cli.run import run

    run("nbps", nodes, command_line(context), workers=workers, transport=transport, module=True)
    raise typer.Exit


def command_line(context: typer.Context) -> list[str]:
    """Return the words that gave `context` its options, but for those that are about nodes."""
    words: list[str] = []
    above: Any = context
    while above.parent is not None:
        words.insert(0, above.info_name)
        above = above.parent
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in _PLAYED or value is None or value == parameter.default:
            continue
        if isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            words += [parameter.opts[0], str(value.value if isinstance(value, enum.Enum) else value)]
    return words
