"""``nbps train``: one subcommand for each model."""

from __future__ import annotations

import typer

from nbps.cli import options as o
from nbps.cli.failure import Debug

train = typer.Typer(name="train", no_args_is_help=True, help="Train a model.")


@train.callback()
def _models() -> None:
    # Without a callback typer would drop the name of a single subcommand.
    """Train a model."""


@train.command()
def mf(
    context: typer.Context,
    data: o.DataFile = None,
    format: o.FileFormat = None,  # noqa: A002
    delimiter: o.Delimiter = None,
    columns: o.ColumnNames = None,
    test: o.TestFile = None,
    test_fraction: o.TestFraction = None,
    seed: o.Seed = 0,
    rank: o.Rank = 32,
    epochs: o.Epochs = 20,
    learning_rate: o.LearningRate = None,
    regularization: o.Regularization = None,
    optimizer: o.OptimizerOption = o.OptimizerName.ADAGRAD,
    early_stopping: o.Patience = None,
    workers: o.Workers = None,
    nodes: o.NodeCount = 1,
    transport: o.TransportOption = "tcp",
    consistency: o.ConsistencyOption = o.ConsistencyName.ESSP,
    staleness: o.Staleness = None,
    schedule: o.ScheduleOption = o.ScheduleName.ROTATE,
    out: o.OutFolder = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    profile: o.Profile = False,
    debug: Debug = False,
) -> None:
    """Factorize a matrix of ratings."""
    from nbps.cli.nodes import play

    if nodes > 1:
        play(context, nodes, workers, transport)
    from nbps.runtime import forkserver

    forkserver.current()  # starts while everything else is imported, and the ratings are read
    from nbps.job.settings import default_workers
    from nbps.nodes.nodes import Nodes

    here = Nodes.from_environment()
    is_reporter = here.rank == 0  # all nodes have the same model
    from nbps.cli.console import Output
    from nbps.cli.factorization import ModelOptions, run
    from nbps.cli.training_data import DataOptions

    run(
        DataOptions(data, format, delimiter, columns, test, test_fraction, seed),
        ModelOptions(
            rank=rank,
            epochs=epochs,
            learning_rate=learning_rate,
            regularization=regularization,
            optimizer=optimizer,
            early_stopping=early_stopping,
            workers=default_workers(here) if workers is None else workers,
            consistency=consistency,
            staleness=staleness,
            schedule=schedule,
            seed=seed,
        ),
        out if is_reporter else None,
        Output(json=json and is_reporter, quiet=quiet or not is_reporter),
        profile,
    )
