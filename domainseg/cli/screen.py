"""Tables, progress and errors on the terminal; plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_PLAIN_EVERY_S = 30.0


def say(text: str) -> None:
    """Print one line; brackets in it are text, not markup."""
    out.print(text, markup=False, soft_wrap=True)


def fail(text: str) -> None:
    """Print the sentence of an error to standard error."""
    err.print(f"error: {text}", markup=False, soft_wrap=True, style="red")


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table, its first column to the left and the others to the right."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    if out.is_terminal:
        out.print(table)
    else:
        # A pipe has no width to fit into: nothing is wrapped or cut there.
        wide = Console(width=max(80, 16 * len(header) + 40), highlight=False)
        wide.print(table)


class Meter:
    """A progress bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told = 0.0

    def __enter__(self) -> Meter:
        if out.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=out,
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str) -> None:
        """Say what begins."""
        if self._bar is not None:
            self._bar.console.print(name, markup=False)
        else:
            say(name)

    def step(self, done: int, total: int, note: str = "") -> None:
        """Say how far it is."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._unit, total=total, note=note)
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self._told >= _PLAIN_EVERY_S:
            self._told = time.monotonic()
            say(f"{self._unit} {done} of {total}  {note}".rstrip())
