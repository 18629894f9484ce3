"""How commands fail: one line on standard error and an exit code, or the traceback where it is asked for.

Codes: 1 for an error of nbps, 2 for wrong usage (typer's own), 130 after Ctrl-C. Anything else is a defect of
nbps and keeps its traceback.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.core

from nbps.errors import Error

_DEBUG_KEY = "nbps.debug"
_EXPECTED = {  # by pydantic's types of errors
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
}


def _remember(context: typer.Context, is_wanted: bool) -> bool:
    # Kept where `FailureGroup` finds it: the context of the outermost command.
    context.find_root().meta[_DEBUG_KEY] = is_wanted
    return is_wanted


# A parameter of every command.
Debug = Annotated[
    bool,
    typer.Option("--debug", envvar="NBPS_DEBUG", callback=_remember, help="Show the traceback of an error."),
]


class FailureGroup(typer.core.TyperGroup):
    """The outermost group of commands; turns errors into lines and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises
        ------
        typer.BadParameter
            If an option has a wrong value; typer ends the command with code 2.
        typer.Exit
            With code 1 after an `nbps.errors.Error`, with 130 after Ctrl-C.
        nbps.errors.Error
            Under ``--debug``.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain_words(error)
            raise
        except Error as error:
            if ctx.meta.get(_DEBUG_KEY):
                raise
            _print_line(f"error: {' '.join(str(error).split())}", "bold red")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _print_line("interrupted", "bold red")
            raise typer.Exit(130) from None


def _plain_words(error: typer.BadParameter) -> str:
    """Return what is wrong with an option, without the words of pydantic, with which newer releases of typer check."""
    cause: Any = error.__cause__  # pydantic's ValidationError, where typer has pydantic
    if not hasattr(cause, "errors"):
        return error.message
    (detail, *_) = cause.errors()
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**context)}, found {found}."
    return str(context.get("error", error.message))


def _print_line(text: str, style: str) -> None:
    from rich.console import Console

    # soft_wrap: a message is one line however narrow the terminal is, so that grep finds it.
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)
