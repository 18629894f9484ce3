"""``nbps recommend``: the items that a saved model scores highest for a user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nbps.cli.failure import Debug


def recommend(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a model (nbps train ... --out DIR).")],
    user: Annotated[str, typer.Option(help="Id of the user, as in the ratings.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of items.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Recommend items that the user has not rated in the training data."""
    from nbps.cli.console import Output
    from nbps.errors import DataError
    from nbps.models import MatrixFactorization

    try:
        model = MatrixFactorization.load(folder)
    except DataError as error:
        raise DataError(f"{error}. Make a model with: nbps train mf --out DIR") from error
    (known,) = model.user_ids_.decode(model.user_ids_.encode(user)).tolist()  # an integer where ids are integers
    items, scores = model.recommend(known, n=n, filter_seen=True)
    output = Output(json=json)
    pairs = list(zip(items.tolist(), scores, strict=True))
    if not json:
        output.print_rows([("item", "score"), *((str(item), f"{score:.3f}") for item, score in pairs)], right=True)
    recommendations = [{"item": item, "score": score} for item, score in pairs]
    output.write_json({"user": known, "recommendations": recommendations})
