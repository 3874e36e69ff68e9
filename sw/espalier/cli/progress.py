"""How far a long command is, and when it will be done: a bar, or lines where nobody looks."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress as bars

from .shared import console

LINES_SECONDS = 20.0


@contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """Within the block nothing is printed, if wanted: for all but one of several processes."""
    before, console.quiet = console.quiet, console.quiet or wanted
    try:
        yield
    finally:
        console.quiet = before


class Progress:
    """Called with (steps done, steps in all, loss) after each step."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.first: tuple[int, float] | None = None
        self.last = time.monotonic()
        self.bar: bars.Progress | None = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        if console.is_terminal:
            self.bar = bars.Progress(
                *bars.Progress.get_default_columns(),
                bars.TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, done: int, steps: int, loss: float) -> None:
        now, note = time.monotonic(), f"step {done} of {steps}, loss {loss:.4g}"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=steps, note=note)
            return
        if self.first is None:
            self.first = done, now  # a resumed run starts in the middle
        if now - self.last >= LINES_SECONDS and done > self.first[0]:
            self.last = now
            left = (now - self.first[1]) / (done - self.first[0]) * (steps - done)
            rest = datetime.timedelta(seconds=round(left))
            console.print(f"{self.title}: {note}, {rest} left", highlight=False)
