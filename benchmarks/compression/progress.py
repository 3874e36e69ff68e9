"""How far a run of a study is, and when it and all are done."""

from __future__ import annotations

import datetime
import sys
import time


class Report:
    """A line for each run on the standard error: how far it is, and when this and all is done."""

    def __init__(self, title: str, runs_left: int) -> None:
        self.title, self.runs_left = title, runs_left
        self.start = self.last = time.monotonic()
        self.end = "\r" if sys.stderr.isatty() else "\n"
        self.interval = 0.5 if sys.stderr.isatty() else 20.0

    def __enter__(self) -> Report:
        return self

    def __call__(self, done: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.last < self.interval:
            return
        self.last = now
        left = (now - self.start) / done * (steps - done)
        study = left + self.runs_left * (now - self.start) / done * steps
        text = f"{self.title}: {done}/{steps}, loss {loss:.3f}, {clock(left)} left"
        text += f", {clock(study)} for all" if self.runs_left else ""
        print(f"{text:<110}", end=self.end, file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            seconds = time.monotonic() - self.start
            print(f"{self.title}: done in {clock(seconds):<70}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Hours:minutes:seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))
