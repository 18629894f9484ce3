"""``nbps recommend``: the items that a saved model scores highest for a user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nbps.cli.failure import Debug


def recommend(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a model (nbps train ... --out DIR).")
    ],
    user: Annotated[str, typer.Option(help="Id of the user, as in the ratings.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of items.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Recommend items that the user has not rated in the training data."""
    from rich.table import Table

    from nbps.cli.console import Output
    from nbps.models import MatrixFactorization

    model = MatrixFactorization.load(folder)
    items, scores = model.recommend(user, n=n, filter_seen=True)
    output = Output(json=json)
    if json:
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        output.write_json(
            {"user": user, "recommendations": [{"item": item, "score": s} for item, s in pairs]}
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("item")
    table.add_column("score", justify="right")
    for item, score in zip(items, scores, strict=True):
        table.add_row(str(item), f"{score:.3f}")
    output.result().print(table)
