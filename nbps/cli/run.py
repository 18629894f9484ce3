"""``nbps run``: all nodes of a job on one machine, or this machine's node of a job on several."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from nbps.cli.failure import Debug

_NODES, _SEVERAL = "Nodes", "One node of several machines"
# A node notices within the 30 s of `failure_timeout_s` that another one is gone, and then needs a little to end.
_GRACE_S = 40.0
# What says whom a node may trust, and would contradict what is set here.
_TRUST = ("NBPS_SECRET", "NBPS_SECRET_FILE", "NBPS_INSECURE", "NBPS_BIND")


def _check_grace(value: float) -> float:
    if not value >= 0:
        raise typer.BadParameter(f"expected seconds >= 0, or inf, found {value:g}.")
    return value


# Long because its parameters are the options of the command.
def run(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="Python script, or module with -m.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the job.", rich_help_panel=_NODES)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Passed to it as they are.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="NBPS_WORKERS",
            help="Workers on each node, where the script does not say. Default: the cores, shared by the nodes here.",
            rich_help_panel=_NODES,
        ),
    ] = None,
    transport: Annotated[
        str, typer.Option(help="How the nodes talk: tcp, or shm on one machine.", rich_help_panel=_NODES)
    ] = "tcp",
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is a module, as for python -m.")] = False,
    grace: Annotated[
        float,
        typer.Option(
            callback=_check_grace,
            help="Seconds that the others have to end by themselves after a node failed; inf if they are to go on.",
            rich_help_panel=_NODES,
        ),
    ] = _GRACE_S,
    node_rank: Annotated[
        int | None,
        typer.Option(min=0, help="Start only this node here, counted from 0.", rich_help_panel=_SEVERAL),
    ] = None,
    rendezvous: Annotated[
        str | None, typer.Option(help="host:port of node 0. Default: NBPS_RENDEZVOUS.", rich_help_panel=_SEVERAL)
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the secret of the job, with mode 0600.", rich_help_panel=_SEVERAL),
    ] = None,
    debug: Debug = False,
) -> None:
    """Start a script once for each node of a job: all of them here, or one with --node-rank.

    Lines of other nodes than the first one start with their number. The exit code is 0, or that of the node that
    failed first.
    """
    from nbps.cli.launch import Launch
    from nbps.nodes.nodes import Nodes
    from nbps.runtime.descriptors import fill_standard_descriptors
    from nbps.transport.mesh.roll import Roll, describe

    _check_script(script, module)
    if node_rank is None:
        for name, value in (("--rendezvous", rendezvous), ("--secret-file", secret_file)):
            if value is not None:
                raise typer.BadParameter(
                    f"{name} is for one node of several machines; add --node-rank, or leave it out."
                )
    fill_standard_descriptors()  # before the roll, which is not to be what a node's print goes to
    with contextlib.ExitStack() as stack:
        roll = None
        if node_rank is None:
            roll = stack.enter_context(contextlib.closing(Roll.made(nodes)))
            environments = _all_here(nodes, workers, transport, roll.path)
        else:
            environments = {node_rank: _one_here(nodes, node_rank, workers, transport, rendezvous, secret_file)}
        for environment in environments.values():
            Nodes.from_environment(environment)  # what is wrong is said once, not by every node
        ending = Launch([*(["-m"] if module else []), script, *(arguments or [])], environments, grace, roll).run()
    if ending.rank is not None:
        first = " first" if len(environments) > 1 else ""
        text = f"node {ending.rank} failed{first}: {describe(ending.status)}"
        if ending.left is not None:
            because = f"node {ending.rank} failed because of it: {describe(ending.status)}"
            text = f"node {ending.left} left before the others were done: {describe(0)}; {because}"
        with contextlib.suppress(OSError):  # a terminal that was closed; the exit code still says it
            typer.secho("interrupted" if ending.interrupted_by else f"error: {text}", err=True, fg="red", bold=True)
    raise typer.Exit(ending.exit_code)


def _all_here(nodes: int, workers: int | None, transport: str, roll: str) -> dict[int, dict[str, str]]:
    """Return the environments of nodes that find and trust each other on this machine, and nobody else."""
    from nbps.runtime.cores import usable_cores
    from nbps.transport import get_transport

    name = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    common = {name: value for name, value in os.environ.items() if name not in _TRUST} | {
        "NBPS_NODES": str(nodes),
        "NBPS_RENDEZVOUS": get_transport(transport).free_rendezvous(name),
        "NBPS_TRANSPORT": transport,
        "NBPS_SECRET": secrets.token_hex(32),
        "NBPS_JOB": name,
        "NBPS_ROLL": roll,
        "NBPS_WORKERS": str(workers or max(1, usable_cores() // nodes)),
    }
    return {rank: common | {"NBPS_NODE_RANK": str(rank)} for rank in range(nodes)}


def _one_here(
    nodes: int, rank: int, workers: int | None, transport: str, rendezvous: str | None, secret_file: Path | None
) -> dict[str, str]:
    """Return the environment of this machine's node; what no option says is what this process was told."""
    environment = {name: value for name, value in os.environ.items() if name != "NBPS_ROLL"}
    environment |= {"NBPS_NODES": str(nodes), "NBPS_NODE_RANK": str(rank), "NBPS_TRANSPORT": transport}
    if workers is not None:
        environment["NBPS_WORKERS"] = str(workers)
    if rendezvous is not None:
        environment["NBPS_RENDEZVOUS"] = rendezvous
    if secret_file is not None:
        environment.pop("NBPS_SECRET", None)
        environment["NBPS_SECRET_FILE"] = str(secret_file)
    return environment


def _check_script(script: str, is_module: bool) -> None:
    """Say once, and not in every node, that there is nothing to run."""
    if not is_module:
        if not Path(script).exists():
            raise typer.BadParameter(f"there is no file {script!r}; expected a Python script.", param_hint="SCRIPT")
        return
    package = script.partition(".")[0]
    sys.path.insert(0, "")  # where python -m looks first
    try:
        found = package.isidentifier() and importlib.util.find_spec(package) is not None
    finally:
        sys.path.remove("")
    if not found:
        raise typer.BadParameter(
            f"there is no module {script!r}; expected its name, as for python -m.", param_hint="SCRIPT"
        )
