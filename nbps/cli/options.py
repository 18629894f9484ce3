"""The options of ``nbps train``: one name each, with its help and the range that typer checks."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated

import typer


class ConsistencyName(enum.StrEnum):
    """Names of the consistency models."""

    BSP = "bsp"
    SSP = "ssp"
    ESSP = "essp"
    ASP = "asp"


class ScheduleName(enum.StrEnum):
    """Names of the schedules of matrix factorization."""

    ROTATE = "rotate"
    CACHED = "cached"
    DIRECT = "direct"


class OptimizerName(enum.StrEnum):
    """Names of the optimizers of matrix factorization."""

    ADAGRAD = "adagrad"
    SGD = "sgd"


class FormatName(enum.StrEnum):
    """Names of the file formats; the same as `nbps.data.ratings.formats.FORMATS`, which a test checks."""

    DAT = "dat"
    TSV = "tsv"
    CSV = "csv"
    LIBMF = "libmf"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


# typer's own ranges include their ends, and let NaN and infinity pass.
def _check_fraction(value: float | None) -> float | None:
    return _checked(value, value is None or 0.0 <= value < 1.0, "0 <= x < 1")


def _check_rate(value: float | None) -> float | None:
    return _checked(value, value is None or 0.0 < value < math.inf, "a finite number > 0")


def _check_penalty(value: float | None) -> float | None:
    return _checked(value, value is None or 0.0 <= value < math.inf, "a finite number >= 0")


def _check_ratio(value: float | None) -> float | None:
    return _checked(value, value is not None and 0.0 < value <= 1.0, "0 < x <= 1")


def _checked(value: float | None, is_good: bool, expected: str) -> float | None:
    if not is_good:
        raise typer.BadParameter(f"expected {expected}, found {value:g}.")
    return value


_DATA, _MODEL, _RUN, _OUTPUT = "Data", "Model", "Parallel run", "Output"

DataFile = Annotated[
    Path | None,
    typer.Option(
        "--data", help="File of ratings. Default: generated, shaped like MovieLens 1M.", rich_help_panel=_DATA
    ),
]
FileFormat = Annotated[
    FormatName | None, typer.Option("--format", help="Its format. Default: detected.", rich_help_panel=_DATA)
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", help="What separates the columns, where it is nothing usual: '|', say.", rich_help_panel=_DATA
    ),
]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of user, item, rating, separated by commas: names in the header or positions from 0.",
        rich_help_panel=_DATA,
    ),
]
TestFile = Annotated[
    Path | None,
    typer.Option("--test", help="File of ratings to test on, instead of a part of --data.", rich_help_panel=_DATA),
]
TestFraction = Annotated[
    float | None,
    typer.Option(
        callback=_check_fraction,
        help="Part of the ratings to test on: 0 for none, less than 1. Default: 0.1.",
        rich_help_panel=_DATA,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split and of the model.", rich_help_panel=_DATA)]

Rank = Annotated[int, typer.Option(min=1, help="Number of latent factors.", rich_help_panel=_MODEL)]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the ratings.", rich_help_panel=_MODEL)]
LearningRate = Annotated[
    float | None,
    typer.Option(callback=_check_rate, help="More than 0. Default: the model's own.", rich_help_panel=_MODEL),
]
Regularization = Annotated[
    float | None,
    typer.Option(
        callback=_check_penalty,
        help="L2 penalty of factors and biases, 0 or more. Default: the model's own.",
        rich_help_panel=_MODEL,
    ),
]
OptimizerOption = Annotated[OptimizerName, typer.Option("--optimizer", help="Step sizes.", rich_help_panel=_MODEL)]
Patience = Annotated[
    int | None,
    typer.Option(
        "--early-stopping",
        min=1,
        metavar="PATIENCE",
        help="Stop after so many epochs without a better test error.",
        rich_help_panel=_MODEL,
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes. Default: the cores this process may use.", rich_help_panel=_RUN),
]
NodeCount = Annotated[
    int,
    typer.Option("--nodes", min=1, help="Nodes on this machine, each with its workers.", rich_help_panel=_RUN),
]
TransportOption = Annotated[
    str, typer.Option("--transport", help="How --nodes talk: tcp or shm.", rich_help_panel=_RUN)
]
ConsistencyOption = Annotated[
    ConsistencyName, typer.Option("--consistency", help="Who waits for whom.", rich_help_panel=_RUN)
]
Staleness = Annotated[
    int | None,
    typer.Option(min=0, help="Clocks a read may lag behind, for ssp and essp. Default: 2.", rich_help_panel=_RUN),
]
ScheduleOption = Annotated[
    ScheduleName, typer.Option("--schedule", help="How the item factors are shared.", rich_help_panel=_RUN)
]

CheckpointFolder = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="FOLDER",
        help="Save training there after each epoch; the same command goes on from there if it was cut off.",
        rich_help_panel=_RUN,
    ),
]

OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder to save the model in.", rich_help_panel=_OUTPUT)]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object as the last line; everything else goes to standard error.",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and --json only.", rich_help_panel=_OUTPUT)]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Print where the time went, from the start of the process.", rich_help_panel=_OUTPUT
    ),
]

# --------------------------------------------------------------------------- nbps train lasso


class LassoScheduleName(enum.StrEnum):
    """Names of the schedules of linear models."""

    WORKING_SETS = "working_sets"
    CYCLIC = "cyclic"


class TableFormatName(enum.StrEnum):
    """Names of the formats of features; the same as `nbps.data.features.reading.FORMATS`, which a test checks."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    SVMLIGHT = "svmlight"
    NPZ = "npz"


TableFile = Annotated[Path, typer.Option("--data", help="File of features and a target.", rich_help_panel=_DATA)]
TableFormat = Annotated[
    TableFormatName | None, typer.Option("--format", help="Its format. Default: detected.", rich_help_panel=_DATA)
]
Target = Annotated[
    str | None,
    typer.Option("--target", help="Its column, by name or position. Default: the first.", rich_help_panel=_DATA),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        callback=_check_rate, help="Penalty, more than 0. Default: by cross-validation.", rich_help_panel=_MODEL
    ),
]
L1Ratio = Annotated[
    float,
    typer.Option("--l1-ratio", callback=_check_ratio, help="Share of L1: 1 is the Lasso.", rich_help_panel=_MODEL),
]
Intercept = Annotated[bool, typer.Option("--intercept/--no-intercept", help="Fit one.", rich_help_panel=_MODEL)]
Standardize = Annotated[
    bool, typer.Option("--standardize", help="Penalise features as if all varied alike.", rich_help_panel=_MODEL)
]
Positive = Annotated[bool, typer.Option("--positive", help="No coefficient below 0.", rich_help_panel=_MODEL)]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tol", callback=_check_penalty, help="Duality gap, in mean squares of the target.", rich_help_panel=_MODEL
    ),
]
Iterations = Annotated[int, typer.Option("--max-iter", min=1, help="Passes at most.", rich_help_panel=_MODEL)]
LassoSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of the order of columns, for cyclic.", rich_help_panel=_MODEL)
]
LassoSchedule = Annotated[
    LassoScheduleName,
    typer.Option("--schedule", help="Working sets, or all columns dealt to workers.", rich_help_panel=_RUN),
]
Clocks = Annotated[int, typer.Option(min=1, help="Of cyclic: clocks in a pass over all columns.", rich_help_panel=_RUN)]
LassoWorkers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Default: this process; for cyclic the cores.", rich_help_panel=_RUN),
]
LassoConsistency = Annotated[
    ConsistencyName | None,
    typer.Option("--consistency", help="Of cyclic: who waits for whom. Default: essp.", rich_help_panel=_RUN),
]


class DocumentsFormatName(enum.StrEnum):
    """Names of the formats of documents; the same as `nbps.data.documents.reading.FORMATS`, which a test checks."""

    UCI = "uci"
    LDA_C = "lda-c"
    TEXT = "text"
    PARQUET = "parquet"
    ARROW = "arrow"


class TopicsScheduleName(enum.StrEnum):
    """Names of the schedules of LDA."""

    ROTATE = "rotate"
    CACHED = "cached"


DocumentsFile = Annotated[Path, typer.Option("--data", help="File of documents.", rich_help_panel=_DATA)]
VocabularyFile = Annotated[
    Path | None,
    typer.Option("--vocab", help="File with a word a line, where documents have their numbers.", rich_help_panel=_DATA),
]
DocumentsFormat = Annotated[
    DocumentsFormatName | None,
    typer.Option("--format", help="Its format. Default: detected; text must be said.", rich_help_panel=_DATA),
]
DocumentsColumn = Annotated[
    str | None,
    typer.Option("--column", help="Of Parquet and Arrow: texts or lists of words.", rich_help_panel=_DATA),
]
DocumentsFraction = Annotated[
    float | None,
    typer.Option(
        "--test-fraction",
        callback=_check_fraction,
        help="Part of the documents to test on: 0 for none, less than 1. Default: 0.1.",
        rich_help_panel=_DATA,
    ),
]
TopicCount = Annotated[int, typer.Option("--topics", min=1, help="Number of topics.", rich_help_panel=_MODEL)]
Passes = Annotated[int, typer.Option("--max-iter", min=1, help="Passes over the tokens.", rich_help_panel=_MODEL)]
TopicPrior = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        callback=_check_rate,
        help="Prior of a topic in a document, at first. Default: 10 / topics.",
        rich_help_panel=_MODEL,
    ),
]
WordPrior = Annotated[
    float, typer.Option("--beta", callback=_check_rate, help="Prior of a word in a topic.", rich_help_panel=_MODEL)
]
OptimizeEvery = Annotated[
    int,
    typer.Option(min=0, help="Passes after which alpha is learnt again; 0: it stays.", rich_help_panel=_MODEL),
]
TopicsSchedule = Annotated[
    TopicsScheduleName,
    typer.Option("--schedule", help="How the counts of words are shared.", rich_help_panel=_RUN),
]
TopicsConsistency = Annotated[
    ConsistencyName | None,
    typer.Option(
        "--consistency", help="Who waits for whom. Default: bsp; essp for --schedule cached.", rich_help_panel=_RUN
    ),
]
