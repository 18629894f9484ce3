"""The command line: ``nbps train``, ``nbps recommend``, ``nbps topics``, ``nbps run``, ``nbps sim``, ``nbps doctor``.

Only typer is imported here. What a command needs beyond it is imported when the command runs, because NumPy,
Numba and Arrow take longer than printing a help page should.
"""

from __future__ import annotations

import atexit
import gc
from typing import Annotated

import typer

from nbps.cli.doctor import doctor
from nbps.cli.failure import FailureGroup
from nbps.cli.recommend import recommend
from nbps.cli.run import run
from nbps.cli.simulate import sim
from nbps.cli.topics import topics
from nbps.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    name="nbps",
    cls=FailureGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(train)
app.command()(recommend)
app.command()(topics)
app.command(context_settings={"allow_interspersed_args": False})(run)
app.command()(sim)
app.command()(doctor)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from nbps.cli.versions import version_of

        typer.echo(f"nbps {version_of('nbps')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Train models on all cores with a stale-synchronous-parallel parameter server."""
    atexit.register(gc.freeze)  # looking for garbage in all modules, at the end of a process, takes 30 ms
