"""Runs of a study, one after the other: what is finished stays, what the budget lacks is left."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from ledger import Ledger
from progress import Report


class Setting(Protocol):
    """All that a run depends on; printed, it is the run's title."""

    def __hash__(self) -> int: ...

    def values(self) -> Mapping[str, Any]:
        """As columns of the table."""


S = TypeVar("S", bound=Setting)


def run(
    settings: Iterable[S],
    ledger: Ledger,
    finish: Callable[[S, Report], None],
    budget_minutes: float | None = None,
) -> list[S]:
    """Finish what the ledger lacks, in order; gives what the budget leaves out.

    No run is started that would end later than the budget if it took as long as the longest before.
    """
    wanted = [s for s in dict.fromkeys(settings) if not ledger.finished(s.values())]
    begin, longest = time.monotonic(), 0.0
    for number, setting in enumerate(wanted):
        elapsed = time.monotonic() - begin
        if budget_minutes is not None and elapsed + longest > 60 * budget_minutes:
            return wanted[number:]
        title, left = f"{number + 1}/{len(wanted)} {setting}", len(wanted) - number - 1
        with Report(title, left) as report:
            finish(setting, report)
        longest = max(longest, time.monotonic() - begin - elapsed)
    return []


def circumstances(seconds: float) -> dict[str, object]:
    """The last columns of a run: how long it took, with what, and when."""
    return {
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
