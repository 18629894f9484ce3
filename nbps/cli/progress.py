"""Progress of training, one update for each epoch: a bar on a terminal, a line elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class TrainingProgress:
    """A callback of a model, and the context in which its bar is shown.

    Parameters
    ----------
    epochs : int or None
        How many there will be at most, if that says anything.
    console : rich.console.Console
        Where to show them.
    """

    needs_model = False

    def __init__(self, epochs: int | None, console: Console) -> None:
        self._epochs = epochs
        self._console = console
        self._bar = Progress(
            # 77 characters with two-digit epochs: a terminal of 80 shows all of it.
            TextColumn("epoch {task.completed}" + ("" if epochs is None else "/{task.total}")),
            BarColumn(bar_width=8),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting the workers", total=epochs)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, model: Any, record: Any) -> None:
        """Show one epoch; `record` is a `Record`."""
        text = str(record)
        self._bar.update(self._task, completed=record.epoch, description=text)
        if not self._console.is_terminal:
            of_all = "" if self._epochs is None else f"/{self._epochs}"
            self._console.print(f"epoch {record.epoch}{of_all}  {text}", soft_wrap=True)
