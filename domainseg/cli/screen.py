"""Tables, progress and errors on the terminal; plain lines where there is none.

Rich's own parts are imported where they are used: its progress bar alone takes a third of
the time in which ``--help`` must answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 30.0
_PIPE_WIDTH = 10_000
"""Columns of a table in a pipe: it has no width to fit into, so nothing is wrapped or cut."""
_FIGURE = re.compile(r"[-+0-9.,%() ]*|n/?a")


@cache
def console(*, stderr: bool = False) -> Console:
    """Return the console of standard output, or of standard error."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def say(text: str) -> None:
    """Print one line; brackets in it are text, not markup."""
    console().print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    console(stderr=True).print(f"warning: {text}", markup=False, soft_wrap=True, style="yellow")


def fail(text: str) -> None:
    """Print the sentence of an error to standard error."""
    console(stderr=True).print(f"error: {text}", markup=False, soft_wrap=True, style="red")


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns of words to the left, columns of figures to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A Text has no markup: a name such as [a] stays a name.
    cells = [[Text(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for index, name in enumerate(header):
        figures = index > 0 and all(_FIGURE.fullmatch(row[index]) for row in rows)
        table.add_column(name, justify="right" if figures else "left", no_wrap=index == 0)
    for row_cells in cells:
        table.add_row(*row_cells)
    if console().is_terminal:
        console().print(table)
        return
    wide = Console(width=_PIPE_WIDTH, highlight=False)
    with wide.capture() as captured:
        wide.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())


class Meter:
    """A progress bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told = 0.0

    def __enter__(self) -> Self:
        if console().is_terminal:
            self._bar = _bar()
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


class RunMeter(Meter):
    """Progress of a prediction: images, and the stages of each that takes long."""

    def __init__(self) -> None:
        super().__init__("image")
        self._images = ""
        self._stage = ""
        self._part: TaskID | None = None

    def image(self, done: int, total: int, name: str) -> None:
        """Say which image it is."""
        self._images = f"{name} ({done + 1} of {total})" if total > 1 and name else name
        if total > 1:
            self.step(done, total, name)

    def part(self, stage: str, done: int, total: int) -> None:
        """Say how far an image is in one stage of its run."""
        if self._bar is not None:
            self._show(stage, done, total)
        elif time.monotonic() - self._told >= _PLAIN_EVERY_S:
            self._told = time.monotonic()
            say(f"{self._images}  {stage} {done} of {total}".strip())

    def _show(self, stage: str, done: int, total: int) -> None:
        assert self._bar is not None
        if self._part is None:
            self._part = self._bar.add_task(stage, total=total, note=self._images)
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._part, total=total)
        self._bar.update(
            self._part, description=stage, completed=done, total=total, note=self._images
        )


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        # Not markup: the note may hold the name of an image.
        TextColumn("{task.fields[note]}", markup=False),
        console=console(),
    )
