"""``nbps train``: one subcommand for each model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nbps.cli import options as o
from nbps.cli.failure import Debug

if TYPE_CHECKING:
    from nbps.cli.training import RunOptions

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
    checkpoint: o.CheckpointFolder = None,
    out: o.OutFolder = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    profile: o.Profile = False,
    debug: Debug = False,
) -> None:
    """Factorize a matrix of ratings."""
    start(context, nodes, workers, transport)
    from nbps.cli.factorization import FactorizationTraining, ModelOptions
    from nbps.cli.training import run
    from nbps.cli.training_data import DataOptions

    options = run_options(
        out, json, quiet, workers, consistency=consistency, staleness=staleness, seed=seed,
        early_stopping=early_stopping, checkpoint=checkpoint, profiled=profile,
    )  # fmt: skip
    ratings = DataOptions(data, format, delimiter, columns, test, test_fraction, seed)
    model = ModelOptions(rank, epochs, learning_rate, regularization, optimizer, schedule)
    run(FactorizationTraining(ratings, model, options), options)


@train.command()
def lda(
    context: typer.Context,
    data: o.DocumentsFile,
    vocab: o.VocabularyFile = None,
    format: o.DocumentsFormat = None,  # noqa: A002
    column: o.DocumentsColumn = None,
    test_fraction: o.DocumentsFraction = None,
    seed: o.Seed = 0,
    topics: o.TopicCount = 10,
    max_iter: o.Passes = 200,
    alpha: o.TopicPrior = None,
    beta: o.WordPrior = 0.01,
    optimize_every: o.OptimizeEvery = 10,
    early_stopping: o.Patience = None,
    workers: o.Workers = None,
    nodes: o.NodeCount = 1,
    transport: o.TransportOption = "tcp",
    consistency: o.TopicsConsistency = None,
    staleness: o.Staleness = None,
    schedule: o.TopicsSchedule = o.TopicsScheduleName.ROTATE,
    checkpoint: o.CheckpointFolder = None,
    out: o.OutFolder = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    profile: o.Profile = False,
    debug: Debug = False,
) -> None:
    """Find topics of documents by latent Dirichlet allocation."""
    start(context, nodes, workers, transport)
    from nbps.cli.allocation import FileOptions, ModelOptions, TopicsTraining
    from nbps.cli.training import run

    default = "essp" if staleness is not None or schedule == o.TopicsScheduleName.CACHED else "bsp"
    options = run_options(
        out, json, quiet, workers, consistency=consistency or default, staleness=staleness, seed=seed,
        early_stopping=early_stopping, checkpoint=checkpoint, profiled=profile,
    )  # fmt: skip
    documents = FileOptions(data, vocab, format, column, test_fraction, seed)
    model = ModelOptions(topics, alpha, beta, max_iter, optimize_every or None, str(schedule))
    run(TopicsTraining(documents, model, options), options)


@train.command()
def lasso(
    context: typer.Context,
    data: o.TableFile,
    format: o.TableFormat = None,  # noqa: A002
    target: o.Target = None,
    alpha: o.Alpha = None,
    l1_ratio: o.L1Ratio = 1.0,
    intercept: o.Intercept = True,
    standardize: o.Standardize = False,
    positive: o.Positive = False,
    tol: o.Tolerance = 1e-4,
    max_iter: o.Iterations = 10_000,
    schedule: o.LassoSchedule = o.LassoScheduleName.WORKING_SETS,
    clocks: o.Clocks = 10,
    seed: o.LassoSeed = 0,
    workers: o.LassoWorkers = None,
    nodes: o.NodeCount = 1,
    transport: o.TransportOption = "tcp",
    consistency: o.LassoConsistency = None,
    staleness: o.Staleness = None,
    checkpoint: o.CheckpointFolder = None,
    out: o.OutFolder = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    profile: o.Profile = False,
    debug: Debug = False,
) -> None:
    """Select features of a table by the Lasso, or the elastic net."""
    is_cyclic = schedule == o.LassoScheduleName.CYCLIC
    for name, value in (("--consistency", consistency), ("--staleness", staleness), ("--checkpoint", checkpoint)):
        if value is not None and not is_cyclic:
            raise typer.BadParameter(f"{name} is for --schedule cyclic; working sets have no clocks. Leave it out.")
    if alpha is None and (is_cyclic or (workers or 1) > 1):
        raise typer.BadParameter("--alpha is chosen in one process. Give it, or leave --workers and --schedule out.")
    if nodes > 1 and not is_cyclic:
        raise typer.BadParameter("--nodes is for --schedule cyclic; working sets are one node's. Leave it out.")
    if is_cyclic:
        start(context, nodes, workers, transport)
    from nbps.cli.lasso import FileOptions, LassoTraining, ModelOptions
    from nbps.cli.training import run

    options = run_options(
        out, json, quiet, workers if is_cyclic else workers or 1, consistency=consistency or "essp",
        staleness=staleness, seed=seed, early_stopping=None, checkpoint=checkpoint, profiled=profile,
    )  # fmt: skip
    model = ModelOptions(alpha, l1_ratio, intercept, standardize, positive, tol, max_iter, str(schedule), clocks)
    run(LassoTraining(FileOptions(data, format, target), model, options), options)


def start(context: typer.Context, nodes: int, workers: int | None, transport: str) -> None:
    """Start the nodes if there are to be several, which does not return; on each, what takes longest."""
    from nbps.cli.nodes import play

    if nodes > 1:
        play(context, nodes, workers, transport)
    from nbps.runtime import forkserver

    # Starts while everything else is imported, and the data is read: with Numba, without which no worker starts.
    forkserver.current().load((importlib.import_module, ("nbps.kernels.prepare",)))


def run_options(out: Path | None, json: bool, quiet: bool, workers: int | None, **chosen: Any) -> RunOptions:
    """Return the options of the run, for this node: all nodes have the same model, and the first one tells of it."""
    from nbps.cli.console import Output
    from nbps.cli.training import RunOptions
    from nbps.job.settings import default_workers
    from nbps.nodes.nodes import Nodes

    here = Nodes.from_environment()
    is_reporter = here.rank == 0
    return RunOptions(
        workers=default_workers(here) if workers is None else workers,
        out=out if is_reporter else None,
        output=Output(json=json and is_reporter, quiet=quiet or not is_reporter),
        **chosen,
    )
