"""``nbps topics``: the most probable words of each topic of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nbps.cli.failure import Debug


def topics(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a model (nbps train lda ... --out DIR).")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of words.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Show the most probable words of each topic."""
    from nbps.cli.console import Output
    from nbps.errors import DataError
    from nbps.models import LatentDirichletAllocation

    try:
        model = LatentDirichletAllocation.load(folder)
    except DataError as error:
        raise DataError(f"{error}. Make a model with: nbps train lda --out DIR") from error
    output, found = Output(json=json), model.topics(n)
    sizes = model.components_.sum(axis=1)
    shares = sizes / sizes.sum()
    if not json:
        rows = [(f"{k:>5} {shares[k]:>6.1%}", " ".join(words)) for k, (words, _) in enumerate(found)]
        output.print_rows([("topic  share", "words"), *rows])
    listed = [
        {"topic": k, "share": float(shares[k]), "words": words, "probabilities": each.tolist()}
        for k, (words, each) in enumerate(found)
    ]
    output.write_json({"topics": listed})
