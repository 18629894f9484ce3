"""The options of ``nbps train mf``: one name each, with its help and the range that typer checks."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class Consistency(enum.StrEnum):
    """Names of the consistency models."""

    BSP = "bsp"
    SSP = "ssp"
    ESSP = "essp"
    ASP = "asp"


class Schedule(enum.StrEnum):
    """Names of the schedules of matrix factorization."""

    ROTATE = "rotate"
    CACHED = "cached"
    DIRECT = "direct"


class Optimizer(enum.StrEnum):
    """Names of the optimizers of matrix factorization."""

    ADAGRAD = "adagrad"
    SGD = "sgd"


class Format(enum.StrEnum):
    """Names of the file formats; the same as `nbps.data.formats.FORMATS`, which a test checks."""

    DAT = "dat"
    TSV = "tsv"
    CSV = "csv"
    LIBMF = "libmf"
    PARQUET = "parquet"
    ARROW = "arrow"


_DATA, _MODEL, _RUN, _OUTPUT = "Data", "Model", "Parallel run", "Output"

DataFile = Annotated[
    Path | None,
    typer.Option(
        "--data", help="File of ratings. Default: generated, shaped like MovieLens 1M.", rich_help_panel=_DATA
    ),
]
FileFormat = Annotated[
    Format | None, typer.Option("--format", help="Its format. Default: detected.", rich_help_panel=_DATA)
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
        min=0.0,
        max=1.0,
        help="Part of the ratings to test on; 0 for none. Default: 0.1.",
        rich_help_panel=_DATA,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split and of the model.", rich_help_panel=_DATA)]

Rank = Annotated[int, typer.Option(min=1, help="Number of latent factors.", rich_help_panel=_MODEL)]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the ratings.", rich_help_panel=_MODEL)]
LearningRate = Annotated[float | None, typer.Option(min=0.0, help="Default: the model's own.", rich_help_panel=_MODEL)]
Regularization = Annotated[
    float | None, typer.Option(min=0.0, help="L2 penalty. Default: the model's own.", rich_help_panel=_MODEL)
]
OptimizerName = Annotated[Optimizer, typer.Option("--optimizer", help="Step sizes.", rich_help_panel=_MODEL)]
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
ConsistencyName = Annotated[
    Consistency, typer.Option("--consistency", help="Who waits for whom.", rich_help_panel=_RUN)
]
Staleness = Annotated[
    int | None,
    typer.Option(min=0, help="Clocks a read may lag behind, for ssp and essp. Default: 2.", rich_help_panel=_RUN),
]
ScheduleName = Annotated[
    Schedule, typer.Option("--schedule", help="How the item factors are shared.", rich_help_panel=_RUN)
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
